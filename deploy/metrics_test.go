package deploy_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestDashboardAndAlerts runs a pipeline and wants every metric that the
// dashboard and the alerts name.
func TestDashboardAndAlerts(t *testing.T) {
	seen := metricsOfAPipeline(t)
	for _, file := range []string{"deploy/compose/grafana/dashboards/tributary.json", "deploy/compose/alerts.yml"} {
		names := regexp.MustCompile(`\btributary_[a-z_]+`).FindAllString(read(t, file), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !seen[name] {
				t.Errorf("%s: no service has a metric %s", file, name)
			}
		}
	}
}

// metricsOfAPipeline returns the names of all metrics that the services show
// while they work.
func metricsOfAPipeline(t *testing.T) map[string]bool {
	t.Helper()
	broker, standin := testenv.StandIn(t), testenv.MongoDB{MongoEngine: testenv.Embedded}
	source, destination := standin.NewSource(t), standin.NewDestination(t)
	work := workload.Config{Client: source.Client, Seed: 1, Standin: true, Documents: 100, Rate: 20}
	if err := workload.Load(t.Context(), work, nil); err != nil {
		t.Fatal(err)
	}
	fleet, err := stack.NewFleet(t.TempDir(), build(t, "tributary", "./cmd/tributary"), stack.Pipeline{
		Name: testenv.NewPipeline(t), Brokers: broker.Brokers, Source: source.URI, Partitions: 1,
		Destinations: []stack.Destination{{Name: "eu", URI: destination.URI}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fleet.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := fleet.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return workload.NewLive(work).Run(ctx) })
	seen := map[string]bool{}
	testenv.Eventually(t, time.Minute, func() error {
		if err := fleet.Check(); err != nil {
			return err
		}
		for _, m := range fleet.Members {
			if !m.Running() {
				continue
			}
			metrics, err := m.Metrics(ctx)
			if err != nil && m.Running() {
				return err
			}
			for name := range metrics {
				seen[name] = true
			}
		}
		for _, name := range []string{"tributary_apply_events_total", "tributary_snapshot_run_chunks_total", "tributary_capture_events_total"} {
			if !seen[name] {
				return fmt.Errorf("no metric %s so far", name)
			}
		}
		return nil
	})
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return seen
}
