package snapshot

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func document(t testing.TB, id any, pad int) bson.Raw {
	t.Helper()
	raw, err := bson.Marshal(bson.D{{Key: "_id", Value: id}, {Key: "pad", Value: string(bytes.Repeat([]byte{'x'}, pad))}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestPackerKeepsBatchesBelowTheLimit(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const limit = 1000
	var want, got []byte
	p := newPacker(limit)
	flush := func() {
		if len(p.buf) > limit && p.count > 1 {
			t.Errorf("batch of %d documents has %d bytes: limit %d", p.count, len(p.buf), limit)
		}
		got = append(got, p.buf...)
		p.reset()
	}
	for i := range 500 {
		doc := document(t, int32(i), random.IntN(1500))
		want = append(want, doc...)
		if !p.fits(doc) {
			flush()
		}
		p.add(doc)
		last, err := p.lastID()
		if err != nil {
			t.Fatal(err)
		}
		if id := last.Lookup("_id").Int32(); id != int32(i) {
			t.Fatalf("last _id is %d, want %d", id, i)
		}
	}
	flush()
	if !bytes.Equal(want, got) {
		t.Error("batches put together differ from the documents")
	}
	if c := cap(p.buf); c > 2*limit {
		t.Errorf("an oversized buffer of %d bytes is kept", c)
	}
}

func TestPackerGivesAnOversizedDocumentABatchOfItsOwn(t *testing.T) {
	p := newPacker(100)
	small, large := document(t, "s", 1), document(t, "l", 500)
	p.add(small)
	if p.fits(large) {
		t.Error("a document beyond the limit joins others")
	}
	p.reset()
	if !p.fits(large) {
		t.Error("a document beyond the limit does not fit an empty batch")
	}
	p.add(large)
	if p.fits(small) {
		t.Error("a document joins one that is beyond the limit")
	}
}

func TestIDDocument(t *testing.T) {
	for _, id := range []any{
		int32(1), "text", bson.NewObjectID(), nil, true, bson.MinKey{}, bson.D{{Key: "a", Value: 1}}, bson.Binary{Subtype: 4, Data: make([]byte, 16)},
	} {
		doc, err := bson.Marshal(bson.D{{Key: "before", Value: 1}, {Key: "_id", Value: id}, {Key: "after", Value: 2}})
		if err != nil {
			t.Fatal(err)
		}
		want, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := idOf(doc)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]byte(want), []byte(got)); diff != "" {
			t.Errorf("_id %v (-want +got):\n%s", id, diff)
		}
	}
	if _, err := idOf(bson.Raw{5, 0, 0, 0, 0}); err == nil {
		t.Error("a document without _id has one")
	}
}

func BenchmarkPack(b *testing.B) {
	p := newPacker(DefaultBatchBytes)
	doc := document(b, bson.NewObjectID(), 1000)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if !p.fits(doc) {
			if _, err := p.lastID(); err != nil {
				b.Fatal(err)
			}
			p.reset()
		}
		p.add(doc)
	}
}
