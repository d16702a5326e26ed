package snapshot

import (
	"context"
	"errors"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// killing ends the pass's cursor at the server after so many documents, as the
// server itself does with one that was idle for too long.
type killing struct {
	*pass
	left int
}

func (k *killing) Next(ctx context.Context) (bson.Raw, error) {
	if k.left--; k.left == 0 {
		kill := bson.D{{Key: "killCursors", Value: k.coll.Name()}, {Key: "cursors", Value: bson.A{k.cursor.ID()}}}
		if err := k.coll.Database().RunCommand(ctx, kill).Err(); err != nil {
			return nil, err
		}
	}
	return k.pass.Next(ctx)
}

// TestCursorsThatTheServerEnds: a read goes on behind the last document, without
// loss or repetition, in the order of the _id index and in natural order.
func TestCursorsThatTheServerEnds(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "d", Coll: "c"}
	const n = 5000
	ids := make([]any, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	fill(t, r.source, ns, ids, 10)
	src, err := newSource(t.Context(), r.source.Client, mongodb.Deployment{}, r.now(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, natural := range []bool{false, true} {
		kills := 0
		open := func(ctx context.Context, c *state.Chunk, progress *state.ChunkProgress) (documents, error) {
			docs, err := src.open(ctx, c, progress)
			if p, ok := docs.(*pass); ok && err == nil && kills < 3 {
				kills++
				return &killing{pass: p, left: 50}, nil
			}
			return docs, err
		}
		pieces, err := readFrom(t, open, src.gone, task{chunk: state.Chunk{Run: "run", DB: ns.DB, Coll: ns.Coll, Natural: natural}})
		if err != nil {
			t.Fatal(err)
		}
		got := idsOf(t, pieces)
		for i, id := range got {
			if id != int32(i) {
				t.Fatalf("natural=%t: document %d comes at place %d", natural, id, i)
			}
		}
		if len(got) != n || kills < 2 {
			t.Errorf("natural=%t: %d documents over %d ended cursors, want %d", natural, len(got), kills, n)
		}
	}
}

// TestReadsFromSecondaries: with a read preference the documents come from
// there, and are not older than the time that the reads are held to.
func TestReadsFromSecondaries(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Fresh(), testenv.Members(2))
	ns := event.Namespace{DB: "d", Coll: "c"}
	const n = 500
	ids := make([]any, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	fill(t, source, ns, ids, 10)
	w, err := mongodb.LatestTime(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource(t.Context(), source.Client, mongodb.Deployment{}, w, readpref.Secondary())
	if err != nil {
		t.Fatal(err)
	}
	queries := func() (n int64) {
		for _, m := range source.ReplicaSet().Members {
			client, err := mongodb.Connect(t.Context(), mongodb.Options{URI: m.URI})
			if err != nil {
				t.Fatal(err)
			}
			var status struct {
				Repl     struct{ Secondary bool }
				Counters struct{ Query int64 } `bson:"opcounters"`
			}
			err = client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "serverStatus", Value: 1}}).Decode(&status)
			if err := errors.Join(err, client.Disconnect(t.Context())); err != nil {
				t.Fatal(err)
			}
			if status.Repl.Secondary {
				n += status.Counters.Query
			}
		}
		return n
	}
	before := queries()
	pieces, err := readFrom(t, src.open, src.gone, task{chunk: state.Chunk{Run: "run", DB: ns.DB, Coll: ns.Coll}})
	if err != nil {
		t.Fatal(err)
	}
	if got := idsOf(t, pieces); len(got) != n {
		t.Errorf("%d documents, want %d", len(got), n)
	}
	if queries() == before {
		t.Error("the secondary was not read")
	}
}
