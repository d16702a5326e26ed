package apply

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// realRig is a rig of a real server and a broker inside the test.
func realRig(t *testing.T, opts ...testenv.Option) *rig {
	t.Helper()
	mongod := testenv.RequireMongoD(t)
	return newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: mongod, Pipeline: testenv.NewPipeline(t)}, opts...)
}

func indexSpecOf(t testing.TB, name string, fields ...bson.E) bson.Raw {
	t.Helper()
	return raw(t, append(bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: name, Value: int32(1)}}}, {Key: "name", Value: name + "_1"}}, fields...))
}

// index returns the destination's index of each name, in creatable form.
func (r *rig) index(t testing.TB, ns event.Namespace, name string) bson.Raw {
	t.Helper()
	c := &converter{client: r.dest.Client, target: ns, name: name}
	held, err := c.held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func (r *rig) finalize(t testing.TB, edit func(*FinalizeConfig)) *FinalizeReport {
	t.Helper()
	cfg := FinalizeConfig{Pipeline: r.pair.Pipeline, Destination: "dest", Topic: r.topics.Changes, Client: r.dest.Client, Wait: settled}
	if edit != nil {
		edit(&cfg)
	}
	report, err := Finalize(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func outcomes(r *FinalizeReport) map[string]string {
	got := map[string]string{}
	for _, ix := range r.Indexes {
		got[ix.Index] = ix.Outcome
	}
	return got
}

// TestFinalize restores unique and TTL indexes beside a running apply, names the
// documents that stand against one, leaves that one as it was, and goes on where
// it stopped once they are gone. Later DDL on what is finalised applies as it
// comes.
func TestFinalize(t *testing.T) {
	r := realRig(t)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "users"}, uuid: event.UUID{7}}
	email := indexSpecOf(t, "email", bson.E{Key: "unique", Value: true})
	seen := indexSpecOf(t, "seen", bson.E{Key: "expireAfterSeconds", Value: int32(3600)})
	both := indexSpecOf(t, "code", bson.E{Key: "unique", Value: true}, bson.E{Key: "sparse", Value: true}, bson.E{Key: "expireAfterSeconds", Value: int32(60)})
	c.indexes = []bson.Raw{indexSpecOf(t, "plain"), email, seen, both}
	for _, id := range []string{"a", "b", "c"} {
		c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: id}, {Key: "email", Value: id + "@x"}}))
	}
	c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: "d"}, {Key: "email", Value: "a@x"}}))
	m := r.begin(t, c)
	s := r.start(t, "a")
	if _, err := Finalize(t.Context(), FinalizeConfig{Pipeline: "nobody", Destination: "dest", Topic: r.topics.Changes, Client: r.dest.Client}); err == nil {
		t.Error("a group that is not there is finalised")
	}
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)

	want := map[string]string{"email_1": IndexNotFinalized, "seen_1": IndexWouldFinalize, "code_1": IndexWouldFinalize}
	if diff := cmp.Diff(want, outcomes(r.finalize(t, func(c *FinalizeConfig) { c.DryRun = true }))); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if got := r.index(t, c.ns, "seen_1"); rules.TTLIndex(got) {
		t.Errorf("a dry run has built %s", got)
	}
	report := r.finalize(t, nil)
	want = map[string]string{"email_1": IndexNotFinalized, "seen_1": IndexFinalized, "code_1": IndexFinalized}
	if diff := cmp.Diff(want, outcomes(report)); diff != "" || report.Complete() {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	for _, ix := range report.Indexes {
		if ix.Index != "email_1" {
			continue
		}
		if diff := cmp.Diff([]DuplicateKey{{Key: `"a@x"`, IDs: []string{`"a"`, `"d"`}, Documents: 2}}, ix.Duplicates); diff != "" {
			t.Errorf("duplicates (-want +got):\n%s", diff)
		}
	}
	if held := r.index(t, c.ns, "email_1"); held == nil || rules.UniqueIndex(held) {
		t.Errorf("the index that could not be unique is %s", held)
	}
	r.publish(t, deleted(t, c.ns, "d"))
	r.await(t, r.watermark(t), s)
	if diff := cmp.Diff(map[string]string{"email_1": IndexFinalized}, outcomes(r.finalize(t, nil))); diff != "" {
		t.Errorf("second (-want +got):\n%s", diff)
	}
	for _, spec := range []bson.Raw{email, seen, both} {
		name, _ := spec.Lookup("name").StringValueOK()
		if same, err := sameIndex(spec, r.index(t, c.ns, name)); err != nil || !same {
			t.Errorf("index %s is %s, want %s (%v)", name, r.index(t, c.ns, name), spec, err)
		}
	}
	if report := r.finalize(t, nil); len(report.Indexes) != 0 {
		t.Errorf("third: %v", report.Indexes)
	}

	longer := indexSpecOf(t, "seen", bson.E{Key: "expireAfterSeconds", Value: int32(7200)})
	r.publish(t,
		event.Event{Op: event.OpModify, NS: c.ns, UUID: c.uuid, DDL: raw(t, bson.D{{Key: "collMod", Value: c.ns.Coll}, {Key: "index", Value: bson.D{{Key: "name", Value: "seen_1"}, {Key: "expireAfterSeconds", Value: int32(7200)}}}})},
		event.Event{Op: event.OpDropIndexes, NS: c.ns, UUID: c.uuid, DDL: raw(t, bson.D{{Key: "dropIndexes", Value: c.ns.Coll}, {Key: "index", Value: "email_1"}})},
		event.Event{Op: event.OpCreateIndexes, NS: c.ns, UUID: c.uuid, DDL: raw(t, bson.D{{Key: "createIndexes", Value: c.ns.Coll}, {Key: "indexes", Value: bson.A{email}}})},
	)
	r.await(t, r.watermark(t), s)
	for _, spec := range []bson.Raw{email, longer} {
		name, _ := spec.Lookup("name").StringValueOK()
		if same, err := sameIndex(spec, r.index(t, c.ns, name)); err != nil || !same {
			t.Errorf("after DDL index %s is %s, want %s (%v)", name, r.index(t, c.ns, name), spec, err)
		}
	}
}

