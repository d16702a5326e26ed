# Everything that CI and people run. `make help` lists it.
# What is here needs Go; `make engines` also needs a JDK and Maven.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The tools' versions, in this one place.
GOFUMPT       := mvdan.cc/gofumpt@v0.12.0
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# How long each fuzz target runs, and how often each benchmark.
FUZZTIME  ?= 30s
BENCHTIME ?= 1s

# Go files of both modules, without what git ignores.
GO_FILES = $$(git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [ ! -e "$$f" ] || echo "$$f"; done)

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## build bin/tributary
	go build -o bin/tributary ./cmd/tributary

.PHONY: fmt
fmt: ## format the Go code
	go run $(GOFUMPT) -w $(GO_FILES)

.PHONY: lint
lint: ## check formatting, then run the linters on both modules
	@unformatted=$$(go run $(GOFUMPT) -l $(GO_FILES)); \
	if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	go run $(GOLANGCI_LINT) run ./...
	cd embedded && go run $(GOLANGCI_LINT) run ./...

.PHONY: test
test: try-engines ## vet, check formatting, run every test with the race detector, print coverage
	go vet ./...
	@unformatted=$$(go run $(GOFUMPT) -l $(GO_FILES)); \
	if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	go test -race -shuffle=on -timeout=12m -coverpkg=./... -coverprofile=coverage.out ./...
	@go tool cover -func=coverage.out | tail -n 1
	cd embedded && go vet ./... && go test -race -shuffle=on -timeout=10m ./...

.PHONY: bench
bench: try-engines ## measure the pipeline end to end, services against their ceilings, then the packages' hot paths
	go run ./internal/e2e/bench
	go test -run='^$$' -bench='^Benchmark(Capture|Load)$$|^BenchmarkApply(Load)?$$' -benchtime=1x -count=3 -timeout=30m ./capture ./snapshot ./apply
	go test -run='^$$' -bench='^Benchmark(Fold|Encode|Pack)$$' -benchtime=$(BENCHTIME) -benchmem ./capture ./snapshot ./apply
	go test -run='^$$' -bench=. -benchtime=$(BENCHTIME) -benchmem ./capture/oplog ./internal/...

.PHONY: soak
soak: try-engines ## run the long variants of tests (SOAK=differential,load chooses); a table with their seeds at the end, output in soak.log
	go run ./internal/e2e/soak -entries "$(SOAK)"

.PHONY: demo
demo: build ## load, follow and verify two destinations of a source under writes
	go run ./internal/e2e/demo

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
	  for name in $$(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$$file" | sed 's/func //'); do \
	    echo "== $$name ($$(dirname "$$file"))"; \
	    (cd "$$(dirname "$$file")" && go test -run='^$$' -fuzz="^$$name$$" -fuzztime=$(FUZZTIME) .); \
	  done; \
	done

.PHONY: generate
generate: ## write the golden files anew, to be looked at with git diff
	go test -count=1 ./apply -run='^TestFold$$' -rewrite
	go test -count=1 ./capture/oplog ./internal/wire -rewrite

.PHONY: engines
engines: ## fetch a real Kafka broker for tests (JDK 17 and Maven needed)
	deploy/kafka/fetch.sh

.PHONY: try-engines
try-engines:
	@deploy/kafka/fetch.sh --optional

.PHONY: kafka
kafka: engines ## run that broker on 127.0.0.1:9092 until Ctrl-C; data in .engines/kafka/run
	go run ./internal/testenv/engine/kafka

.PHONY: up
up: ## start the Docker Compose stack
	docker compose up --build --detach

.PHONY: down
down: ## stop the Docker Compose stack and delete its data
	docker compose down --volumes
