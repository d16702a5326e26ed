package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/capture/oplog" //nolint:depguard // The decoder is pure; DDL is as a server logs it.
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// ddlScript are commands for a source, each in its database; one of them must
// fail.
var ddlScript = []struct {
	db      string
	command string
	fails   bool
}{
	// Options of every kind, and changes of them.
	{db: "shop", command: `{"create": "plain"}`},
	{db: "shop", command: `{"create": "checked", "validator": {"a": {"$type": "int"}}, "validationLevel": "moderate", "validationAction": "warn"}`},
	{db: "shop", command: `{"create": "folded", "collation": {"locale": "de", "strength": 2}}`},
	{db: "shop", command: `{"create": "capped", "capped": true, "size": 4000, "max": 7}`},
	{db: "shop", command: `{"insert": "plain", "documents": [{"_id": 1, "x": 1, "u": 1, "at": {"$date": "2020-01-01T00:00:00Z"}, "text": "word"}, {"_id": 2, "x": 2, "u": 1}]}`},
	{db: "shop", command: `{"collMod": "plain", "validator": {"x": {"$gt": 0}}}`},
	{db: "shop", command: `{"collMod": "plain", "validationLevel": "off"}`},
	{db: "shop", command: `{"collMod": "plain", "validationAction": "warn", "validationLevel": "strict"}`},
	{db: "shop", command: `{"collMod": "plain", "validator": {"$jsonSchema": {"required": ["x"]}}}`},
	{db: "shop", command: `{"collMod": "checked", "validator": {}}`},
	// Index builds on documents, with their commit or abort, and on none.
	{db: "shop", command: `{"createIndexes": "plain", "indexes": [{"key": {"x": 1}, "name": "x_1"}, {"key": {"u": 1}, "name": "part", "partialFilterExpression": {"x": {"$gt": 1}}}]}`},
	{db: "shop", command: `{"createIndexes": "plain", "indexes": [{"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 1000000000}]}`},
	{db: "shop", command: `{"createIndexes": "plain", "indexes": [{"key": {"text": "text"}, "name": "words", "weights": {"text": 3}}, {"key": {"$**": 1}, "name": "wild"}]}`},
	{db: "shop", command: `{"createIndexes": "plain", "indexes": [{"key": {"_id": 1, "u": 1}, "name": "both", "unique": true}]}`},
	{db: "shop", command: `{"createIndexes": "plain", "indexes": [{"key": {"u": 1}, "name": "never", "unique": true}]}`, fails: true},
	{db: "shop", command: `{"createIndexes": "checked", "indexes": [{"key": {"a": "hashed"}, "name": "h"}, {"key": {"b": 1}, "name": "gone", "hidden": true}]}`},
	{db: "shop", command: `{"collMod": "plain", "index": {"name": "x_1", "hidden": true}}`},
	{db: "shop", command: `{"collMod": "plain", "index": {"keyPattern": {"x": 1}, "hidden": false}}`},
	{db: "shop", command: `{"collMod": "checked", "index": {"name": "gone", "hidden": false}}`},
	{db: "shop", command: `{"collMod": "plain", "index": {"name": "ttl", "expireAfterSeconds": 2000000000}}`},
	{db: "shop", command: `{"collMod": "plain", "index": {"keyPattern": {"at": 1}, "expireAfterSeconds": 1500000000, "hidden": true}, "validationLevel": "moderate"}`},
	{db: "shop", command: `{"dropIndexes": "checked", "index": "gone"}`},
	{db: "shop", command: `{"createIndexes": "checked", "indexes": [{"key": {"b": -1}, "name": "gone"}, {"key": {"c": 1}, "name": "c"}]}`},
	// Views.
	{db: "shop", command: `{"create": "view", "viewOn": "plain", "pipeline": [{"$match": {"x": 1}}]}`},
	{db: "shop", command: `{"create": "folding", "viewOn": "folded", "pipeline": [], "collation": {"locale": "de", "strength": 2}}`},
	{db: "shop", command: `{"collMod": "view", "viewOn": "checked", "pipeline": [{"$project": {"a": 1}}]}`},
	{db: "shop", command: `{"collMod": "folding", "viewOn": "folded", "pipeline": [{"$match": {"a": 1}}]}`},
	{db: "shop", command: `{"create": "dropped", "viewOn": "view", "pipeline": []}`},
	{db: "shop", command: `{"drop": "dropped"}`},
	// Renames, over an existing collection too, and one name again and again.
	{db: "shop", command: `{"create": "old", "validator": {"old": 1}}`},
	{db: "shop", command: `{"createIndexes": "old", "indexes": [{"key": {"o": 1}, "name": "o", "unique": true}]}`},
	{db: "shop", command: `{"create": "new"}`},
	{db: "shop", command: `{"insert": "new", "documents": [{"_id": "new"}]}`},
	{db: "shop", command: `{"createIndexes": "new", "indexes": [{"key": {"n": 1}, "name": "n", "unique": true}]}`},
	{db: "admin", command: `{"renameCollection": "shop.new", "to": "shop.old", "dropTarget": true}`},
	{db: "admin", command: `{"renameCollection": "shop.old", "to": "shop.newest"}`},
	{db: "shop", command: `{"create": "old", "capped": true, "size": 8192}`},
	{db: "shop", command: `{"drop": "old"}`},
	{db: "shop", command: `{"create": "old", "collation": {"locale": "fr"}}`},
	// A database as a whole.
	{db: "gone", command: `{"create": "a"}`},
	{db: "gone", command: `{"create": "v", "viewOn": "a", "pipeline": []}`},
	{db: "gone", command: `{"insert": "b", "documents": [{"_id": 1}]}`},
	{db: "gone", command: `{"dropDatabase": 1}`},
	{db: "gone", command: `{"create": "a", "validator": {"again": true}}`},
}

