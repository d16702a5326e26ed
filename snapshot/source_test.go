package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// realPair is a stand-in broker and a real MongoDB: what is tested here is about
// the latter.
func realPair(t testing.TB) testenv.Pair {
	t.Helper()
	return testenv.Pair{MongoDB: testenv.RequireMongoD(t), Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)}
}

// mixedIDs are values of every type that an _id can have, in many sizes.
func mixedIDs() []any {
	ids := []any{
		bson.MinKey{},
		bson.MaxKey{},
		nil, true, false, math.NaN(), math.Inf(1), math.Inf(-1), int64(math.MaxInt64), int64(math.MinInt64),
		bson.Timestamp{},
		bson.Timestamp{T: 1, I: 2},
		bson.Timestamp{T: math.MaxUint32},
		bson.JavaScript("f()"), bson.Symbol("sym"),
		bson.Binary{},
		bson.Binary{Subtype: 4, Data: make([]byte, 16)},
		bson.Binary{Subtype: 0x80, Data: []byte{1}},
		bson.D{},
		bson.D{{Key: "a", Value: nil}},
		bson.D{{Key: "$ref", Value: "c"}, {Key: "$id", Value: 1}},
		"", "\x00", strings.Repeat("long", 200),
		bson.CodeWithScope{Code: "f()", Scope: bson.D{{Key: "x", Value: 1}}},
	}
	for i := range 40 {
		n := i*9 - 100
		switch i % 3 { // equal values of other types may not meet
		case 0:
			ids = append(ids, int32(n))
		case 1:
			ids = append(ids, int64(n))
		case 2:
			ids = append(ids, float64(n)+0.5)
		}
		decimal, err := bson.ParseDecimal128(fmt.Sprintf("%d.25", n))
		if err == nil {
			ids = append(ids, decimal)
		}
		ids = append(ids, fmt.Sprintf("text-%d", i), bson.NewObjectID(), bson.DateTime(int64(n)*1e9),
			bson.D{{Key: "k", Value: int32(i)}, {Key: "s", Value: "x"}}, bson.D{{Key: "k", Value: int64(i) << 33}},
			bson.Binary{Subtype: 0, Data: []byte{byte(i), byte(i >> 1)}}, bson.Binary{Subtype: 4, Data: append(make([]byte, 15), byte(i+1))})
	}
	return ids
}

func TestEveryIDIsInExactlyOneChunk(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "d", Coll: "mixed"}
	ids := mixedIDs()
	fill(t, r.source, ns, ids, 40)
	for _, chunkDocuments := range []int64{3, 50, 10_000} {
		t.Run(fmt.Sprintf("%d documents a chunk", chunkDocuments), func(t *testing.T) {
			r.pair.Pipeline = testenv.NewPipeline(t)
			r.topics = route.TopicsOf(r.pair.Pipeline)
			r.prepareTopics(t)
			r.followSource(t)
			cfg := r.config("one")
			cfg.ChunkDocuments = chunkDocuments
			if err := r.run(t, cfg); err != nil {
				t.Fatal(err)
			}
			r.checkLoaded(t, ns)
			m, _ := r.state(t).LatestRun()
			if want := int32(int64(len(ids)) / chunkDocuments * 8 / 10); m.Chunks < want {
				t.Errorf("%d chunks for %d documents", m.Chunks, len(ids))
			}
		})
	}
}

