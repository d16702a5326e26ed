package apply

import (
	"context"
	"errors"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// TestWritesOutsideTransactionsAreMajority wants the write concern in every
// write command that no transaction commits: the offset moves after it, and a
// failover in between must not take the write back.
func TestWritesOutsideTransactionsAreMajority(t *testing.T) {
	id := raw(t, bson.D{{Key: "_id", Value: 1}}).Lookup("_id")
	for _, transactions := range []bool{false, true} {
		b := newBuilder("c", abilities{transactions: transactions, pipelines: true})
		for _, w := range []write{
			{kind: writeDelete, id: id},
			{kind: writeInsert, id: id, doc: raw(t, bson.D{{Key: "_id", Value: 2}})},
			{kind: writeReplace, id: id, doc: raw(t, bson.D{{Key: "_id", Value: 1}})},
		} {
			if err := b.add(w); err != nil {
				t.Fatal(err)
			}
		}
		commands := b.drain()
		if len(commands) != 3 {
			t.Fatalf("got %d commands, want 3", len(commands))
		}
		for _, c := range commands {
			w, _ := c.raw.Lookup("writeConcern", "w").StringValueOK()
			if (w == "majority") == transactions {
				t.Errorf("transactions %t: write concern %q in %s", transactions, w, c.raw)
			}
		}
	}
}

// ownedBy prepares a committer that owns partition 0 of the topic "c".
func ownedBy(t *testing.T, r *rig, owner string, exact bool) (*committer, offsetRecord) {
	t.Helper()
	store := newStore(r.dest.Client, groupID{Pipeline: r.pair.Pipeline, Group: "dest"}, owner, topicNames{changes: "c", snapshot: "s"})
	if err := store.ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := &committer{client: r.dest.Client, store: store, exact: exact, policy: r.config("x").Retry, unexpected: func(error) {}}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(context.Background()) })
	held, err := store.raise(t.Context(), offsetRecord{ID: store.partition("c", 0), Offset: 5, Exact: exact, Session: c.sessionID()})
	if err != nil {
		t.Fatal(err)
	}
	return c, held
}

// TestLostBetweenWrites takes the partition away from a worker without
// transactions between two of a batch's writes: the second is not made.
func TestLostBetweenWrites(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
		c, held := ownedBy(t, r, "old", false)
		target := newTarget(r.dest.Client, abilities{})
		target.guard = func(ctx context.Context) error { return c.store.owns(ctx, &held) }
		first, second := event.Namespace{DB: "f", Coll: "first"}, event.Namespace{DB: "f", Coll: "second"}
		b := &batch{held: held, next: held}
		b.next.Offset++
		b.write = func(ctx context.Context, how care) error {
			for i, ns := range []event.Namespace{first, second} {
				e := inserted(t, ns, bson.D{{Key: "_id", Value: "x"}})
				plans, err := fold([]change{{Event: &e, target: ns}}, event.Strict, target.capped)
				if err != nil {
					return err
				}
				if err := target.write(ctx, plans[0], how, nil); err != nil {
					return err
				}
				if i == 0 {
					ownedBy(t, r, "new", false)
				}
			}
			return nil
		}
		if err := c.commit(t.Context(), b); !errors.Is(err, errLost) {
			t.Errorf("got %v, want %v", err, errLost)
		}
		r.same(t, first, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "x"}})})
		r.same(t, second, nil)
	})
}

// TestConflictsBlameTheSize has a transaction fail in passing for ever, as one
// does that does not fit into an older server's cache: smaller ones are asked
// for.
func TestConflictsBlameTheSize(t *testing.T) {
	m := testenv.RequireMongoD(t)
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
	c, held := ownedBy(t, r, "a", true)
	if err := r.dest.Client.Database("f").CreateCollection(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	fail := func(mode any) {
		t.Helper()
		arm := bson.D{{Key: "configureFailPoint", Value: "failCommand"}, {Key: "mode", Value: mode}, {Key: "data", Value: bson.D{
			{Key: "failCommands", Value: bson.A{"insert"}}, {Key: "errorCode", Value: 112}, {Key: "errorLabels", Value: bson.A{labelTransient}},
		}}}
		if err := r.dest.Client.Database("admin").RunCommand(context.Background(), arm).Err(); err != nil {
			t.Fatal(err)
		}
	}
	b := &batch{held: held, next: held, divisible: true}
	b.next.Offset++
	b.write = func(ctx context.Context, _ care) error {
		_, err := r.dest.Client.Database("f").Collection("c").InsertOne(ctx, bson.D{{Key: "_id", Value: "x"}})
		return err
	}
	fail("alwaysOn")
	err := c.commit(t.Context(), b)
	fail("off")
	if !errors.Is(err, errTooLarge) {
		t.Errorf("got %v, want %v", err, errTooLarge)
	}
	var write mongo.CommandError
	if !errors.As(err, &write) {
		t.Errorf("%v does not hold the cause", err)
	}
	if err := c.commit(t.Context(), b); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
