package apply

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// TestBarrierClaim has two members want one barrier: one of them has it, until
// it is released, done or its time is over.
func TestBarrierClaim(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		ctx := t.Context()
		dest := m.NewDestination(t)
		s := newStore(dest.Client, groupID{Pipeline: "p", Group: "dest"}, "x", topicNames{changes: "c", snapshot: "s"})
		if err := s.ensureCollections(ctx); err != nil {
			t.Fatal(err)
		}
		id := barrierID{Pipeline: "p", Time: bson.Timestamp{T: 7, I: 1}}
		record := barrierRecord{ID: id, State: barrierWaiting, Arrived: []participant{}, Participants: []participant{{"dest", 0}, {"dest", 1}}}
		for range 2 { // an arrival may be repeated
			if err := s.arrive(ctx, record, participant{"dest", 1}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := s.barrier(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]participant{{"dest", 1}}, b.Arrived); diff != "" {
			t.Errorf("arrived (-want +got):\n%s", diff)
		}
		want := func(what string, want bool) func(bool, error) {
			return func(got bool, err error) {
				t.Helper()
				if err != nil || got != want {
					t.Errorf("%s: got %t, %v; want %t", what, got, err, want)
				}
			}
		}
		want("first claim", true)(s.claimBarrier(ctx, id, "a"))
		want("second claim", false)(s.claimBarrier(ctx, id, "b"))
		want("renewal", true)(s.claimBarrier(ctx, id, "a"))
		if err := s.releaseBarrier(ctx, id, "b"); err != nil {
			t.Fatal(err)
		}
		want("claim after another's release", false)(s.claimBarrier(ctx, id, "b"))
		overdue(ctx, t, s, id)
		want("claim of an overdue one", true)(s.claimBarrier(ctx, id, "b"))
		want("end by the overdue one", false)(s.finishBarrier(ctx, id, "a", ""))
		want("end", true)(s.finishBarrier(ctx, id, "b", "done"))
		overdue(ctx, t, s, id)
		want("claim of a done one", false)(s.claimBarrier(ctx, id, "c"))
	})
}

// overdue lets a claim's time be over.
func overdue(ctx context.Context, t *testing.T, s *store, id barrierID) {
	t.Helper()
	now, err := s.now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Collection(barriersCollection).UpdateOne(ctx, byID(id), set(field("deadline", now.Add(-1)))); err != nil {
		t.Fatal(err)
	}
}

// TestCappedRedelivery writes the events of a capped collection twice, as after
// a crash; it has dropped the first of them by then.
func TestCappedRedelivery(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	ns := event.Namespace{DB: "f", Coll: "log"}
	opts := options.CreateCollection().SetCapped(true).SetSizeInBytes(1 << 20).SetMaxDocuments(4)
	if err := r.dest.Client.Database(ns.DB).CreateCollection(t.Context(), ns.Coll, opts); err != nil {
		t.Fatal(err)
	}
	p := &plan{}
	var want []bson.Raw
	for i := range 10 {
		e := inserted(t, ns, bson.D{{Key: "_id", Value: int32(i)}, {Key: "v", Value: int32(0)}})
		p.ordered = append(p.ordered, change{Event: &e, target: ns})
		if i == 8 {
			u := updated(t, ns, int32(8), bson.D{{Key: "u", Value: bson.D{{Key: "v", Value: int32(1)}}}})
			p.ordered = append(p.ordered, change{Event: &u, target: ns})
			e.Document = raw(t, bson.D{{Key: "_id", Value: int32(i)}, {Key: "v", Value: int32(1)}})
		}
		if i >= 6 {
			want = append(want, e.Document)
		}
	}
	able := probed(t, r)
	for _, upTo := range []int{5, len(p.ordered), len(p.ordered)} {
		part := &plan{target: ns, ordered: p.ordered[:upTo]}
		if err := newTarget(r.dest.Client, able).writeOrdered(t.Context(), []*plan{part}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The image that was inserted first is what the source logged.
	want[2] = raw(t, bson.D{{Key: "_id", Value: int32(8)}, {Key: "v", Value: int32(1)}})
	r.sameOrdered(t, ns, want)
}

// TestOperators holds the choice between operators and the held document.
func TestOperators(t *testing.T) {
	for _, tc := range []struct{ diff, want string }{
		{`{"u": {"a": 1}}`, `sets=a`},
		{`{"d": {"a": false}}`, `unsets=a`},
		{`{"d": {"a": false}, "u": {"b": 2}, "sc": {"u": {"d": 3}}}`, `unsets=a sets=b,c.d`},
		{`{"i": {"a": 1}}`, ``},
		{`{"u": {"a": 1}, "i": {"b": 1}}`, ``},
		{`{"sa": {"a": true, "u3": 1}}`, `arrays=a sets=a.3`},
		{`{"sa": {"a": true, "s3": {"u": {"x": 1}}}}`, `arrays=a sets=a.3.x`},
		{`{"sa": {"a": true, "l": 3}}`, ``},
		{`{"sa": {"a": true, "l": 3, "u1": 1}}`, ``},
		{`{"u": {"a.b": 1}}`, ``},
		{`{"u": {"$a": 1}}`, ``},
		{`{"u": {"": 1}}`, ``},
		{`{"d": {"a.b": false}}`, ``},
		{`{"sa.b": {"u": {"x": 1}}}`, ``},
		{`{"u": {"a": {"b": [{"$c": 1}]}}}`, ``},
		{`{"u": {"a": {"b": "$c"}}}`, `sets=a`},
	} {
		delta, err := event.DeltaFromDiff(extJSON(t, tc.diff))
		if err != nil {
			t.Fatalf("%s: %v", tc.diff, err)
		}
		got := ""
		if o, ok := operatorsOf(delta); ok {
			got = describe(&o)
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.diff, got, tc.want)
		}
	}
}

func describe(o *operators) string {
	text := ""
	list := func(what string, paths []string) {
		for i, p := range paths {
			switch {
			case i > 0:
				text += "," + p
			case text == "":
				text += what + "=" + p
			default:
				text += " " + what + "=" + p
			}
		}
	}
	var sets []string
	for _, s := range o.sets {
		sets = append(sets, s.path)
	}
	list("arrays", o.arrays)
	list("unsets", o.unsets)
	list("sets", sets)
	return text
}

// TestSanitize wants nothing of a document in what is shown.
func TestSanitize(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	coll := r.dest.Client.Database("f").Collection("c")
	unique := mongo.IndexModel{Keys: bson.D{{Key: "mail", Value: 1}}, Options: options.Index().SetUnique(true)}
	if _, err := coll.Indexes().CreateOne(t.Context(), unique); err != nil {
		t.Fatal(err)
	}
	var failures []error
	for i := range 2 {
		_, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: i}, {Key: "mail", Value: "secret"}, {Key: "place", Value: "secret"}})
		failures = append(failures, err)
	}
	_, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "place", Value: "2dsphere"}}})
	failures = append(failures, err)
	for _, err := range failures[1:] {
		text := fmt.Sprint(sanitize(fmt.Errorf("write: %w", err)))
		if err == nil || len(text) == 0 || strings.Contains(text, "secret") {
			t.Errorf("got %q from %v", text, err)
		}
	}
}
