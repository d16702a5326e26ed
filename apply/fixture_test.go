package apply

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/capture/oplog" //nolint:depguard // The decoder is pure; these tests need recorded history as events.
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// recording is a scenario in the form that the rig publishes.
type recording struct {
	name   string
	before []collection
	events []event.Event
	after  fixture.State
	rules  rules.Destination
}

func record(t *testing.T, name string) recording {
	t.Helper()
	s := fixture.Load(t, name)
	rec := recording{name: name, before: collectionsOf(t, s.Before), after: s.After}
	d := oplog.Decoder{Source: event.Source{Deployment: "0123456789abcdef01234567", Mode: "oplog"}}
	var err error
	if rec.events, err = d.DecodeHistory(s.Oplog); err != nil {
		t.Fatal(err)
	}
	return rec
}

// collectionsOf turns a state into what a run would load.
func collectionsOf(t *testing.T, s fixture.State) []collection {
	t.Helper()
	var list []collection
	for _, name := range slices.Sorted(maps.Keys(s.Catalog)) {
		ns, err := event.ParseNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		if rules.Internal(ns.DB, ns.Coll) {
			continue
		}
		entry := s.Catalog[name]
		c := collection{ns: ns, docs: s.Documents[name], indexes: entry.Indexes}
		c.options, _ = entry.Info.Lookup("options").DocumentOK()
		kind, _ := entry.Info.Lookup("type").StringValueOK()
		c.view = kind == "view"
		if _, id, ok := entry.Info.Lookup("info", "uuid").BinaryOK(); ok {
			copy(c.uuid[:], id)
		}
		list = append(list, c)
	}
	return list
}

// TestFixtures loads the state before each recording, applies its events and
// wants the state after, byte for byte: strictly, as after a load that saw
// nothing of them, and while catching up with a load that saw all of them.
func TestFixtures(t *testing.T) {
	m := testenv.RequireMongoD(t)
	for _, name := range fixture.Names(t) {
		t.Run(name, func(t *testing.T) {
			for _, late := range []loadTime{loadFirst, loadLast} {
				t.Run(string(late), func(t *testing.T) {
					pair := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)}
					replay(t, newRig(t, pair), record(t, name), late)
				})
			}
		})
	}
}

// TestFixturesAreWhole makes sure that what TestFixtures compares is everything
// that was recorded, but for the server's own databases and the catalogue of
// views, whose entries are compared as views.
func TestFixturesAreWhole(t *testing.T) {
	for _, name := range fixture.Names(t) {
		s := fixture.Load(t, name)
		for when, state := range map[string]fixture.State{"before": s.Before, "after": s.After} {
			compared := map[string]bool{}
			for _, c := range collectionsOf(t, state) {
				compared[c.ns.String()] = true
			}
			for ns := range state.Catalog {
				db, coll, _ := strings.Cut(ns, ".")
				if own := db == "admin" || db == "config" || db == "local" || coll == viewsCollection; own == compared[ns] {
					t.Errorf("%s: %s %s is compared: %t", name, ns, when, compared[ns])
				}
			}
			for ns := range state.Documents {
				if _, listed := state.Catalog[ns]; !listed {
					t.Errorf("%s: %s %s is not in the catalogue", name, ns, when)
				}
			}
		}
	}
}

// loadTime says which state a run has read.
type loadTime string

const (
	loadFirst loadTime = "strict"
	loadLast  loadTime = "catching up"
)

// replay runs a recording through a service. Late loads the state after all
// events, which are then replayed over it.
func replay(t *testing.T, r *rig, rec recording, late loadTime) {
	t.Helper()
	r.edit = func(c *Config) { c.BatchEvents = 200; c.Rules = rec.rules }
	first, last := rec.events[0].Position.Time, rec.events[len(rec.events)-1].Position.Time
	r.clock = first.T - 1
	load := rec.before
	if late == loadLast {
		load = collectionsOf(t, rec.after)
	}
	m := r.begin(t, load...)
	s := r.start(t, "a")
	if late == loadLast {
		r.clock = last.T + 1
	}
	r.load(t, m, load...)
	r.byNamespace = cappedIn(t, rec)
	r.publish(t, rec.events...)
	r.clock = last.T + 1
	r.await(t, r.watermark(t), s)
	r.answer(t, s, collectionsOf(t, rec.after))
	s.stop(t)
	for name, want := range rec.after.Documents {
		ns, err := event.ParseNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := rec.rules.Target(ns); !ok {
			continue
		}
		opts, _ := rec.after.Catalog[name].Info.Lookup("options").DocumentOK()
		if isCapped(opts) {
			r.sameOrdered(t, ns, want)
			continue
		}
		r.same(t, ns, want)
	}
	r.sameCatalog(t, rec)
}

// cappedIn returns the collections that are capped before or after.
func cappedIn(t *testing.T, rec recording) map[event.Namespace]bool {
	capped := map[event.Namespace]bool{}
	for _, c := range append(collectionsOf(t, rec.after), rec.before...) {
		capped[c.ns] = capped[c.ns] || isCapped(c.options)
	}
	return capped
}

// sameCatalog compares the destination's collections, options and indexes with
// a state's, through the rule for indexes that are deferred.
func (r *rig) sameCatalog(t *testing.T, rec recording) {
	t.Helper()
	ctx := t.Context()
	names, err := r.dest.Client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, db := range names {
		colls, err := r.dest.Client.Database(db).ListCollectionNames(ctx, bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		for _, coll := range colls {
			if !rules.Internal(db, coll) {
				got[db+"."+coll] = true
			}
		}
	}
	for _, c := range collectionsOf(t, rec.after) {
		if _, ok := rec.rules.Target(c.ns); !ok {
			continue
		}
		if !got[c.ns.String()] {
			t.Errorf("%s is missing", c.ns)
			continue
		}
		delete(got, c.ns.String())
		listed, _, err := lookup(ctx, r.dest.Client, c.ns)
		if err != nil {
			t.Fatal(err)
		}
		if c.options == nil {
			c.options = emptyDocument()
		}
		if !bytes.Equal(listed.Options, c.options) {
			t.Errorf("%s: options are %s, want %s", c.ns, listed.Options, c.options)
		}
		if !c.view {
			r.sameIndexes(t, c)
		}
	}
	for name := range got {
		t.Errorf("%s should not exist", name)
	}
}

func (r *rig) sameIndexes(t *testing.T, c collection) {
	t.Helper()
	cursor, err := r.dest.Client.Database(c.ns.DB).Collection(c.ns.Coll).Indexes().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []bson.Raw
	if err := cursor.All(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	var want []bson.Raw
	for _, stored := range c.indexes {
		built, _, err := rules.DeferIndex(stored, rules.IndexPolicy{})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, built)
	}
	gotTexts, wantTexts := texts(list), texts(want)
	slices.Sort(gotTexts)
	slices.Sort(wantTexts)
	if !slices.Equal(gotTexts, wantTexts) {
		t.Errorf("%s: indexes are\n%s\nwant\n%s", c.ns, strings.Join(gotTexts, "\n"), strings.Join(wantTexts, "\n"))
	}
}