func TestBounds(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "d", Coll: "many"}
	const n = 20_000
	ids := make([]any, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	fill(t, r.source, ns, ids, 1)
	coll := r.source.Client.Database(ns.DB).Collection(ns.Coll)
	for _, chunks := range []int{2, 10, 50} {
		stepped, err := bounds(t.Context(), coll, n, chunks)
		if err != nil {
			t.Fatal(err)
		}
		if len(stepped) != chunks-1 {
			t.Errorf("%d chunks: %d bounds by stepping", chunks, len(stepped))
		}
		for i, b := range stepped {
			if got, want := b.Lookup("_id").Int32(), int32((i+1)*n/chunks); got != want {
				t.Errorf("bound %d of %d chunks is %d, want %d", i, chunks, got, want)
			}
		}
		// How well random documents are spread is the server's affair; the
		// order must be that of the index.
		sampled, err := bounds(t.Context(), coll, steppedDocuments+1, chunks)
		if err != nil {
			t.Fatal(err)
		}
		if len(sampled) < chunks/2 {
			t.Errorf("%d chunks: %d bounds by sampling", chunks, len(sampled))
		}
		last := int32(-1)
		for i, b := range sampled {
			got := b.Lookup("_id").Int32()
			if got <= last {
				t.Errorf("sampled bound %d of %d chunks is %d, behind %d", i, chunks, got, last)
			}
			last = got
		}
	}
	if none, err := bounds(t.Context(), coll, n, 1); err != nil || none != nil {
		t.Errorf("one chunk has bounds %v, %v", none, err)
	}
}

func TestCollationCappedViewAndEmptyCollections(t *testing.T) {
	r := newRig(t, realPair(t))
	db := r.source.Client.Database("d")
	ctx := t.Context()
	folded, capped, empty := event.Namespace{DB: "d", Coll: "folded"}, event.Namespace{DB: "d", Coll: "capped"}, event.Namespace{DB: "d", Coll: "empty"}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(db.CreateCollection(ctx, folded.Coll, options.CreateCollection().SetCollation(&options.Collation{Locale: "en", Strength: 2})))
	check(db.CreateCollection(ctx, capped.Coll, options.CreateCollection().SetCapped(true).SetSizeInBytes(10<<20)))
	check(db.CreateCollection(ctx, empty.Coll))
	check(db.CreateView(ctx, "view", capped.Coll, mongo.Pipeline{}))
	var names []any
	for i := range 300 {
		name := fmt.Sprintf("Name-%c%d", 'a'+i%26, i)
		if i%2 == 0 {
			name = strings.ToUpper(name)
		}
		names = append(names, name)
	}
	fill(t, r.source, folded, names, 200)
	fill(t, r.source, capped, objectIDs(500), 100)
	cfg := r.config("one")
	cfg.ChunkDocuments = 40
	r.followSource(t)
	check(r.run(t, cfg))
	r.checkLoaded(t, folded, capped, empty)
	m, _ := r.state(t).LatestRun()
	got := map[string]string{}
	for _, c := range m.Collections {
		got[c.Coll] = fmt.Sprintf("view=%t chunks=%d indexes=%d", c.View, min(c.Chunks, 2), len(c.Indexes))
	}
	want := map[string]string{
		"folded": "view=false chunks=2 indexes=1", "capped": "view=false chunks=1 indexes=1",
		"empty": "view=false chunks=1 indexes=1", "view": "view=true chunks=0 indexes=0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("collections (-want +got):\n%s", diff)
	}
	var order []int32
	for _, b := range r.loadedBatches(t) {
		if b.Kind == wire.BatchDocuments && b.NS == capped {
			for rest := b.Documents; len(rest) > 0; {
				n := int(rest[0]) | int(rest[1])<<8
				order = append(order, bson.Raw(rest[:n]).Lookup("n").Int32())
				rest = rest[n:]
			}
		}
	}
	for i, n := range order {
		if n != int32(i) {
			t.Fatalf("capped collection: document %d comes at place %d", n, i)
		}
	}
}

// readPass reads a chunk behind a document, nil for its start, and returns the
// _ids, or the error's text.
func readPass(t *testing.T, src *source, c state.Chunk, after any) string {
	t.Helper()
	progress := state.ChunkProgress{}
	if after != nil {
		progress.Next = idRaw(t, after)
	}
	docs, err := src.open(t.Context(), &c, &progress)
	if err != nil {
		t.Fatal(err)
	}
	defer docs.Close()
	var got []string
	for {
		doc, err := docs.Next(t.Context())
		if err != nil {
			return err.Error()
		}
		if doc == nil {
			break
		}
		if err := docs.KeepAlive(t.Context()); err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprint(doc.Lookup("_id").AsInt64()))
	}
	if docs.Through().IsZero() {
		t.Error("the source does not tell the time of the read")
	}
	return strings.Join(got, " ")
}

