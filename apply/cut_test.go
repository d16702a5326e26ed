package apply

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	commands "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// cutter is a destination and a client of it that is cut off behind a command.
// Its database is its own, and so are its records.
type cutter struct {
	dest   *testenv.Mongo
	client *mongo.Client
	db     string
	// left counts commands down; cut is called at zero.
	left atomic.Int64
	cut  context.CancelFunc
}

func newCutter(t *testing.T, dest *testenv.Mongo, db string) *cutter {
	t.Helper()
	c := &cutter{dest: dest, db: db, cut: func() {}}
	monitor := &commands.CommandMonitor{Succeeded: func(context.Context, *commands.CommandSucceededEvent) {
		if c.left.Add(-1) == 0 {
			c.cut()
		}
	}}
	var err error
	if c.client, err = mongo.Connect(options.Client().ApplyURI(c.dest.URI).SetMonitor(monitor)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// execute executes an event and is cut off behind the n-th command, as a kill
// there would. Zero cuts nothing.
func (c *cutter) execute(t *testing.T, e *event.Event, n int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.cut = cancel
	c.left.Store(n)
	_, err := executorOf(c.client, c.store(c.client), e).run(ctx)
	if err != nil && ctx.Err() == nil {
		t.Fatalf("%s: %v", e, err)
	}
}

func (c *cutter) store(client *mongo.Client) *store {
	return newStore(client, groupID{Pipeline: c.db, Group: "dest"}, "x", topicNames{changes: "c", snapshot: "s"})
}

// reset empties the destination and executes events.
func (c *cutter) reset(t *testing.T, events []event.Event) {
	t.Helper()
	if err := c.dest.Client.Database(c.db).Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range recordsOfDDL() {
		if _, err := c.dest.Client.Database(ownDatabase).Collection(name).DeleteMany(t.Context(), c.own()); err != nil {
			t.Fatal(err)
		}
	}
	target := newTarget(c.dest.Client, abilities{pipelines: true})
	for i := range events {
		if events[i].Op.IsData() {
			applyOne(t, target, &events[i])
			continue
		}
		target.forget()
		c.execute(t, &events[i], 0)
	}
}

func recordsOfDDL() []string {
	return []string{collectionsCollection, deferredCollection, finalizedCollection, requestsCollection, buildsCollection}
}

func (c *cutter) own() bson.D { return bson.D{{Key: "_id.pipeline", Value: c.db}} }

// state shows documents, catalogue and records.
func (c *cutter) state(t *testing.T) []string {
	t.Helper()
	var lines []string
	for name, text := range catalog(t, c.dest.Client, c.db, rules.IndexPolicy{}) {
		lines = append(lines, fmt.Sprint(name, " ", text, texts(heldIn(t, c.dest.Client, event.Namespace{DB: c.db, Coll: name}))))
	}
	for _, name := range recordsOfDDL() {
		cursor, err := c.dest.Client.Database(ownDatabase).Collection(name).Aggregate(t.Context(), bson.A{bson.D{{Key: "$match", Value: c.own()}}, bson.D{{Key: "$unset", Value: bson.A{"asked", "since"}}}})
		if err != nil {
			t.Fatal(err)
		}
		var docs []bson.Raw
		if err := cursor.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			lines = append(lines, name+" "+d.String())
		}
	}
	slices.Sort(lines)
	return lines
}

// cutEvents are histories whose last event is cut off.
func cutEvents(t *testing.T, db string) map[string][]event.Event {
	named := func(coll string) event.Namespace { return event.Namespace{DB: db, Coll: coll} }
	a, b := named("a"), named("b")
	tick := uint32(0)
	ddl := func(op event.Op, ns event.Namespace, uuid byte, text string) event.Event {
		tick++
		return event.Event{
			Op: op, NS: ns, UUID: event.UUID{0: uuid, 15: 1}, DDL: extJSON(t, strings.ReplaceAll(text, "DB.", db+".")), Position: event.Position{Time: bson.Timestamp{T: tick, I: 1}, Term: 1},
		}
	}
	insert := func(ns event.Namespace, id string) event.Event {
		return inserted(t, ns, bson.D{{Key: "_id", Value: id}})
	}
	index := func(ns event.Namespace, uuid byte, name string) event.Event {
		return ddl(event.OpCreateIndexes, ns, uuid, fmt.Sprintf(`{"createIndexes": %q, "indexes": [{"v": 2, "key": {%q: 1}, "name": %q, "unique": true}]}`, ns.Coll, name, name))
	}
	held := []event.Event{
		ddl(event.OpCreate, a, 1, `{"create": "a"}`), insert(a, "in a"), index(a, 1, "ofa"),
		ddl(event.OpCreate, b, 2, `{"create": "b"}`), insert(b, "in b"), index(b, 2, "ofb"),
	}
	with := func(more ...event.Event) []event.Event { return append(slices.Clone(held), more...) }
	over := ddl(event.OpRename, a, 1, `{"renameCollection": "DB.a", "to": "DB.b", "dropTarget": true}`)
	arrives := ddl(event.OpRename, named("tmpx.renameCollection"), 3, `{"renameCollection": "DB.tmpx.renameCollection", "to": "DB.b", "dropTarget": true}`)
	reload := ddl(event.OpReload, a, 1, `{"reload": "a", "request": "r", "options": {"validator": {"x": 1}}, "indexes": [{"v": 2, "key": {"z": 1}, "name": "z", "unique": true}, {"v": 2, "key": {"y": 1}, "name": "y"}]}`)
	end := ddl(event.OpReloadEnd, a, 1, `{"reload_end": "a", "request": "r", "through": {"$timestamp": {"t": 99, "i": 1}}}`)
	return map[string][]event.Event{
		"rename over another": with(over),
		"renamed while awaited": with(
			ddl(event.OpRename, named("tmpx.renameCollection"), 3, `{"renameCollection": "DB.tmpx.renameCollection", "to": "DB.c"}`),
			ddl(event.OpRename, named("c"), 3, `{"renameCollection": "DB.c", "to": "DB.b", "dropTarget": true}`)),
		"rename into the selection":      with(arrives),
		"rename of one that is gone":     with(ddl(event.OpRename, named("gone"), 9, `{"renameCollection": "DB.gone", "to": "DB.b", "dropTarget": true}`)),
		"reload":                         with(reload),
		"reload again":                   with(reload, insert(a, "image"), reload),
		"end of a reload":                with(reload, insert(a, "image"), end),
		"rename in the middle of reload": with(reload, insert(a, "image"), over),
		"drop in the middle of a reload": with(reload, insert(a, "image"), ddl(event.OpDrop, a, 1, `{"drop": "a"}`)),
		"reload of what is awaited":      with(arrives, ddl(event.OpReload, b, 3, `{"reload": "b", "request": "s", "options": {}, "indexes": []}`)),
	}
}

// TestDDLCutShort cuts the execution of renames and reloads off behind some of
// their commands, of all in a soak; executed again from its beginning, each leads
// to the state that it leads to at once.
func TestDDLCutShort(t *testing.T) {
	dest := testenv.RequireMongoD(t).NewDestination(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	names := slices.Sorted(maps.Keys(cutEvents(t, "")))
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCutter(t, dest, fmt.Sprint("shop", i))
			if err := c.store(dest.Client).ensureCollections(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.everywhere(t, cutEvents(t, c.db)[name], rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
}

// everywhere cuts the last event off behind each of its commands, or some.
func (c *cutter) everywhere(t *testing.T, events []event.Event, random *rand.Rand) {
	before, last := events[:len(events)-1], &events[len(events)-1]
	c.reset(t, before)
	const many = 1000
	c.execute(t, last, many)
	commands := many - int(c.left.Load())
	want := c.state(t)
	points := random.Perm(commands)
	if os.Getenv("TRIBUTARY_SOAK") == "" {
		points = points[:min(len(points), 3)]
	}
	for _, n := range points {
		c.reset(t, before)
		c.execute(t, last, int64(n)+1)
		c.execute(t, last, 0)
		if diff := cmp.Diff(want, c.state(t)); diff != "" {
			t.Errorf("cut off behind command %d of %d (-at once +cut):\n%s", n+1, commands, diff)
		}
	}
}

// TestRenameOfMissing renames a collection that somebody has dropped at the
// destination over another one: what stands under the new name is not what the
// rename has made, so the collection is asked for.
func TestRenameOfMissing(t *testing.T) {
	dest := testenv.RequireMongoD(t).NewDestination(t)
	c := newCutter(t, dest, "shop")
	if err := c.store(dest.Client).ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := cutEvents(t, c.db)["rename over another"]
	last := &events[len(events)-1]
	c.reset(t, events[:len(events)-1])
	if err := dest.Client.Database(c.db).Collection("a").Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.execute(t, last, 0)
	store := c.store(dest.Client)
	record, found, err := store.collection(t.Context(), event.Namespace{DB: c.db, Coll: "b"})
	if err != nil || !found || !record.Awaiting || record.SourceUUID != last.UUID.String() {
		t.Errorf("record: %+v, %v", record, err)
	}
	if entries, err := store.requests(t.Context(), 0); err != nil || len(entries) != 1 || !entries[0].whole() {
		t.Errorf("requests: %+v, %v", entries, err)
	}
	if names := catalog(t, dest.Client, c.db, rules.IndexPolicy{}); len(names) != 0 {
		t.Errorf("the destination holds %v", names)
	}
}
