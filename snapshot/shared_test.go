package snapshot

import (
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
)

// TestResumedAtTheEnd: a load that was killed after nine tenths costs less than
// a seventh of it to finish, and no more than what was not committed.
func TestResumedAtTheEnd(t *testing.T) {
	t.Parallel() // with the next one: both wait for a dead member's session
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	const total = 5000
	fill(t, r.source, ns, objectIDs(total), 300)
	r.followSource(t)
	// It reads a little more than that, and commits all but what waits.
	victim := r.startLimited(t, childConfig{Instance: "victim", Limit: 5000, HoldAt: total * 94 / 100})
	testenv.Eventually(t, 2*time.Minute, func() error {
		if n, _ := r.progressOf(t); n < total*9/10 {
			return fmt.Errorf("%d of %d documents are committed", n, total)
		}
		return nil
	})
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	committed, m := r.progressOf(t)
	if m.State != state.RunLoading || committed >= total {
		t.Fatalf("run is %s with %d documents before the kill", m.State, committed)
	}
	read := finished(t, r.startChild(t, "survivor"))
	if read*100 >= 15*total || read != total-int(committed) {
		t.Errorf("%d of %d documents were committed, and %d were read to finish", committed, total, read)
	}
	r.checkLoaded(t, ns)
}

// TestJoiningProcessTakesChunks: a process that is added while a load runs takes
// over a part of it from one that goes on, and the rest when that dies.
func TestJoiningProcessTakesChunks(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)})
	const collections, each = 8, 100
	var namespaces []event.Namespace
	for i := range collections {
		ns := event.Namespace{DB: "shop", Coll: fmt.Sprintf("c%d", i)}
		fill(t, r.source, ns, objectIDs(each), 300)
		namespaces = append(namespaces, ns)
	}
	r.followSource(t)
	// Alone it would take a quarter of an hour.
	slow := r.startLimited(t, childConfig{Instance: "slow", Limit: 1})
	r.awaitProgress(t, 0, slow.Running)
	quick := r.startChild(t, "quick")
	testenv.Eventually(t, 2*time.Minute, func() error {
		if n, _ := r.progressOf(t); n < collections*each/4 {
			return fmt.Errorf("%d of %d documents are committed", n, collections*each)
		}
		return nil
	})
	if n, _ := r.progressOf(t); n >= collections*each || !slow.Running() {
		t.Errorf("%d of %d documents are committed, the slow process runs: %t", n, collections*each, slow.Running())
	}
	if err := slow.Kill(); err != nil {
		t.Fatal(err)
	}
	if read := finished(t, quick); read < collections*each/2 {
		t.Errorf("the joined process has read %d of %d documents", read, collections*each)
	}
	r.checkLoaded(t, namespaces...)
}
