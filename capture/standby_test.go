package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"
)

// takeover is the promise; under a test's load it is reported, not enforced.
const takeover = 15 * time.Second

// awaitActive waits until a child follows the source.
func awaitActive(t testing.TB, p *engine.Process, times int) {
	t.Helper()
	testenv.Eventually(t, 90*time.Second, func() error {
		if strings.Count(p.Output(), "capture follows the source") < times {
			return errors.New("not active yet")
		}
		return nil
	})
}

// awaitGroup waits until n processes take part in the election.
func awaitGroup(t testing.TB, cfg Config, n int) {
	t.Helper()
	client, err := kafka.NewClient(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	group := route.CaptureGroup(cfg.Pipeline)
	testenv.Eventually(t, time.Minute, func() error {
		groups, err := kadm.NewClient(client).DescribeGroups(t.Context(), group)
		if err != nil {
			return err
		}
		if g := groups[group]; g.State != "Stable" || len(g.Members) != n {
			return fmt.Errorf("group is %s with %d members, want %d", g.State, len(g.Members), n)
		}
		return nil
	})
}

// TestStandbyProcesses kills the active process and freezes the next one while
// the source is written to: the standby takes over, and what wakes up writes
// nothing.
func TestStandbyProcesses(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		source := e.NewSource(t)
		cfg := mongoConfig(t, e.Broker, e.Pipeline, source)
		coll := source.Client.Database("shop").Collection("orders")
		if err := source.Client.Database("shop").CreateCollection(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		first := startChild(t, cfg, "first")
		awaitActive(t, first, 1)
		second := startChild(t, cfg, "second")
		awaitGroup(t, cfg, 2)
		untilNow(t, cfg, source)

		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		want := history{}
		var g errgroup.Group
		g.Go(func() error {
			for i := 0; ctx.Err() == nil; i += 5 {
				if err := work(t.Context(), coll, i, 5); err != nil {
					return err
				}
				maps.Copy(want, expected(i, 5))
			}
			return nil
		})

		begin := time.Now()
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		awaitActive(t, second, 1)
		report(t, "kill -9", time.Since(begin))

		third := startChild(t, cfg, "third")
		awaitGroup(t, cfg, 2)
		begin = time.Now()
		if err := second.Freeze(); err != nil {
			t.Fatal(err)
		}
		awaitActive(t, third, 1)
		report(t, "SIGSTOP", time.Since(begin))
		if err := second.Thaw(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 90*time.Second, func() error {
			if out := second.Output(); !strings.Contains(out, "no longer the active one") && !strings.Contains(out, "was fenced") {
				return errors.New("the woken process has not noticed yet")
			}
			return nil
		})
		awaitGroup(t, cfg, 2)
		stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		untilNow(t, cfg, source)
		compareHistories(t, captured(t, cfg), want)
	})
}

func report(t testing.TB, what string, took time.Duration) {
	t.Helper()
	t.Logf("takeover after %s: %s", what, took.Round(10*time.Millisecond))
	if took > takeover {
		t.Logf("that is more than the promised %s", takeover)
	}
}
