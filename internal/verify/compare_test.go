package verify

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// sliceStream is a stream over documents in memory. Like a cursor, it reuses
// its buffer.
type sliceStream struct {
	docs []bson.Raw
	buf  bson.Raw
}

func (s *sliceStream) next(context.Context) (bson.Raw, error) {
	if len(s.docs) == 0 {
		return nil, nil
	}
	clear(s.buf)
	s.buf = append(s.buf[:0], s.docs[0]...)
	s.docs = s.docs[1:]
	return s.buf, nil
}

func lookupOf(t *testing.T, docs []bson.Raw) lookup {
	t.Helper()
	byKey := map[string]bson.Raw{}
	for _, doc := range docs {
		_, key, err := keyOf(doc)
		if err != nil {
			t.Fatal(err)
		}
		byKey[string(key)] = doc
	}
	return func(_ context.Context, ids []bson.RawValue, visit func(bson.Raw) error) error {
		for _, id := range ids {
			_, key, err := keyOf(docOf(t, id, 0))
			if err != nil {
				return err
			}
			if doc, ok := byKey[string(key)]; ok {
				if err := visit(bytes.Clone(doc)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func docOf(t *testing.T, id any, value int) bson.Raw {
	t.Helper()
	raw, err := bson.Marshal(bson.D{{Key: "_id", Value: id}, {Key: "v", Value: value}, {Key: "pad", Value: strings.Repeat("x", 50)}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// found compares two lists of documents and returns the differences as
// "kind _id", sorted.
func found(t *testing.T, source, target []bson.Raw, limit int) []string {
	t.Helper()
	var differences []string
	c := comparison{
		limit:        limit,
		source:       &sliceStream{docs: source},
		target:       &sliceStream{docs: target},
		sourceLookup: lookupOf(t, source),
		targetLookup: lookupOf(t, target),
		report: func(kind Kind, id bson.RawValue) error {
			differences = append(differences, fmt.Sprintf("%s %s", kind, id))
			return nil
		},
		readSource: func(int) {}, readTarget: func() {},
	}
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(differences)
	return differences
}

func TestComparison(t *testing.T) {
	one, two, three := docOf(t, 1, 0), docOf(t, 2, 0), docOf(t, 3, 0)
	tests := []struct {
		name           string
		source, target []bson.Raw
		want           []string
	}{
		{name: "both empty"},
		{name: "equal", source: []bson.Raw{one, two, three}, target: []bson.Raw{one, two, three}},
		{name: "other order", source: []bson.Raw{one, two, three}, target: []bson.Raw{three, one, two}},
		{
			name: "missing first", source: []bson.Raw{one, two, three}, target: []bson.Raw{two, three},
			want: []string{`missing {"$numberInt":"1"}`},
		},
		{
			name: "destination empty", source: []bson.Raw{one, two},
			want: []string{`missing {"$numberInt":"1"}`, `missing {"$numberInt":"2"}`},
		},
		{
			name: "extra in the middle", source: []bson.Raw{one, three}, target: []bson.Raw{one, two, three},
			want: []string{`extra {"$numberInt":"2"}`},
		},
		{
			name: "source empty", target: []bson.Raw{one},
			want: []string{`extra {"$numberInt":"1"}`},
		},
		{
			name: "value", source: []bson.Raw{one, two}, target: []bson.Raw{one, docOf(t, 2, 9)},
			want: []string{`different {"$numberInt":"2"}`},
		},
		{
			name: "_id of another numeric type", source: []bson.Raw{one}, target: []bson.Raw{docOf(t, 1.0, 0)},
			want: []string{`different {"$numberDouble":"1.0"}`},
		},
		{
			name:   "_ids of several types",
			source: []bson.Raw{docOf(t, "a", 0), docOf(t, bson.D{{Key: "$x", Value: 1}}, 0), docOf(t, true, 1)},
			target: []bson.Raw{docOf(t, true, 0), docOf(t, bson.D{{Key: "$x", Value: 1}}, 0)},
			want:   []string{`different true`, `missing "a"`},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, limit := range []int{0, 100, windowBytes} {
				if diff := cmp.Diff(test.want, found(t, test.source, test.target, limit)); diff != "" {
					t.Errorf("window of %d bytes: differences (-want +got):\n%s", limit, diff)
				}
			}
		})
	}
}

// TestComparisonRandom holds the comparison against a comparison of two maps,
// with windows so small that most documents are settled by looking them up.
func TestComparisonRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		source, target := map[int]int{}, map[int]int{}
		for range random.IntN(60) {
			source[random.IntN(100)] = random.IntN(3)
		}
		maps.Copy(target, source)
		for range random.IntN(20) {
			id := random.IntN(100)
			switch random.IntN(3) {
			case 0:
				delete(target, id)
			default:
				target[id] = random.IntN(3)
			}
		}
		var want []string
		for id, value := range source {
			other, ok := target[id]
			switch {
			case !ok:
				want = append(want, fmt.Sprintf(`missing {"$numberInt":"%d"}`, id))
			case other != value:
				want = append(want, fmt.Sprintf(`different {"$numberInt":"%d"}`, id))
			}
		}
		for id := range target {
			if _, ok := source[id]; !ok {
				want = append(want, fmt.Sprintf(`extra {"$numberInt":"%d"}`, id))
			}
		}
		slices.Sort(want)
		got := found(t, documentsOf(t, random, source), documentsOf(t, random, target), random.IntN(600))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("differences (-want +got):\n%s", diff)
		}
	}
}

// documentsOf lists the documents in order, or now and then in none.
func documentsOf(t *testing.T, random *rand.Rand, values map[int]int) []bson.Raw {
	t.Helper()
	ids := slices.Sorted(maps.Keys(values))
	if random.IntN(4) == 0 {
		random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
	docs := make([]bson.Raw, 0, len(ids))
	for _, id := range ids {
		docs = append(docs, docOf(t, id, values[id]))
	}
	return docs
}

func TestSpansOf(t *testing.T) {
	var sampled []bson.Raw
	for i := range 3 * samplesPerRange {
		sampled = append(sampled, docOf(t, i, 0))
	}
	first, second := sampled[samplesPerRange], sampled[2*samplesPerRange]
	want := []span{{max: first}, {min: first, max: second}, {min: second}}
	if diff := cmp.Diff(want, spansOf(sampled), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]span{{}}, spansOf(nil), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("spans of nothing (-want +got):\n%s", diff)
	}
}
