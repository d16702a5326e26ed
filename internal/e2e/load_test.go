package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
)

const (
	// loadSeeds and loadKills are how many seeds there are and how many kills
	// each has beside one of every process, in an ordinary run and in a long one.
	loadSeeds, soakLoadSeeds = 3, 20
	loadKills, soakLoadKills = 1, 10
	loadProcesses            = 5
	// loadDocuments are read at loadRate in a second at most, so that the load
	// lasts while processes die.
	loadDocuments, soakLoadDocuments = 12_000, 30_000
	loadRate                         = 3000
	// loadLife is the longest time between two kills.
	loadLife = 1500 * time.Millisecond
	// loadTimeout bounds one seed.
	loadTimeout = 4 * time.Minute
)

// TestLoadUnderFaults loads a source that is written to, definitions among it,
// while each of two snapshot processes, two apply processes and capture is
// killed once and some of them again; every other seed is written to until the
// load is over. Afterwards nothing may differ and nothing may have been
// published twice. An ordinary run has the same seeds each time, all at once,
// since they mostly wait for dead members' sessions to end. TRIBUTARY_SEED
// repeats one; TRIBUTARY_SOAK runs more and longer ones, from that seed on.
func TestLoadUnderFaults(t *testing.T) {
	mongod, broker := testenv.RequireMongoD(t), testenv.RequireKafka(t)
	first, n, documents, kills := uint64(1), loadSeeds, loadDocuments, loadKills
	if soaking() {
		first, n, documents, kills = seedOf(t), soakLoadSeeds, soakLoadDocuments, soakLoadKills
	} else if os.Getenv("TRIBUTARY_SEED") != "" {
		first, n = seedOf(t), 1
	}
	passed := make([]string, n)
	t.Run("load", func(t *testing.T) {
		for i := range n {
			seed := first + uint64(i)
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				if !soaking() {
					t.Parallel()
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), loadTimeout, fmt.Errorf("not done after %s, seed %d", loadTimeout, seed))
				defer cancel()
				l := &loadFaults{
					killer: killer{t: t, random: rand.New(rand.NewPCG(seed, 3)), longLife: loadLife, joined: func(context.Context, *stack.Member) bool { return true }},
					source: mongod.NewSource(t), destination: mongod.NewDestination(t), broker: broker.Brokers, seed: seed, documents: documents, kills: kills,
				}
				l.run(ctx)
				if !t.Failed() {
					passed[i] = fmt.Sprint(seed)
				}
			})
		}
	})
	seeds := strings.Fields(strings.Join(passed, " "))
	if err := appendReport(fmt.Sprintf("Full load: %d of %d seeds with %d kills each left no difference: %s", len(seeds), n, kills+loadProcesses, strings.Join(seeds, " "))); err != nil {
		t.Error(err)
	}
}

// loadFaults is one seed.
type loadFaults struct {
	killer
	source, destination *testenv.Mongo
	broker              []string
	seed                uint64
	documents, kills    int
}

// run loads a data set into the source and from there into the destination.
func (l *loadFaults) run(ctx context.Context) {
	l.t.Helper()
	exactly := []string{deliveryOfExact, deliveryPoor}[l.random.IntN(2)]
	work := workload.Config{Client: l.source.Client, Seed: l.seed, DDL: true, Documents: l.documents, Rate: 200}
	if err := workload.Load(ctx, work, nil); err != nil {
		l.t.Fatal(err)
	}
	l.live = workload.NewLive(work)
	name := testenv.NewPipeline(l.t)
	l.t.Logf("TRIBUTARY_SEED=%d, pipeline %s, exactly once: %s", l.seed, name, exactly)
	l.fleet = newFleet(ctx, l.t, stack.Pipeline{
		Name: name, Brokers: l.broker, Source: l.source.URI, Partitions: 3, ChunkBytes: 1 << 20, BatchBytes: 64 << 10, ReadDocuments: loadRate,
		Destinations: []stack.Destination{
			{Name: "eu", URI: l.destination.URI, Databases: map[string]string{"shop": "shop_eu"}, ExactlyOnce: exactly},
		},
	})
	for _, more := range [][]string{{"snapshot-2", "", "snapshot"}, {"apply-2", "eu", "apply", "-destination", "eu"}} {
		if _, err := l.fleet.Add(more[0], more[1], more[2:]...); err != nil {
			l.t.Fatal(err)
		}
	}
	l.underWrites(ctx)
	judge(ctx, l.t, l.fleet, verdict{broker: l.broker, pipeline: name, source: l.source, destination: l.destination})
}

// underWrites kills while the source is written to, and has the load end with an
// even seed.
func (l *loadFaults) underWrites(ctx context.Context) {
	l.t.Helper()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.live.Run(writing) })
	g.Go(func() error {
		defer stopWriting()
		if err := l.fleet.Start(); err != nil {
			return err
		}
		for _, i := range l.victims() {
			if err := l.one(ctx, l.fleet.Members[i]); err != nil {
				return err
			}
		}
		if l.seed%2 == 0 {
			if err := l.awaitLoaded(ctx); err != nil {
				return err
			}
		}
		return awaitPublished(ctx, l.fleet)
	})
	if err := g.Wait(); err != nil {
		fatal(l.t, l.fleet, err)
	}
	l.t.Logf("written: %+v", l.live.Stats())
}

// victims are the numbers of the members in the order of their deaths.
func (l *loadFaults) victims() []int {
	order := l.random.Perm(len(l.fleet.Members))
	for range l.kills {
		order = append(order, l.random.IntN(len(l.fleet.Members)))
	}
	return order
}

// awaitLoaded waits until an apply process goes on with the changes.
func (l *loadFaults) awaitLoaded(ctx context.Context) error {
	for {
		for _, m := range l.fleet.Members {
			if m.Destination == "" || !m.Running() {
				continue
			}
			if s, err := m.Status(ctx); err == nil && s.Phase == state.PhaseChanges {
				return nil
			}
		}
		if err := l.fleet.Check(); err != nil {
			return err
		}
		if err := pause(ctx, pollInterval); err != nil {
			return err
		}
	}
}
