package apply

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestTooManyWanted updates more documents that somebody has deleted at the
// destination than are asked for one by one: the collection is asked for instead,
// over a restart in the middle too, and its reload makes everything good.
func TestTooManyWanted(t *testing.T) {
	pair := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, pair)
	const most = 100
	r.tune = func(s *Service) { s.mostWanted = most }
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}, uuid: event.UUID{0: 1, 15: 1}}
	r.byNamespace = map[event.Namespace]bool{c.ns: true} // all of them are one worker's
	r.load(t, r.begin(t, c), c)
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)
	lost := func(from, to int) {
		var events []event.Event
		for i := from; i < to; i++ {
			e := updated(t, c.ns, int32(i), bson.D{{Key: "u", Value: bson.D{{Key: "a", Value: int32(1)}}}})
			e.UUID = c.uuid
			events = append(events, e)
		}
		r.publish(t, events...)
		r.await(t, r.watermark(t), s)
	}
	lost(0, most-10)
	s.stop(t)
	s = r.start(t, "b")
	lost(most-10, most+10)
	for i := range int32(3) {
		c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: i}, {Key: "a", Value: int32(1)}}))
	}
	var request string
	testenv.Eventually(t, settled, func() error {
		for _, asked := range r.asked(t, 1) {
			if asked.Kind == state.RequestReload && asked.Namespace() == c.ns {
				request = asked.ID
				return nil
			}
		}
		return errors.New("no reload was asked for")
	})
	if n := len(r.outbox(t)); n > most+1 {
		t.Errorf("%d entries are in the outbox", n)
	}
	r.publish(t, r.reloadOf(t, request, c)...)
	r.await(t, r.watermark(t), s)
	r.same(t, c.ns, c.docs)
	testenv.Eventually(t, settled, func() error {
		if list := r.outbox(t); len(list) > 0 {
			return fmt.Errorf("%d entries of the outbox are left", len(list))
		}
		return nil
	})
	s.stop(t)
}