// TestDDLTwice has a source log DDL of every kind and executes each event twice,
// as after a crash that nobody lived to tell of; the destination's catalogue
// becomes the source's.
func TestDDLTwice(t *testing.T) {
	m := testenv.RequireMongoD(t)
	source, dest := m.NewSource(t), m.NewDestination(t)
	for _, step := range ddlScript {
		err := source.Client.Database(step.db).RunCommand(t.Context(), extJSON(t, step.command)).Err()
		if (err != nil) != step.fails {
			t.Fatalf("%s: %v", step.command, err)
		}
	}
	cursor, err := source.Client.Database("local").Collection("oplog.rs").Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var entries []bson.Raw
	if err := cursor.All(t.Context(), &entries); err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	decoder := oplog.Decoder{Select: func(db, _ string) bool { return db == "shop" || db == "gone" }}
	for _, entry := range entries {
		if events, err = decoder.Decode(entry, events); err != nil {
			t.Fatal(err)
		}
	}
	store := newStore(dest.Client, groupID{Pipeline: "p", Group: "dest"}, "x", topicNames{changes: "c", snapshot: "s"})
	if err := store.ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	target := newTarget(dest.Client, abilities{pipelines: true})
	for _, e := range events {
		if e.Op.IsData() {
			applyOne(t, target, &e)
			continue
		}
		target.forget()
		for try := range 2 {
			if _, err := executorOf(dest.Client, store, &e).run(t.Context()); err != nil {
				t.Fatalf("try %d: %v\n%s", try, err, e.DDL)
			}
		}
	}
	for _, db := range []string{"shop", "gone"} {
		if diff := cmp.Diff(catalog(t, source.Client, db, rules.IndexPolicy{}), catalog(t, dest.Client, db, rules.IndexPolicy{})); diff != "" {
			t.Errorf("%s: catalogue (-source +destination):\n%s", db, diff)
		}
	}
	for _, ns := range []event.Namespace{{DB: "shop", Coll: "plain"}, {DB: "shop", Coll: "newest"}} {
		compare(t, ns, texts(heldIn(t, source.Client, ns)), texts(heldIn(t, dest.Client, ns)))
	}
	// What waits for finalize is what the source has and the destination not.
	var deferred []deferredRecord
	if err := store.all(t.Context(), deferredCollection, bson.D{}, &deferred); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range deferred {
		text := fmt.Sprint(d.ID.NS, ".", d.ID.Index, " ", d.Reason)
		if seconds, err := bson.Raw(d.Spec).LookupErr("expireAfterSeconds"); err == nil {
			text += fmt.Sprint(" ", seconds.AsInt64()) // its type is the server's choice
		}
		names = append(names, text)
	}
	slices.Sort(names)
	var expiry bson.RawValue
	for _, spec := range indexesOf(t, source.Client, "shop", "plain") {
		if spec.Lookup("name").StringValue() == "ttl" {
			expiry = spec.Lookup("expireAfterSeconds")
		}
	}
	if seconds, ok := expiry.AsInt64OK(); !ok || seconds != 1_500_000_000 {
		t.Errorf("the source's TTL index expires after %v", expiry)
	}
	want := []string{"shop.newest.n unique", "shop.plain.both unique", fmt.Sprint("shop.plain.ttl ttl ", expiry.AsInt64())}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("deferred indexes (-want +got):\n%s", diff)
	}
}

