package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// childEnv holds the childConfig of a test binary that is to be a snapshot
// process.
const childEnv = "SNAPSHOT_TEST_CHILD"

// childConfig is what a child needs to know.
type childConfig struct {
	Pipeline, Instance, URI string
	Brokers                 []string
}

// childMain runs a service until it ends and prints how many documents it read.
func childMain() int {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	registry := prometheus.NewRegistry()
	cfg := testConfig(c.Pipeline, c.Instance, c.URI, c.Brokers)
	cfg.Registerer = registry
	s, err := New(cfg)
	if err == nil {
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	families, err := registry.Gather()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, f := range families {
		if f.GetName() == "tributary_snapshot_read_documents_total" {
			n := f.GetMetric()[0].GetCounter().GetValue()
			if _, err := fmt.Fprintf(os.Stdout, "read %.0f\n", n); err != nil {
				return 1
			}
		}
	}
	return 0
}

// startChild starts a snapshot process of its own.
func (r *rig) startChild(t testing.TB, instance string) *engine.Process {
	t.Helper()
	config, err := json.Marshal(childConfig{Pipeline: r.pair.Pipeline, Instance: instance, URI: r.source.URI, Brokers: r.pair.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	return testenv.StartSelf(t, "snapshot "+instance, childEnv+"="+string(config))
}

// finished waits for a child's end and returns how many documents it read.
func finished(t testing.TB, p *engine.Process) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, error %v\n%s", code, err, p.Tail(40))
	}
	_, rest, found := strings.Cut(p.Output(), "read ")
	var n int
	if _, err := fmt.Sscan(rest, &n); !found || err != nil {
		t.Fatalf("no count of documents in the output: %v", err)
	}
	return n
}
