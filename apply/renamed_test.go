package apply

import (
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestRenamedUnderALoad renames two collections while a run is under way: one
// before the end of its reads, for which the run asks itself, so that the reload
// is a part of the history; the other while the run waits for that reload, for
// which nobody asks but apply. Each is reloaded once, and both are there.
func TestRenamedUnderALoad(t *testing.T) {
	e := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, e)
	of := func(name string, n byte) collection {
		return collection{
			ns: event.Namespace{DB: "shop", Coll: name}, uuid: event.UUID{0: n, 15: 7}, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: name}})},
		}
	}
	early, late := of("early", 1), of("late", 2)
	m := r.begin(t, early, late)
	rename := func(c collection) collection {
		to := event.Namespace{DB: "shop", Coll: c.ns.Coll + "moved"}
		r.publish(t, moved(t, c.ns, to, c.uuid, false))
		c.ns = to
		return c
	}
	earlier := rename(early) // its documents were read under neither name
	reload := r.reloadOf(t, "snapshot/"+testRun, earlier)
	r.publish(t, reload[:1]...)
	for i := range reload[1:] {
		reload[1+i].Position = event.Position{} // that of its publication
	}
	later := rename(late) // between the run's reads and its end
	r.publish(t, reload[1:]...)
	r.tick()
	r.load(t, m, late)
	r.publish(t, inserted(t, later.ns, bson.D{{Key: "_id", Value: "passed over"}}))
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)

	requests := r.asked(t, 1)
	if len(requests) != 1 || requests[0].Namespace() != later.ns {
		for _, request := range requests {
			t.Errorf("asked for %s: %s", request.Namespace(), request.Reason)
		}
	}
	r.same(t, earlier.ns, earlier.docs)
	later.docs = append(later.docs, raw(t, bson.D{{Key: "_id", Value: "passed over"}}))
	r.publish(t, r.reloadOf(t, requests[0].ID, later)...)
	r.await(t, r.watermark(t), s)
	r.same(t, later.ns, later.docs)
	testenv.Eventually(t, settled, func() error {
		if list := r.outbox(t); len(list) > 0 {
			return fmt.Errorf("%d entries of the outbox are left, the first of %s", len(list), list[0].NS)
		}
		return nil
	})
	s.stop(t)
}
