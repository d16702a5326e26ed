package apply

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestSwapUnique has pairs of documents swap a unique value through a third one,
// as a source must, many times and over a restart: under both settings, with
// transactions and without.
func TestSwapUnique(t *testing.T) {
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		for _, enforced := range []bool{false, true} {
			t.Run(fmt.Sprintf("exactly_once=%s/enforced=%t", delivery, enforced), func(t *testing.T) { swapUnique(t, delivery, enforced) })
		}
	}
}

func swapUnique(t *testing.T, delivery string, enforced bool) {
	r := realRig(t)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "seats"}, uuid: event.UUID{9}}
	r.edit = func(cfg *Config) { cfg.ExactlyOnce, cfg.Rules.Indexes.Unique = delivery, enforced }
	if enforced {
		r.byNamespace = map[event.Namespace]bool{c.ns: true}
	}
	spec := indexSpecOf(t, "seat", bson.E{Key: "unique", Value: true})
	c.indexes = []bson.Raw{spec}
	seat := func(id, value string) event.Event {
		return updated(t, c.ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "seat", Value: value}}}})
	}
	for _, id := range []string{"a", "b", "x", "y"} {
		c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: id}, {Key: "seat", Value: id}}))
	}
	m := r.begin(t, c)
	s := r.start(t, "one")
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)
	testenv.Eventually(t, settled, func() error {
		if rules.UniqueIndex(r.index(t, c.ns, "seat_1")) != enforced {
			return errors.New("the index is not as the setting says")
		}
		return nil
	})
	held := map[string]string{"a": "a", "b": "b", "x": "x", "y": "y"}
	swap := func(one, other string) []event.Event {
		held[one], held[other] = held[other], held[one]
		return []event.Event{seat(one, "none"), seat(other, held[other]), seat(one, held[one])}
	}
	for round := range 6 {
		var events []event.Event
		for range 5 {
			events = append(events, swap("a", "b")...)
			events = append(events, swap("x", "y")...)
			events = append(events, swap("b", "x")...)
		}
		r.publish(t, events...)
		if round%3 == 1 {
			s.stop(t)
			s = r.start(t, fmt.Sprint("again", round))
		}
	}
	r.await(t, r.watermark(t), s)
	var want []bson.Raw
	for id, value := range held {
		want = append(want, raw(t, bson.D{{Key: "_id", Value: id}, {Key: "seat", Value: value}}))
	}
	r.same(t, c.ns, want)
	s.stop(t)
}