// TestFinalizeResumes begins where a process ended between the drop of an index
// and its build, and waits for its claim.
func TestFinalizeResumes(t *testing.T) {
	r := realRig(t)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "users"}, uuid: event.UUID{8}}
	email := indexSpecOf(t, "email", bson.E{Key: "unique", Value: true})
	c.indexes = []bson.Raw{email}
	m := r.begin(t, c)
	s := r.start(t, "a")
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)
	store := newStore(r.dest.Client, groupID{Pipeline: r.pair.Pipeline, Group: "dest"}, "killed", topicNames{changes: r.topics.Changes})
	id := store.deferredID(c.ns, "email_1")
	if gone, err := store.beginBuild(t.Context(), id, "killed", settled); gone || err != nil {
		t.Fatal(gone, err)
	}
	if err := r.dest.Client.Database("shop").Collection("users").Indexes().DropOne(t.Context(), "email_1"); err != nil {
		t.Fatal(err)
	}
	if busy, err := store.building(t.Context(), c.ns); !busy || err != nil {
		t.Fatalf("the claim is not seen: %v", err)
	}
	// A barrier waits for as long as the claim holds.
	r.publish(t, event.Event{Op: event.OpDropIndexes, NS: c.ns, UUID: c.uuid, DDL: raw(t, bson.D{{Key: "dropIndexes", Value: c.ns.Coll}, {Key: "index", Value: "other_1"}})})
	after := r.watermark(t)
	update := set(field("deadline", time.Now().Add(-time.Minute)))
	if _, err := store.db.Collection(deferredCollection).UpdateOne(t.Context(), byID(id), update); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"email_1": IndexFinalized}, outcomes(r.finalize(t, nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if same, err := sameIndex(email, r.index(t, c.ns, "email_1")); err != nil || !same {
		t.Errorf("index is %s (%v)", r.index(t, c.ns, "email_1"), err)
	}
	r.await(t, after, s)
}
