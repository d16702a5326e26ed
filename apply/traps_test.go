package apply

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// trap is a history of one document that a server would not store as it is, if
// it were written in the ordinary way.
type trap struct {
	name   string
	loaded bson.D
	events func(t *testing.T, ns event.Namespace) []event.Event
	want   bson.D // nil: no document
	// idAnywhere: needs a server that leaves _id where it stands.
	idAnywhere bool
}

func traps(able abilities) []trap {
	zero := bson.Timestamp{}
	one := func(v any) bson.D { return bson.D{{Key: "_id", Value: v}} }
	with := func(fields ...bson.E) bson.D { return append(bson.D{{Key: "_id", Value: "x"}}, fields...) }
	events := func(f ...func(*testing.T, event.Namespace) event.Event) func(*testing.T, event.Namespace) []event.Event {
		return func(t *testing.T, ns event.Namespace) (list []event.Event) {
			for _, g := range f {
				list = append(list, g(t, ns))
			}
			return list
		}
	}
	insert := func(doc bson.D) func(*testing.T, event.Namespace) event.Event {
		return func(t *testing.T, ns event.Namespace) event.Event { return inserted(t, ns, doc) }
	}
	replace := func(doc bson.D) func(*testing.T, event.Namespace) event.Event {
		return func(t *testing.T, ns event.Namespace) event.Event { return replaced(t, ns, doc) }
	}
	remove := func(id any) func(*testing.T, event.Namespace) event.Event {
		return func(t *testing.T, ns event.Namespace) event.Event { return deleted(t, ns, id) }
	}
	update := func(id any, diff bson.D) func(*testing.T, event.Namespace) event.Event {
		return func(t *testing.T, ns event.Namespace) event.Event { return updated(t, ns, id, diff) }
	}
	adds := func(e ...bson.E) bson.D { return bson.D{{Key: "i", Value: bson.D(e)}} }
	dollar := bson.E{Key: "a", Value: bson.D{{Key: "$set", Value: 1}, {Key: "b", Value: bson.A{bson.D{{Key: "$x", Value: 2}}}}}}
	idLast := bson.D{{Key: "a", Value: 1}, {Key: "_id", Value: "x"}}
	ref := bson.D{{Key: "$ref", Value: "c"}, {Key: "$id", Value: 1}}
	all := []trap{
		{name: "insert with a zero timestamp", events: events(insert(with(bson.E{Key: "t", Value: zero}, bson.E{Key: "u", Value: 1}))), want: with(bson.E{Key: "t", Value: zero}, bson.E{Key: "u", Value: 1})},
		{name: "load with a zero timestamp", loaded: with(bson.E{Key: "t", Value: zero}), want: with(bson.E{Key: "t", Value: zero})},
		{name: "replacement with a zero timestamp", loaded: with(), events: events(replace(with(bson.E{Key: "t", Value: zero}))), want: with(bson.E{Key: "t", Value: zero})},
		{name: "update of a document with a zero timestamp", loaded: with(bson.E{Key: "t", Value: zero}), events: events(update("x", adds(bson.E{Key: "n", Value: 1}))), want: with(bson.E{Key: "t", Value: zero}, bson.E{Key: "n", Value: 1})},
		{name: "load with _id last", idAnywhere: true, loaded: idLast, want: idLast},
		{name: "update of a document with _id last", idAnywhere: true, loaded: idLast, events: events(update("x", adds(bson.E{Key: "n", Value: 1}))), want: append(append(bson.D{}, idLast...), bson.E{Key: "n", Value: 1})},
		{name: "replacement moves _id", idAnywhere: true, loaded: with(), events: events(replace(idLast)), want: idLast},
		{name: "nested $ names inserted", events: events(insert(with(dollar))), want: with(dollar)},
		{name: "nested $ names replaced", loaded: with(), events: events(replace(with(dollar))), want: with(dollar)},
		{name: "document with nested $ names updated", loaded: with(dollar), events: events(update("x", adds(bson.E{Key: "n", Value: 1}))), want: with(dollar, bson.E{Key: "n", Value: 1})},
		{name: "DBRef", loaded: with(bson.E{Key: "r", Value: ref}), events: events(update("x", adds(bson.E{Key: "n", Value: 1}))), want: with(bson.E{Key: "r", Value: ref}, bson.E{Key: "n", Value: 1})},
		{name: "_id that is a DBRef", loaded: one(ref), events: events(update(ref, adds(bson.E{Key: "n", Value: 1}))), want: append(one(ref), bson.E{Key: "n", Value: 1})},
		{name: "_id of another number type", loaded: one(int32(1)), events: events(remove(int32(1)), insert(one(1.0))), want: one(1.0)},
		{name: "_id of another number type later", loaded: one(int32(1)), events: events(remove(int32(1)), insert(one(int64(1))), update(int64(1), adds(bson.E{Key: "n", Value: 1}))), want: append(one(int64(1)), bson.E{Key: "n", Value: 1})},
		{name: "_id with nested number of another type", loaded: one(bson.D{{Key: "a", Value: int32(1)}}), events: events(remove(bson.D{{Key: "a", Value: int32(1)}}), insert(one(bson.D{{Key: "a", Value: 1.0}}))), want: one(bson.D{{Key: "a", Value: 1.0}})},
		{name: "_id with zero timestamp", events: events(insert(one(zero))), want: one(zero)},
		{name: "_id null", loaded: one(nil), events: events(update(nil, adds(bson.E{Key: "n", Value: 1}))), want: append(one(nil), bson.E{Key: "n", Value: 1})},
		{name: "_id MinKey deleted", loaded: one(bson.MinKey{}), events: events(remove(bson.MinKey{}))},
		{name: "empty names and dots", loaded: with(), events: events(replace(with(bson.E{Key: "", Value: 1}, bson.E{Key: "a.b", Value: bson.D{{Key: "c.d", Value: 1}}}))), want: with(bson.E{Key: "", Value: 1}, bson.E{Key: "a.b", Value: bson.D{{Key: "c.d", Value: 1}}})},
		{name: "inserted, changed and gone", events: events(insert(with()), update("x", adds(bson.E{Key: "n", Value: 1})), remove("x"))},
	}
	return slices.DeleteFunc(all, func(tr trap) bool { return tr.idAnywhere && !able.idAnywhere })
}