func TestPassGoesOnBehindADocument(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "d", Coll: "c"}
	fill(t, r.source, ns, []any{int32(1), int32(2), int32(3), int32(4)}, 1)
	src, err := newSource(t.Context(), r.source.Client, mongodb.Deployment{}, r.now(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		chunk state.Chunk
		after any
		want  string
	}{
		{"from the start", state.Chunk{}, nil, "1 2 3 4"},
		{"behind", state.Chunk{}, int32(2), "3 4"},
		{"behind, of another type", state.Chunk{}, 2.0, "3 4"},
		{"behind one that is gone", state.Chunk{}, 2.5, "3 4"},
		{"to a bound", state.Chunk{Max: idRaw(t, int32(3))}, int32(1), "2"},
		{"from a bound", state.Chunk{Min: idRaw(t, int32(3))}, nil, "3 4"},
		{"behind the last", state.Chunk{}, int32(4), ""},
		{"behind the only one of a chunk", state.Chunk{Min: idRaw(t, int32(4))}, int32(4), ""},
		{"behind the end of the index", state.Chunk{}, bson.MaxKey{}, ""},
		{"behind the start of the index", state.Chunk{}, bson.MinKey{}, "1 2 3 4"},
		{"natural", state.Chunk{Natural: true}, nil, "1 2 3 4"},
		{"natural, behind", state.Chunk{Natural: true}, int32(3), "4"},
		{"natural, behind one that is gone", state.Chunk{Natural: true}, int32(9), "1 2 3 4"},
	} {
		test.chunk.DB, test.chunk.Coll = ns.DB, ns.Coll
		if got := readPass(t, src, test.chunk, test.after); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestPassOverWhatIsGone(t *testing.T) {
	r := newRig(t, realPair(t))
	c := state.Chunk{DB: "d", Coll: "c", Natural: true}
	fill(t, r.source, event.Namespace{DB: c.DB, Coll: c.Coll}, []any{int32(1), int32(2)}, 1)
	src, err := newSource(t.Context(), r.source.Client, mongodb.Deployment{}, r.now(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	// The document goes between the look for it and the pass.
	docs, err := src.open(t.Context(), &c, &state.ChunkProgress{Next: idRaw(t, int32(2))})
	if err != nil {
		t.Fatal(err)
	}
	defer docs.Close()
	p, isPass := docs.(*pass)
	if !isPass {
		t.Fatalf("a real source gives %T", docs)
	}
	p.anchor, p.after = []byte("none"), idRaw(t, "none")
	if _, err := docs.Next(t.Context()); !errors.Is(err, errAnchorGone) {
		t.Errorf("error %v, want %v", err, errAnchorGone)
	}
	if err := r.source.Client.Database(c.DB).Collection(c.Coll).Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gone, err := src.gone(t.Context(), &c); err != nil || !gone {
		t.Errorf("dropped collection: gone %v, %v", gone, err)
	}
	if got := readPass(t, src, state.Chunk{DB: c.DB, Coll: c.Coll}, int32(2)); got != "" {
		t.Errorf("dropped collection: %s", got)
	}
}

// TestPassBehindADocumentThatMoved resumes in a capped collection whose last
// read document has rolled out and was inserted again: it stands behind
// documents that were never read now.
func TestPassBehindADocumentThatMoved(t *testing.T) {
	r := newRig(t, realPair(t))
	c := state.Chunk{DB: "d", Coll: "c", Natural: true}
	db := r.source.Client.Database(c.DB)
	if err := db.CreateCollection(t.Context(), c.Coll, options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20).SetMaxDocuments(4)); err != nil {
		t.Fatal(err)
	}
	coll := db.Collection(c.Coll)
	insert := func(id, n int32) {
		if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}, {Key: "n", Value: n}}); err != nil {
			t.Fatal(err)
		}
	}
	for id := range int32(4) {
		insert(id+1, 0)
	}
	read, err := coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: 2}}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	progress := state.ChunkProgress{Next: idRaw(t, int32(2)), Digest: digestOf(read)}
	pass := func() ([]int32, error) {
		src, err := newSource(t.Context(), r.source.Client, mongodb.Deployment{}, r.now(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := src.open(t.Context(), &c, &progress)
		if err != nil {
			t.Fatal(err)
		}
		defer docs.Close()
		var ids []int32
		for {
			doc, err := docs.Next(t.Context())
			if doc == nil {
				return ids, err
			}
			ids = append(ids, doc.Lookup("_id").Int32())
		}
	}
	if ids, err := pass(); err != nil || !cmp.Equal(ids, []int32{3, 4}) {
		t.Errorf("behind the document in its place: %v, %v", ids, err)
	}
	insert(5, 0)
	insert(6, 0)
	insert(2, 1) // now 4, 5, 6, 2
	if ids, err := pass(); !errors.Is(err, errAnchorGone) || len(ids) > 0 {
		t.Errorf("behind the document that moved: %v, %v, want %v", ids, err, errAnchorGone)
	}
}

// TestSourceWithoutClusterTime: only a stand-in may leave reads without a time
// that they are not older than.
func TestSourceWithoutClusterTime(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		client := m.NewSource(t).Client
		d, err := mongodb.Describe(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		src, err := newSource(t.Context(), client, d, bson.Timestamp{T: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if told := src.clusterTime != nil; told == d.Standin {
			t.Errorf("cluster time told: %v, stand-in: %v", told, d.Standin)
		}
		if !d.Standin {
			return
		}
		if _, err := newSource(t.Context(), client, mongodb.Deployment{}, bson.Timestamp{T: 1}, nil); !errors.Is(err, errNoClusterTime) {
			t.Errorf("a real server that tells none: %v, want %v", err, errNoClusterTime)
		}
	})
}

// TestPrimaryBehindTheWatermark: a primary that has not come to W must not say
// which collections there are.
func TestPrimaryBehindTheWatermark(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		client := m.NewSource(t).Client
		w, err := mongodb.MajorityTime(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		if err := reached(t.Context(), client, w); err != nil {
			t.Errorf("at W: %v", err)
		}
		w.T += 1000
		if err := reached(t.Context(), client, w); !errors.Is(err, errBehind) {
			t.Errorf("before W: %v, want %v", err, errBehind)
		}
	})
}

func TestDropDuringTheReadEndsTheChunk(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := event.Namespace{DB: "d", Coll: "c"}
	fill(t, r.source, ns, objectIDs(2000), 100)
	src, err := newSource(t.Context(), r.source.Client, mongodb.Deployment{}, r.now(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	dropped := false
	pieces, err := readFrom(t, func(ctx context.Context, c *state.Chunk, progress *state.ChunkProgress) (documents, error) {
		docs, err := src.open(ctx, c, progress)
		return &dropping{documents: docs, left: 50, drop: func() error {
			dropped = true
			return r.source.Client.Database(ns.DB).Collection(ns.Coll).Drop(ctx)
		}}, err
	}, src.gone, task{chunk: state.Chunk{Run: "run", DB: ns.DB, Coll: ns.Coll}})
	if err != nil {
		t.Fatal(err)
	}
	if last := pieces[len(pieces)-1].progress; !dropped || !last.Done || last.Documents < 50 || last.Documents >= 2000 {
		t.Errorf("last progress %+v", last)
	}
}

// dropping drops the collection after so many documents.
type dropping struct {
	documents
	left int
	drop func() error
}

func (d *dropping) Next(ctx context.Context) (bson.Raw, error) {
	if d.left--; d.left == 0 {
		if err := d.drop(); err != nil {
			return nil, err
		}
	}
	return d.documents.Next(ctx)
}
