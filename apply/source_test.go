package apply

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// answer plays capture, and snapshot where a load was disturbed, for a source
// that has stopped in the given state: it publishes what the destination needs
// whole, until it needs nothing more.
func (r *rig) answer(t testing.TB, s *service, source []collection) {
	t.Helper()
	byName := map[string]collection{}
	for _, c := range source {
		byName[c.ns.String()] = c
	}
	for round := range 100 {
		events := r.answers(t, fmt.Sprint("answer ", round), byName)
		if len(events) == 0 {
			return
		}
		r.publish(t, events...)
		r.await(t, r.watermark(t), s)
	}
	t.Fatal("the destination asks and asks")
}

// answers are the events that satisfy what is needed now.
func (r *rig) answers(t testing.TB, request string, source map[string]collection) []event.Event {
	t.Helper()
	var events []event.Event
	reloaded := map[string]bool{}
	reload := func(name string) {
		c, ok := source[name]
		if ok && !reloaded[name] {
			events = append(events, r.reloadOf(t, request, c)...)
		}
		reloaded[name] = true
	}
	var records []collectionRecord
	cursor, err := r.dest.Client.Database(ownDatabase).Collection(collectionsCollection).Find(t.Context(), bson.D{{Key: "awaiting", Value: true}})
	if err == nil {
		err = cursor.All(t.Context(), &records)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range records {
		reload(c.ID.NS)
	}
	entries := r.outbox(t)
	for _, entry := range entries {
		if entry.whole() && entry.State == requestWanted {
			reload(entry.NS)
		}
	}
	for _, entry := range entries {
		if entry.whole() || entry.State != requestWanted || reloaded[entry.NS] {
			continue
		}
		c := source[entry.NS]
		e := event.Event{Op: event.OpRefresh, NS: c.ns, UUID: c.uuid, DocumentKey: entry.Doc}
		for _, doc := range c.docs {
			key, err := keptKey(doc.Lookup("_id"))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(key, entry.ID.Key) {
				e.Document = doc
			}
		}
		events = append(events, e)
	}
	return events
}

// reloadOf are the events of a collection's reload.
func (r *rig) reloadOf(t testing.TB, request string, c collection, destinations ...string) []event.Event {
	t.Helper()
	options := c.options
	if options == nil {
		options = emptyDocument()
	}
	names := bson.A{}
	for _, d := range destinations {
		names = append(names, d)
	}
	indexes := bson.A{}
	for _, ix := range c.indexes {
		indexes = append(indexes, ix)
	}
	head := func(op event.Op, name string, more ...bson.E) event.Event {
		ddl := bson.D{{Key: name, Value: c.ns.Coll}, {Key: "request", Value: request}, {Key: "destinations", Value: names}}
		return event.Event{Op: op, NS: c.ns, UUID: c.uuid, DDL: raw(t, append(ddl, more...)), Position: r.tick()}
	}
	events := []event.Event{head(event.OpReload, "reload", bson.E{Key: "options", Value: options}, bson.E{Key: "indexes", Value: indexes})}
	for _, doc := range c.docs {
		key := raw(t, bson.D{{Key: "_id", Value: doc.Lookup("_id")}})
		events = append(events, event.Event{Op: event.OpRefresh, NS: c.ns, UUID: c.uuid, DocumentKey: key, Document: doc, Position: r.tick()})
	}
	return append(events, head(event.OpReloadEnd, "reloadEnd", bson.E{Key: "through", Value: r.now()}))
}

// moved is a rename.
func moved(t testing.TB, from, to event.Namespace, uuid event.UUID, drop bool) event.Event {
	t.Helper()
	return event.Event{Op: event.OpRename, NS: from, UUID: uuid, DDL: raw(t, bson.D{
		{Key: "renameCollection", Value: from.String()}, {Key: "to", Value: to.String()}, {Key: "dropTarget", Value: drop},
	})}
}

// TestAwaitedCollections brings collections to the destination by renames: from
// outside of the selection, between databases, over another one, on and on while
// the reload has not come, and out again; and from under apply's hands. Data of
// them is passed over until the reload, and nothing of the requests is left.
func TestAwaitedCollections(t *testing.T) {
	e := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, e)
	r.edit = func(c *Config) { c.Rules = only(t, "shop.*", "other.*") }
	ns := func(db, coll string) event.Namespace { return event.Namespace{DB: db, Coll: coll} }
	uuid := func(n byte) event.UUID { return event.UUID{0: n, 15: 9} }
	doc := func(id string) bson.Raw { return raw(t, bson.D{{Key: "_id", Value: id}, {Key: "v", Value: int32(1)}}) }
	index := func() []bson.Raw {
		return []bson.Raw{raw(t, bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: "v", Value: int32(1)}}}, {Key: "name", Value: "v_1"}})}
	}
	held := collection{ns: ns("shop", "held"), uuid: uuid(1), docs: []bson.Raw{doc("old")}}
	byHand := collection{ns: ns("shop", "hand"), uuid: uuid(2), docs: []bson.Raw{doc("a")}}
	r.load(t, r.begin(t, held, byHand), held, byHand)
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)

	// Over a collection that is there, then on to another name, before any of it
	// has come. An insert and an update of it are passed over.
	in := inserted(t, held.ns, bson.D{{Key: "_id", Value: "early"}})
	in.UUID = uuid(3)
	up := updated(t, held.ns, "early", bson.D{{Key: "i", Value: bson.D{{Key: "x", Value: int32(1)}}}})
	up.UUID = uuid(3)
	r.publish(t, moved(t, ns("hidden", "tmp"), held.ns, uuid(3), true), in, up, moved(t, held.ns, ns("shop", "second"), uuid(3), false))
	// Out of it again, and dropped, before it has come.
	r.publish(t, moved(t, ns("hidden", "x"), ns("shop", "x"), uuid(4), false), moved(t, ns("shop", "x"), ns("hidden", "x"), uuid(4), false))
	r.publish(t, moved(t, ns("hidden", "y"), ns("shop", "y"), uuid(5), false),
		event.Event{Op: event.OpDrop, NS: ns("shop", "y"), UUID: uuid(5), DDL: raw(t, bson.D{{Key: "drop", Value: "y"}})})
	r.await(t, r.watermark(t), s)
	if docs := r.held(t, held.ns); len(docs) > 0 {
		t.Errorf("%s holds %d documents", held.ns, len(docs))
	}
	entries := r.outbox(t)
	if len(entries) != 1 || entries[0].NS != "shop.second" || !entries[0].whole() {
		t.Fatalf("outbox holds %+v", entries)
	}

	// Gone from under apply: found out by data, and by an index.
	s.stop(t)
	if err := r.dest.Client.Database("shop").Collection("hand").Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = r.start(t, "b")
	in = inserted(t, byHand.ns, bson.D{{Key: "_id", Value: "b"}, {Key: "v", Value: int32(1)}})
	in.UUID = byHand.uuid
	byHand.docs = append(byHand.docs, in.Document)
	byHand.indexes = index()
	r.publish(t, in, event.Event{Op: event.OpCreateIndexes, NS: byHand.ns, UUID: byHand.uuid, DDL: raw(t, bson.D{{Key: "createIndexes", Value: "hand"}, {Key: "indexes", Value: bson.A{index()[0]}}})})
	r.await(t, r.watermark(t), s)

	second := collection{
		ns: ns("shop", "second"), uuid: uuid(3), docs: []bson.Raw{doc("early"), doc("other")}, indexes: index(),
		options: raw(t, bson.D{{Key: "validationLevel", Value: "off"}, {Key: "validationAction", Value: "warn"}}),
	}
	r.answer(t, s, []collection{second, byHand})
	r.same(t, second.ns, second.docs)
	r.same(t, byHand.ns, byHand.docs)
	for _, c := range []collection{second, byHand} {
		cursor, err := r.dest.Client.Database(c.ns.DB).Collection(c.ns.Coll).Indexes().ListSpecifications(t.Context())
		if err != nil || len(cursor) != 2 {
			t.Errorf("%s has %d indexes, %v", c.ns, len(cursor), err)
		}
	}
	// From then on it is a collection like any other, until it leaves.
	up.NS, up.Position = second.ns, event.Position{}
	r.publish(t, up)
	r.await(t, r.watermark(t), s)
	after, err := up.Delta.Apply(second.docs[0], event.Strict)
	if err != nil {
		t.Fatal(err)
	}
	r.same(t, second.ns, []bson.Raw{after, second.docs[1]})
	r.publish(t, moved(t, second.ns, ns("other", "third"), uuid(3), false))
	r.await(t, r.watermark(t), s)
	r.answer(t, s, []collection{{ns: ns("other", "third"), uuid: uuid(3), docs: []bson.Raw{after}}})
	r.same(t, ns("other", "third"), []bson.Raw{after})
	r.emptied(t)
	s.stop(t)
}

// only are rules that select by patterns and rename nothing.
func only(t testing.TB, include ...string) rules.Destination {
	t.Helper()
	selection, err := rules.CompileSelection(include, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules.Destination{Selection: selection}
}
