package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// progressOf sums up what of the latest run is committed.
func (r *rig) progressOf(t testing.TB) (documents int64, m state.Manifest) {
	t.Helper()
	view := r.state(t)
	m, _ = view.LatestRun()
	for _, p := range view.Chunks(m.Run) {
		documents += p.Documents
	}
	return documents, m
}

// awaitProgress waits until more documents than that have been committed since
// the call, or all of them, or until going says no.
func (r *rig) awaitProgress(t testing.TB, more int64, going func() bool) {
	t.Helper()
	before, _ := r.progressOf(t)
	testenv.Eventually(t, time.Minute, func() error {
		n, m := r.progressOf(t)
		if n > before+more || !going() || m.Run != "" && r.allRead(t, m) {
			return nil
		}
		return fmt.Errorf("%d documents are committed, of %d", n-before, more)
	})
}

// allRead reports whether every chunk of a run is done.
func (r *rig) allRead(t testing.TB, m state.Manifest) bool {
	t.Helper()
	done := 0
	for _, p := range r.state(t).Chunks(m.Run) {
		if p.Done {
			done++
		}
	}
	return done == int(m.Chunks)
}

func TestKilledProcessesLoseNothingAndRepeatNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	testenv.Each(t, func(t *testing.T, pair testenv.Pair) {
		r := newRig(t, pair)
		orders, users := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "users"}
		const total = 5000
		fill(t, r.source, orders, objectIDs(total-1000), 300)
		fill(t, r.source, users, objectIDs(1000), 300)
		r.followSource(t)
		p := r.startChild(t, "victim")
		r.awaitProgress(t, random.Int64N(total/4), p.Running)
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		committed, m := r.progressOf(t)
		if m.State == state.RunComplete {
			t.Log("the run was complete before the last kill")
		}
		read := finished(t, r.startChild(t, "survivor"))
		r.checkLoaded(t, orders, users)
		// What was committed is not read again. A document to go on behind is
		// met again once for each chunk under way, and not counted.
		if want := total - int(committed); read != want {
			t.Errorf("%d documents were committed, the survivor read %d: want %d", committed, read, want)
		}
		if after, again := r.progressOf(t); after != total || again.Run != m.Run {
			t.Errorf("run %s has %d documents: want run %s with %d", again.Run, after, m.Run, total)
		}
	})
}

func TestProcessesShareChunks(t *testing.T) {
	testenv.Each(t, func(t *testing.T, pair testenv.Pair) {
		r := newRig(t, pair)
		var namespaces []event.Namespace
		for i := range 8 {
			ns := event.Namespace{DB: "shop", Coll: fmt.Sprintf("c%d", i)}
			fill(t, r.source, ns, objectIDs(300), 300)
			namespaces = append(namespaces, ns)
		}
		// Both are there before there is a run.
		one, two := r.startChild(t, "one"), r.startChild(t, "two")
		r.awaitMembers(t, 2)
		r.followSource(t)
		a, b := finished(t, one), finished(t, two)
		r.checkLoaded(t, namespaces...)
		if a == 0 || b == 0 || a+b != 2400 {
			t.Errorf("one read %d, the other %d documents: want a part each of 2400", a, b)
		}
	})
}

func TestServersThatGoAwayAreWaitedFor(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pair := testenv.Pair{MongoDB: testenv.RequireMongoD(t), Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, pair)
	orders, capped := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "log"}
	if err := r.source.Client.Database("shop").CreateCollection(t.Context(), capped.Coll,
		options.CreateCollection().SetCapped(true).SetSizeInBytes(64<<20)); err != nil {
		t.Fatal(err)
	}
	const total = 12_000
	fill(t, r.source, orders, objectIDs(total/2), 300)
	fill(t, r.source, capped, objectIDs(total/2), 300)
	if err := r.publish(t.Context(), watermark(r.now(t))); err != nil {
		t.Fatal(err)
	}
	server := r.source.Servers()[0]
	var load, watermarks errgroup.Group
	load.Go(func() error { return r.run(t, r.config("one")) })
	for range 2 {
		r.awaitProgress(t, random.Int64N(total/4), func() bool { return true })
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	watermarks.Go(func() error { return r.keepPublishing(ctx) })
	err := load.Wait()
	cancel()
	if err := errors.Join(err, watermarks.Wait()); err != nil {
		t.Fatal(err)
	}
	r.checkLoaded(t, orders, capped)
}

func TestStopCommitsWhatWasRead(t *testing.T) {
	testenv.Each(t, func(t *testing.T, pair testenv.Pair) {
		r := newRig(t, pair)
		ns := event.Namespace{DB: "shop", Coll: "orders"}
		const total = 4000
		fill(t, r.source, ns, objectIDs(total), 300)
		r.followSource(t)
		s, err := New(r.config("stopped"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var g errgroup.Group
		g.Go(func() error { return s.Run(ctx) })
		r.awaitProgress(t, 0, func() bool { return true })
		stop()
		asked := time.Now()
		if err := g.Wait(); err != nil {
			t.Errorf("a stopped service fails: %v", err)
		}
		if took := time.Since(asked); took > drainTimeout {
			t.Errorf("the stop took %s", took)
		}
		if err := r.run(t, r.config("next")); err != nil {
			t.Fatal(err)
		}
		r.checkLoaded(t, ns)
	})
}
