package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/throttle"
	"golang.org/x/sync/errgroup"
)

// childEnv holds the childConfig of a test binary that is to be a snapshot
// process.
const childEnv = "SNAPSHOT_TEST_CHILD"

// childConfig is what a child needs to know.
type childConfig struct {
	Pipeline, Instance, URI string
	Brokers                 []string
	// Limit is how many documents are read in a second, until HoldAt of them
	// were read: then next to nothing more. 0 limits nothing.
	Limit, HoldAt int64
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
	cfg.Throttle = throttle.New(throttle.Limits{Documents: c.Limit})
	s, err := New(cfg)
	if err == nil {
		err = holding(cfg.Throttle, registry, c.HoldAt, s.Run)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	n, err := readDocuments(registry)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := fmt.Fprintf(os.Stdout, "read %.0f\n", n); err != nil {
		return 1
	}
	return 0
}

// holding runs a service that reads next to nothing once it has read so many
// documents.
func holding(limiter *throttle.Limiter, registry *prometheus.Registry, at int64, run func(context.Context) error) error {
	if at == 0 {
		return run(context.Background())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			n, err := readDocuments(registry)
			if err != nil {
				return err
			}
			if n >= float64(at) {
				limiter.Set(throttle.Limits{Documents: 1})
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	err := run(ctx)
	cancel()
	return errors.Join(err, g.Wait())
}

// readDocuments is how many documents a service has read.
func readDocuments(registry *prometheus.Registry) (n float64, err error) {
	families, err := registry.Gather()
	for _, f := range families {
		if f.GetName() == "tributary_snapshot_read_documents_total" {
			n = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return n, err
}

// startChild starts a snapshot process of its own.
func (r *rig) startChild(t testing.TB, instance string) *engine.Process {
	t.Helper()
	return r.startLimited(t, childConfig{Instance: instance})
}

// startLimited is startChild with limits.
func (r *rig) startLimited(t testing.TB, c childConfig) *engine.Process {
	t.Helper()
	c.Pipeline, c.URI, c.Brokers = r.pair.Pipeline, r.source.URI, r.pair.Brokers
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return testenv.StartSelf(t, "snapshot "+c.Instance, childEnv+"="+string(config))
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
