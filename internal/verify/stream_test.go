package verify

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestSpansHoldTheEnds reads a collection whose _ids reach both ends of the
// order in spans: each document must come once.
func TestSpansHoldTheEnds(t *testing.T) {
	server := testenv.RequireMongoD(t).NewSource(t)
	ns := event.Namespace{DB: "ends", Coll: "c"}
	ids := []any{bson.MinKey{}, int32(1), int32(2), int32(3), "text", bson.MaxKey{}}
	docs := make([]any, len(ids))
	for i, id := range ids {
		docs[i] = bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(i)}}
	}
	s := &side{client: server.Client, bounded: true}
	if _, err := s.collection(ns).InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	bound, err := bson.Marshal(bson.D{{Key: "_id", Value: int32(2)}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close(t.Context())
	for _, spans := range [][]span{{{}}, {{max: bound}, {min: bound}}} {
		var got []int32
		for _, sp := range spans {
			got = append(got, numbersOf(t, r, ns, sp)...)
		}
		if diff := cmp.Diff([]int32{0, 1, 2, 3, 4, 5}, got); diff != "" {
			t.Errorf("%d spans (-want +got):\n%s", len(spans), diff)
		}
	}
}

func numbersOf(t *testing.T, r *reader, ns event.Namespace, s span) []int32 {
	t.Helper()
	d, err := r.open(t.Context(), ns, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	var numbers []int32
	for {
		doc, err := d.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if doc == nil {
			return numbers
		}
		numbers = append(numbers, doc.Lookup("n").Int32())
	}
}