func executorOf(client *mongo.Client, store *store, e *event.Event) *executor {
	return &executor{
		client: client, store: store, groups: []groupRules{{group: store.id.Group}}, log: zerolog.Nop(), event: e,
		hold: func(context.Context) error { return nil },
	}
}

func applyOne(t *testing.T, target *target, e *event.Event) {
	t.Helper()
	changes := []change{{Event: e, target: e.NS}}
	err := target.ensure(t.Context(), changes, event.Strict)
	plans, folded := fold(changes, event.Strict, target.capped)
	if err = errors.Join(err, folded); err == nil {
		err = target.write(t.Context(), plans[0], asSaid, nil)
	}
	if err != nil {
		t.Fatalf("%s: %v", e, err)
	}
}

// catalog shows a database's collections with options and indexes, these in the
// form that a destination builds.
func catalog(t *testing.T, client *mongo.Client, db string, policy rules.IndexPolicy) map[string][]string {
	t.Helper()
	names, err := client.Database(db).ListCollectionNames(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, name := range names {
		if strings.HasPrefix(name, "system.") {
			continue
		}
		listed, _, err := lookup(t.Context(), client, event.Namespace{DB: db, Coll: name})
		if err != nil {
			t.Fatal(err)
		}
		lines := []string{listed.Options.String()}
		if !listed.View {
			lines = append(lines, indexLines(t, client, db, name, policy)...)
		}
		got[name] = lines
	}
	return got
}

func indexesOf(t *testing.T, client *mongo.Client, db, coll string) (specs []bson.Raw) {
	t.Helper()
	cursor, err := client.Database(db).Collection(coll).Indexes().List(t.Context())
	if err == nil {
		err = cursor.All(t.Context(), &specs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func indexLines(t *testing.T, client *mongo.Client, db, coll string, policy rules.IndexPolicy) []string {
	t.Helper()
	var lines []string
	for _, spec := range indexesOf(t, client, db, coll) {
		built, _, err := rules.DeferIndex(spec, policy)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, built.String())
	}
	slices.Sort(lines)
	return lines
}

// TestModifyDocumented forwards the changes of later servers that the one at
// hand does not know, from their documented shapes.
func TestModifyDocumented(t *testing.T) {
	dest := testenv.RequireMongoD(t).NewDestination(t)
	store := newStore(dest.Client, groupID{Pipeline: "p", Group: "dest"}, "x", topicNames{changes: "c", snapshot: "s"})
	for _, tc := range []struct{ ddl, want string }{
		{`{"collMod": "c", "changeStreamPreAndPostImages": {"enabled": true}}`, `{"collMod": "c", "changeStreamPreAndPostImages": {"enabled": true}`},
		{`{"collMod": "c", "cappedSize": {"$numberLong": "4096"}, "cappedMax": 7}`, `{"collMod": "c", "cappedSize": {"$numberLong": "4096"}, "cappedMax": 7`},
		{`{"collMod": "c", "index": {"name": "i", "prepareUnique": true}}`, ``},
		{`{"collMod": "c", "index": {"name": "i", "prepareUnique": true, "hidden": true}}`, `{"collMod": "c", "index": {"name": "i", "hidden": true}`},
	} {
		e := event.Event{Op: event.OpModify, NS: event.Namespace{DB: "f", Coll: "c"}, DDL: extJSON(t, tc.ddl)}
		x := executorOf(dest.Client, store, &e)
		cmd, kept, err := x.forwardable(t.Context(), e.NS)
		if err != nil || (kept == 0) != (tc.want == "") {
			t.Errorf("%s: %d changes kept: %v", tc.ddl, kept, err)
			continue
		}
		if tc.want == "" {
			continue
		}
		want := extJSON(t, tc.want+`, "maxTimeMS": `+fmt.Sprint(commandTime.Milliseconds())+`, "writeConcern": {"w": "majority"}}`)
		if diff := cmp.Diff(want.String(), cmd.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.ddl, diff)
		}
	}
}

// TestDDLOverOthers executes DDL whose target is not what the event expects:
// strictly that stops, or asks for a reload where the collection is gone; while
// history is replayed it is passed over.
func TestDDLOverOthers(t *testing.T) {
	dest := testenv.RequireMongoD(t).NewDestination(t)
	store := newStore(dest.Client, groupID{Pipeline: "p", Group: "dest"}, "x", topicNames{changes: "c", snapshot: "s"})
	if err := store.ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		`{"create": "capped", "capped": true, "size": 4096}`, `{"create": "view", "viewOn": "capped", "pipeline": []}`,
		`{"insert": "held", "documents": [{"_id": "mine"}]}`,
	} {
		if err := dest.Client.Database("f").RunCommand(t.Context(), extJSON(t, command)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before := catalog(t, dest.Client, "f", rules.IndexPolicy{})
	for _, tc := range []struct {
		op      event.Op
		ddl     string
		reloads bool
	}{
		{event.OpCreate, `{"create": "capped", "capped": true, "size": 8192}`, false},
		{event.OpCreate, `{"create": "capped"}`, false},
		{event.OpCreate, `{"create": "held"}`, false},
		{event.OpCreate, `{"create": "view"}`, false},
		{event.OpModify, `{"collMod": "view", "validator": {"a": 1}}`, false},
		{event.OpModify, `{"collMod": "capped", "viewOn": "view", "pipeline": []}`, false},
		{event.OpModify, `{"collMod": "missing", "validator": {"a": 1}}`, false},
		{event.OpRename, `{"renameCollection": "f.missing", "to": "f.nothing"}`, true},
		{event.OpCreateIndexes, `{"createIndexes": "missing", "indexes": [{"v": 2, "key": {"a": 1}, "name": "a"}]}`, true},
	} {
		first, err := extJSON(t, tc.ddl).IndexErr(0)
		if err != nil {
			t.Fatal(err)
		}
		e := event.Event{Op: tc.op, NS: event.Namespace{DB: "f", Coll: strings.TrimPrefix(first.Value().StringValue(), "f.")}, DDL: extJSON(t, tc.ddl)}
		x := executorOf(dest.Client, store, &e)
		outcome, err := x.run(t.Context())
		if reloads := strings.HasSuffix(outcome, "its reload follows"); (err == nil) != reloads || reloads != tc.reloads {
			t.Errorf("%s: strict: %s, %v", tc.ddl, outcome, err)
		}
		x.lenient = true
		if _, err := x.run(t.Context()); err != nil {
			t.Errorf("%s: lenient: %v", tc.ddl, err)
		}
	}
	if diff := cmp.Diff(before, catalog(t, dest.Client, "f", rules.IndexPolicy{})); diff != "" {
		t.Errorf("catalogue (-before +after):\n%s", diff)
	}
}
