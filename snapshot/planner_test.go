package snapshot

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestChunkCount(t *testing.T) {
	const chunkDocuments, chunkBytes = 1000, 1 << 20
	for _, test := range []struct {
		name            string
		documents, size int64
		want            int
	}{
		{"empty", 0, 0, 1},
		{"small", 10, 1000, 1},
		{"many small documents", 10_000, 100_000, 10},
		{"few large documents", 20, 100 << 20, 20},
		{"by bytes", 5000, 64 << 20, 64},
		{"bounded", 1 << 40, 1 << 50, maxChunksPerCollection},
		{"size without a count, after a crash", 0, 64 << 20, 1},
		{"exactly one", 1000, 1 << 20, 1},
		{"one more", 1001, 1 << 20, 2},
	} {
		if got := chunkCount(test.documents, test.size, chunkDocuments, chunkBytes); got != test.want {
			t.Errorf("%s: %d chunks, want %d", test.name, got, test.want)
		}
	}
}

func idRaw(t testing.TB, id any) bson.Raw {
	t.Helper()
	raw, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestQuantiles(t *testing.T) {
	for _, test := range []struct {
		name    string
		samples []any
		n       int
		want    []any
	}{
		{"none", nil, 4, nil},
		{"even", []any{0, 1, 2, 3, 4, 5, 6, 7}, 4, []any{2, 4, 6}},
		{"fewer samples than chunks", []any{1, 2}, 5, []any{1, 2}},
		{"repeated samples", []any{1, 1, 1, 1, 1, 2}, 6, []any{1, 2}},
		{"equal numbers of other types", []any{int32(7), int64(7), 7.0, "a"}, 4, []any{int64(7), "a"}},
		{"mixed types", []any{bson.MinKey{}, nil, 1, "a", bson.D{{Key: "a", Value: 1}}, true}, 3, []any{1, bson.D{{Key: "a", Value: 1}}}},
		{"ends of the index", []any{bson.MinKey{}, bson.MinKey{}, 1, bson.MaxKey{}}, 4, []any{1}},
	} {
		var samples, want []bson.Raw
		for _, id := range test.samples {
			samples = append(samples, idRaw(t, id))
		}
		for _, id := range test.want {
			want = append(want, idRaw(t, id))
		}
		got, err := quantiles(samples, test.n)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestAssemble(t *testing.T) {
	coll := func(name string) state.Collection { return state.Collection{DB: "d", Coll: name} }
	view := coll("view")
	view.View = true
	b1, b2 := idRaw(t, 1), idRaw(t, "x")
	p := assemble("run", []outline{
		{collection: coll("bounded"), bounded: true, bounds: []bson.Raw{b1, b2}},
		{collection: view},
		{collection: coll("capped"), natural: true},
		{collection: coll("empty"), empty: true},
		{collection: coll("odd")},
	})
	want := []state.Chunk{
		{Run: "run", Chunk: 0, DB: "d", Coll: "bounded", Max: b1},
		{Run: "run", Chunk: 1, DB: "d", Coll: "bounded", Min: b1, Max: b2},
		{Run: "run", Chunk: 2, DB: "d", Coll: "bounded", Min: b2},
		{Run: "run", Chunk: 3, DB: "d", Coll: "capped", Natural: true},
		{Run: "run", Chunk: 4, DB: "d", Coll: "empty"},
		{Run: "run", Chunk: 5, DB: "d", Coll: "odd", Whole: true},
	}
	if diff := cmp.Diff(want, p.chunks); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
	var counts []int32
	for _, c := range p.collections {
		counts = append(counts, c.Chunks)
	}
	if diff := cmp.Diff([]int32{3, 0, 1, 1, 1}, counts); diff != "" {
		t.Errorf("chunks a collection (-want +got):\n%s", diff)
	}
	if p := assemble("run", []outline{{collection: coll("empty"), empty: true}}); !p.chunks[0].Whole {
		t.Error("where bounded reads were never seen to work they are used")
	}
}

func TestLoadableNamesEveryCollection(t *testing.T) {
	index := func(key bson.D) []bson.Raw {
		raw, err := bson.Marshal(bson.D{{Key: "v", Value: 2}, {Key: "key", Value: key}, {Key: "name", Value: "i"}})
		if err != nil {
			t.Fatal(err)
		}
		return []bson.Raw{raw}
	}
	entry := func(name string, indexes []bson.Raw) mongodb.CatalogEntry {
		return mongodb.CatalogEntry{NS: event.Namespace{DB: "d", Coll: name}, Indexes: indexes}
	}
	good := []mongodb.CatalogEntry{
		entry("int", index(bson.D{{Key: "_id", Value: int32(1)}})),
		entry("double", index(bson.D{{Key: "_id", Value: 1.0}})),
		{NS: event.Namespace{DB: "d", Coll: "view"}, View: true},
	}
	if err := loadable(good); err != nil {
		t.Errorf("refused: %v", err)
	}
	bad := append(good,
		entry("none", nil), entry("hashed", index(bson.D{{Key: "_id", Value: "hashed"}})),
		entry("compound", index(bson.D{{Key: "_id", Value: 1}, {Key: "a", Value: 1}})),
		mongodb.CatalogEntry{NS: event.Namespace{DB: "d", Coll: "series"}, Timeseries: true},
	)
	err := loadable(bad)
	if err == nil {
		t.Fatal("nothing is refused")
	}
	for _, want := range []string{"d.none, d.hashed, d.compound", "time-series", "d.series", "select.exclude"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestChunksIn(t *testing.T) {
	for _, n := range []int32{0, 1, 3, 4, 5, 1000} {
		for _, partitions := range []int32{1, 2, 4, 7} {
			want := make([]int32, partitions)
			for c := range n {
				want[c%partitions]++
			}
			for partition := range partitions {
				if got := chunksIn(n, partition, partitions); got != want[partition] {
					t.Errorf("%d chunks in %d partitions: partition %d has %d, want %d", n, partitions, partition, got, want[partition])
				}
			}
		}
	}
}

func TestMarks(t *testing.T) {
	at := func(t uint32) bson.Timestamp { return bson.Timestamp{T: t, I: 1} }
	m := newMarks(2)
	m.add(0, at(1), 10)
	m.add(0, at(2), 20)
	if m.found() {
		t.Fatal("complete without the other partition")
	}
	m.add(1, at(1), 11)
	if !m.found() || m.best != at(1) {
		t.Fatalf("best is %v", m.best)
	}
	m.add(1, at(2), 21)
	m.add(0, at(1), 99) // a repeated, earlier one changes nothing
	if m.best != at(2) || len(m.seen) != 0 {
		t.Errorf("best is %v with %d in waiting", m.best, len(m.seen))
	}
	if diff := cmp.Diff(map[int32]int64{0: 20, 1: 21}, m.offsets); diff != "" {
		t.Errorf("offsets (-want +got):\n%s", diff)
	}
}
