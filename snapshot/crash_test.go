package snapshot

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
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
		const kills = 2
		for i := range kills {
			p := r.startChild(t, fmt.Sprintf("victim-%d", i))
			before, _ := r.progressOf(t)
			testenv.Eventually(t, 60*time.Second, func() error {
				if n, _ := r.progressOf(t); n > before || !p.Running() {
					return nil
				}
				return fmt.Errorf("nothing is committed yet")
			})
			// Some way into the load, at whatever it is doing.
			time.AfterFunc(time.Duration(random.IntN(500))*time.Millisecond, func() { _ = p.Kill() })
			<-p.Done()
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
