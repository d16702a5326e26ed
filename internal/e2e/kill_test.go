package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	// testTimeout bounds one pair of engines.
	testTimeout = 3 * time.Minute
	// rounds is how often every service is killed.
	rounds = 1
	// pollInterval is how often a service is asked whether it has joined.
	pollInterval = 50 * time.Millisecond
	// shortLife and longLife are the longest times between two kills: services
	// are killed while they come up as well as at work, to which a restarted one
	// comes only when its group has noticed the death of the former.
	shortLife, longLife = 2 * time.Second, 10 * time.Second
	// maxDeath is how long a killed service stays away at most.
	maxDeath = 500 * time.Millisecond
)

// TestKillAnything kills every service at random moments, from the first second
// of the full load on, while the source is being written to. Afterwards nothing
// may differ and nothing may have been published twice. TRIBUTARY_SEED repeats
// the choices of a run.
func TestKillAnything(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		seed := seedOf(t)
		ctx, cancel := context.WithTimeoutCause(t.Context(), testTimeout, fmt.Errorf("not done after %s, seed %d", testTimeout, seed))
		defer cancel()
		source, destination := e.NewSource(t), e.NewDestination(t)
		work := workload.Config{Client: source.Client, Seed: seed, Standin: !e.Exact, DDL: true, Documents: 2000, Rate: 60}
		if e.Exact {
			work.Documents, work.Rate = 20_000, 400
		}
		if err := workload.Load(ctx, work, nil); err != nil {
			t.Fatal(err)
		}
		fleet := newFleet(ctx, t, stack.Pipeline{
			Name: e.Pipeline, Brokers: e.Brokers, Source: source.URI, Partitions: 3,
			ChunkBytes: 1 << 20, BatchBytes: 64 << 10,
			Destinations: []stack.Destination{
				{Name: "eu", URI: destination.URI, Databases: map[string]string{"shop": "shop_eu"}},
			},
		})
		k := killer{
			t: t, fleet: fleet, live: workload.NewLive(work), random: rand.New(rand.NewPCG(seed, 1)),
			rounds: rounds, longLife: longLife, joined: func(context.Context, *stack.Member) bool { return true },
		}
		if e.KafkaEngine == testenv.KFake {
			// It keeps a member that dies while it joins a group, with the
			// partitions that it is given then, for ever.
			k.longLife, k.joined = shortLife, func(ctx context.Context, m *stack.Member) bool { return m.Joined(ctx) }
		}
		k.underWrites(ctx)

		judge(ctx, t, fleet, verdict{broker: e.Brokers, pipeline: e.Pipeline, source: source, destination: destination})
	})
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("TRIBUTARY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("TRIBUTARY_SEED: %v", err)
		}
	}
	t.Logf("TRIBUTARY_SEED=%d", seed)
	return seed
}

// newFleet prepares the services, which are killed when the test ends.
func newFleet(ctx context.Context, t *testing.T, p stack.Pipeline) *stack.Fleet {
	t.Helper()
	binary, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if os.Getenv("TRIBUTARY_KEEP") != "" {
		if dir, err = os.MkdirTemp("", "fleet-"); err != nil {
			t.Fatal(err)
		}
		t.Logf("the services' logs are kept in %s", dir)
	}
	fleet, err := stack.NewFleet(dir, binary, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fleet.Kill(); err != nil {
			t.Error(err)
		}
	})
	return fleet
}

// killer kills services.
type killer struct {
	t      *testing.T
	fleet  *stack.Fleet
	live   *workload.Live
	random *rand.Rand
	rounds int
	// longLife is the longest time between two kills.
	longLife time.Duration
	// joined says when a service may be killed.
	joined func(context.Context, *stack.Member) bool
}

// underWrites starts the services and kills each of them several times while the
// source is written to, then stops writing.
func (k *killer) underWrites(ctx context.Context) {
	k.t.Helper()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.live.Run(writing) })
	g.Go(func() error {
		defer stopWriting()
		if err := k.all(ctx); err != nil {
			return err
		}
		return awaitPublished(ctx, k.fleet)
	})
	if err := g.Wait(); err != nil {
		fatal(k.t, k.fleet, err)
	}
	k.t.Logf("written: %+v", k.live.Stats())
}

// all kills every service a few times, in random order.
func (k *killer) all(ctx context.Context) error {
	if err := k.fleet.Start(); err != nil {
		return err
	}
	for range k.rounds {
		for _, i := range k.random.Perm(len(k.fleet.Members)) {
			if err := k.one(ctx, k.fleet.Members[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// one lets a service live for a while, kills it and starts it again.
func (k *killer) one(ctx context.Context, m *stack.Member) error {
	for !k.joined(ctx, m) {
		if err := pause(ctx, pollInterval); err != nil {
			return err
		}
	}
	life := []time.Duration{shortLife, k.longLife}[k.random.IntN(2)]
	if err := pause(ctx, time.Duration(k.random.Int64N(int64(life)))); err != nil {
		return err
	}
	if err := k.fleet.Check(); err != nil {
		return err
	}
	k.t.Logf("kill %s", m.Name)
	if err := m.Kill(); err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(k.random.Int64N(int64(maxDeath)))); err != nil {
		return err
	}
	return m.Start()
}

// pause waits, since what is tested here is what happens meanwhile.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fatal ends the test with what the services said last.
func fatal(t *testing.T, fleet *stack.Fleet, err error) {
	t.Helper()
	for _, m := range fleet.Members {
		t.Logf("--- %s\n%s", m.Name, m.Tail(30))
	}
	t.Fatal(err)
}
