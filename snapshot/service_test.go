package snapshot

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// fill inserts documents of about size bytes and returns all of the
// collection's documents by _id.
func fill(t testing.TB, m *testenv.Mongo, ns event.Namespace, ids []any, size int) {
	t.Helper()
	coll := m.Client.Database(ns.DB).Collection(ns.Coll)
	var docs []any
	for i, id := range ids {
		docs = append(docs, bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(i)}, {Key: "pad", Value: string(bytes.Repeat([]byte{'x'}, size))}})
		if len(docs) == 1000 || i == len(ids)-1 {
			if _, err := coll.InsertMany(t.Context(), docs, options.InsertMany().SetOrdered(false)); err != nil {
				t.Fatal(err)
			}
			docs = docs[:0]
		}
	}
}

func objectIDs(n int) []any {
	ids := make([]any, n)
	for i := range ids {
		ids[i] = bson.NewObjectID()
	}
	return ids
}

// held returns the raw documents of a collection by their _id's normal form.
func held(t testing.TB, m *testenv.Mongo, ns event.Namespace) map[string]string {
	t.Helper()
	cursor, err := m.Client.Database(ns.DB).Collection(ns.Coll).Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	for cursor.Next(t.Context()) {
		key, err := idKey(cursor.Current)
		if err != nil {
			t.Fatal(err)
		}
		docs[string(key)] = string(cursor.Current)
	}
	if err := cursor.Err(); err != nil {
		t.Fatal(err)
	}
	return docs
}

// documentsOf splits batches into documents by namespace and _id; a document
// that comes twice fails the test.
func documentsOf(t testing.TB, batches []wire.Batch) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	chunkOf := map[string]int32{}
	for _, b := range batches {
		if b.Kind != wire.BatchDocuments {
			continue
		}
		ns := b.NS.String()
		if all[ns] == nil {
			all[ns] = map[string]string{}
		}
		rest := b.Documents
		for n := int32(0); n < b.Count; n++ {
			size := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16 | int(rest[3])<<24
			doc := bson.Raw(rest[:size])
			rest = rest[size:]
			key, err := idKey(doc)
			if err != nil {
				t.Fatal(err)
			}
			if _, twice := all[ns][string(key)]; twice {
				t.Errorf("%s %s is in chunk %d and again in chunk %d", ns, key, chunkOf[ns+string(key)], b.Chunk)
			}
			all[ns][string(key)] = string(doc)
			chunkOf[ns+string(key)] = b.Chunk
		}
		if len(rest) > 0 {
			t.Errorf("batch of chunk %d has %d bytes after its %d documents", b.Chunk, len(rest), b.Count)
		}
	}
	return all
}

// checkSequences fails if the batches of a chunk are not numbered in a row.
func checkSequences(t testing.TB, batches []wire.Batch) {
	t.Helper()
	next := map[int32]int32{}
	for _, b := range batches {
		if b.Kind != wire.BatchDocuments {
			continue
		}
		if b.Sequence != next[b.Chunk] {
			t.Errorf("chunk %d: batch %d comes where %d was expected", b.Chunk, b.Sequence, next[b.Chunk])
		}
		next[b.Chunk]++
	}
}

// checkLoaded compares what was loaded with what the source holds.
func (r *rig) checkLoaded(t testing.TB, namespaces ...event.Namespace) {
	t.Helper()
	batches := r.loadedBatches(t)
	checkSequences(t, batches)
	got := documentsOf(t, batches)
	for _, ns := range namespaces {
		want := held(t, r.source, ns)
		if len(want) == 0 && len(got[ns.String()]) == 0 {
			continue
		}
		if diff := cmp.Diff(want, got[ns.String()]); diff != "" {
			t.Errorf("%s: source has %d documents, topic %d (-source +topic):\n%.2000s", ns, len(want), len(got[ns.String()]), diff)
		}
	}
	for ns := range got {
		if len(got) > len(namespaces) {
			t.Errorf("documents of %s and others: want those of %v alone", ns, namespaces)
			break
		}
	}
	m, ok := r.state(t).LatestRun()
	if !ok || m.State != state.RunComplete {
		t.Fatalf("run is %q, want %q", m.State, state.RunComplete)
	}
	ends := map[string]int{}
	for _, b := range batches {
		if b.Kind == wire.BatchRunEnd {
			ends[b.Run]++
		}
	}
	if diff := cmp.Diff(map[string]int{m.Run: int(topicSpec().SnapshotPartitions)}, ends); diff != "" {
		t.Errorf("run end marks (-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	testenv.Each(t, func(t *testing.T, pair testenv.Pair) {
		r := newRig(t, pair)
		orders, users, big := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "users"}, event.Namespace{DB: "files", Coll: "big.objects"}
		fill(t, r.source, orders, objectIDs(1500), 100)
		var names []any
		for i := range 300 {
			names = append(names, fmt.Sprintf("user-%d", i))
		}
		fill(t, r.source, users, names, 10)
		fill(t, r.source, big, objectIDs(12), 20<<10)
		r.followSource(t)
		if err := r.run(t, r.config("one")); err != nil {
			t.Fatal(err)
		}
		r.checkLoaded(t, orders, users, big)

		m, _ := r.state(t).LatestRun()
		if event.CompareTimes(m.ReadThrough, m.Watermark) < 0 || m.Watermark.IsZero() {
			t.Errorf("W is %v and R is %v: want W at or before R", m.Watermark, m.ReadThrough)
		}
		if len(m.ChangeOffsets) != 3 || len(m.SnapshotOffsets) != 4 || len(m.Collections) != 3 {
			t.Errorf("manifest %+v", m)
		}
		if pair.Exact && m.Chunks < 10 {
			t.Errorf("%d chunks: want many", m.Chunks)
		}
		// A complete run is never run again.
		before := len(r.loadedBatches(t))
		if err := r.run(t, r.config("two")); err != nil {
			t.Fatal(err)
		}
		if after := len(r.loadedBatches(t)); after != before {
			t.Errorf("second run put %d batches on the topic", after-before)
		}
	})
}