func probed(t *testing.T, r *rig) abilities {
	t.Helper()
	var able abilities
	if err := probeExact(t.Context(), r.dest.Client, &able); err != nil {
		t.Fatal(err)
	}
	return able
}

// TestTraps wants every trap's document byte for byte, strictly and while
// catching up.
func TestTraps(t *testing.T) {
	m := testenv.RequireMongoD(t)
	for _, catching := range []bool{false, true} {
		t.Run(map[bool]string{false: "strict", true: "catching up"}[catching], func(t *testing.T) {
			r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
			able := probed(t, r)
			all := traps(able)
			var load []collection
			for _, trap := range all {
				c := collection{ns: event.Namespace{DB: "f", Coll: strings.ReplaceAll(trap.name, "$", "dollar")}}
				if trap.loaded != nil {
					c.docs = []bson.Raw{raw(t, trap.loaded)}
				}
				load = append(load, c)
			}
			manifest := r.begin(t, load...)
			s := r.start(t, "a")
			if catching {
				r.clock += 1000 // what follows is before the end of the reads
			}
			r.load(t, manifest, load...)
			if catching {
				r.clock -= 1000
			} else {
				r.await(t, r.watermark(t), s)
			}
			for i, trap := range all {
				if trap.events != nil {
					r.publish(t, trap.events(t, load[i].ns)...)
				}
			}
			if catching {
				r.clock += 1000
			}
			r.await(t, r.watermark(t), s)
			for i, trap := range all {
				var want []bson.Raw
				if trap.want != nil {
					want = append(want, raw(t, trap.want))
				}
				r.sameOrdered(t, load[i].ns, want)
			}
			s.stop(t)
		})
	}
}

// TestIDNotFirst wants a document whose _id stands elsewhere kept or refused,
// never changed.
func TestIDNotFirst(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
		if probed(t, r).idAnywhere {
			t.Skip("this server keeps it: see TestTraps")
		}
		c := collection{ns: event.Namespace{DB: "f", Coll: "c"}}
		manifest := r.begin(t, c)
		s := r.start(t, "a")
		r.load(t, manifest, c)
		r.publish(t, inserted(t, c.ns, bson.D{{Key: "secret", Value: "a value"}, {Key: "_id", Value: "x"}}))
		err := s.fails(t)
		if !errors.Is(err, errIDFirst) {
			t.Errorf("got %v", err)
		}
		for _, part := range []string{"insert", "f.c", `"x"`, "offset=", "position=", "hint:"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %s", err, part)
			}
		}
		if strings.Contains(err.Error(), "a value") {
			t.Errorf("%q quotes the document", err)
		}
	})
}

// TestCollatedIDs replays the history of _ids that a collation takes for equal
// over the state that it led to.
func TestCollatedIDs(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	r.edit = func(c *Config) { c.BatchEvents = 1 }
	last := bson.D{{Key: "_id", Value: "a"}, {Key: "n", Value: int32(3)}}
	c := collection{
		ns: event.Namespace{DB: "f", Coll: "folded"}, docs: []bson.Raw{raw(t, last)},
		options: raw(t, bson.D{{Key: "collation", Value: bson.D{{Key: "locale", Value: "en"}, {Key: "strength", Value: 2}}}}),
	}
	r.byNamespace = map[event.Namespace]bool{c.ns: true}
	manifest := r.begin(t, c)
	s := r.start(t, "a")
	r.clock += 1000 // what follows is before the end of the reads
	r.load(t, manifest, c)
	r.clock -= 1000
	history := []event.Event{
		inserted(t, c.ns, bson.D{{Key: "_id", Value: "A"}, {Key: "n", Value: int32(1)}}),
		updated(t, c.ns, "A", bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(2)}}}}),
		replaced(t, c.ns, bson.D{{Key: "_id", Value: "A"}, {Key: "n", Value: int32(2)}}),
		deleted(t, c.ns, "A"),
		inserted(t, c.ns, last),
	}
	r.publish(t, history...)
	r.clock += 1000
	r.await(t, r.watermark(t), s)
	r.same(t, c.ns, c.docs)
	// And strictly.
	r.publish(t, deleted(t, c.ns, "a"))
	for i := range history {
		history[i].Position = event.Position{}
	}
	r.publish(t, history...)
	r.await(t, r.watermark(t), s)
	r.same(t, c.ns, c.docs)
	s.stop(t)
}
