package snapshot

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// TestKindsOfCollections: whatever a collection looks like, each document is in
// exactly one chunk, as it is.
func TestKindsOfCollections(t *testing.T) {
	r := newRig(t, realPair(t))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	numbers := func(n int, next func(i int) any) []any {
		ids := make([]any, n)
		for i := range ids {
			ids[i] = next(i)
		}
		return ids
	}
	var kinds []event.Namespace
	for _, kind := range []struct {
		name    string
		ids     []any
		size    int
		options *options.CreateCollectionOptionsBuilder
	}{
		{name: "monotonic", ids: objectIDs(3000), size: 20},
		{name: "random", ids: numbers(2000, func(int) any { return random.Int64() }), size: 20},
		{name: "mixed", ids: mixedIDs(), size: 40},
		{name: "large", ids: objectIDs(3), size: 3 << 20},
		{name: "one", ids: []any{nil}, size: 1},
		{name: "empty"},
		{
			name: "folded", ids: numbers(500, func(i int) any { return strings.Repeat("é", i%3) + fmt.Sprint(i) }), size: 50,
			options: options.CreateCollection().SetCollation(&options.Collation{Locale: "fr", Strength: 1}),
		},
		{name: "capped", ids: mixedIDs(), size: 40, options: options.CreateCollection().SetCapped(true).SetSizeInBytes(1 << 20)},
		{name: "nested", ids: numbers(700, func(i int) any {
			return bson.D{{Key: "a", Value: int32(i % 7)}, {Key: "b", Value: bson.D{{Key: "c", Value: fmt.Sprint(i)}}}}
		}), size: 30},
	} {
		ns := event.Namespace{DB: "kinds", Coll: kind.name}
		with := kind.options
		if with == nil {
			with = options.CreateCollection()
		}
		if err := r.source.Client.Database(ns.DB).CreateCollection(t.Context(), ns.Coll, with); err != nil {
			t.Fatal(err)
		}
		fill(t, r.source, ns, kind.ids, kind.size)
		kinds = append(kinds, ns)
	}
	for i := range 60 {
		ns := event.Namespace{DB: "many", Coll: fmt.Sprintf("c%02d", i)}
		fill(t, r.source, ns, objectIDs(1+i%3), 10)
		kinds = append(kinds, ns)
	}
	r.followSource(t)
	cfg := r.config("one")
	cfg.QueueBytes = 8 << 20
	if err := r.run(t, cfg); err != nil {
		t.Fatal(err)
	}
	r.checkLoaded(t, kinds...)
}
