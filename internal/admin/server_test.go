package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/admin"
	"github.com/tributarydb/tributary/internal/state"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client keeps no connection, so that none is left behind.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "test_gauge", Help: "x"}))
	var now atomic.Pointer[[]state.Status]
	now.Store(&[]state.Status{})
	server, err := admin.Listen(t.Context(), admin.Config{
		Address: "127.0.0.1:0", Gatherer: registry, Log: zerolog.Nop(),
		Statuses: func() []state.Status { return *now.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running errgroup.Group
	running.Go(func() error { return server.Run(ctx) })

	expect := func(path string, code int, text string) {
		t.Helper()
		got, body := get(t, server.Address(), path)
		if got != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s, want %d and %q", path, got, body, code, text)
		}
	}
	expect("/healthz", http.StatusOK, "alive")
	expect("/metrics", http.StatusOK, "test_gauge 0")
	expect("/readyz", http.StatusServiceUnavailable, "starting")
	expect("/other", http.StatusNotFound, "")
	now.Store(&[]state.Status{{Service: "capture", State: state.StateRunning}, {Service: "apply", State: state.StateRetrying, Cause: "no server"}})
	expect("/readyz", http.StatusServiceUnavailable, "no server")
	now.Store(&[]state.Status{{Service: "capture", State: state.StateRunning}, {Service: "snapshot", State: state.StateFinished}})
	expect("/readyz", http.StatusOK, "[]")
	_, body := get(t, server.Address(), "/status")
	var statuses []state.Status
	if err := json.Unmarshal([]byte(body), &statuses); err != nil || len(statuses) != 2 || statuses[0].Service != "capture" {
		t.Errorf("status %s: %v", body, err)
	}

	if _, err := admin.Listen(t.Context(), admin.Config{Address: server.Address()}); err == nil || !strings.Contains(err.Error(), "-http") {
		t.Errorf("a taken port gives %v", err)
	}
	cancel()
	if err := running.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNoServer(t *testing.T) {
	server, err := admin.Listen(t.Context(), admin.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(server.Run(ctx), server.Close()); err != nil || server.Address() != "" {
		t.Errorf("address %q: %v", server.Address(), err)
	}
}
