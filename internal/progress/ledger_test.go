package progress

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
)

// put shows the ledger a chunk.
func put(t *testing.T, l *Ledger, number int32, documents int64, done bool) {
	t.Helper()
	value, err := json.Marshal(state.ChunkProgress{Run: "r", Chunk: number, Documents: documents, Bytes: 10 * documents, Done: done})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(state.KeyChunk("r", number), value); err != nil {
		t.Fatal(err)
	}
}

// shop is a run of two collections, a view and a collection that a destination
// leaves out: chunks 0 to 2, 3, none and 4.
func shop() *state.Manifest {
	m := &state.Manifest{Run: "r", Started: time.Unix(1, 0).UTC(), Chunks: 5, SnapshotOffsets: []int64{0, 0}, Collections: []state.Collection{
		{DB: "shop", Coll: "orders", Chunks: 3, EstimatedDocuments: 12, EstimatedBytes: 120},
		{DB: "shop", Coll: "seen", View: true},
		{DB: "shop", Coll: "users", Chunks: 1, EstimatedDocuments: 5, EstimatedBytes: 50},
		{DB: "shop", Coll: "audit", Chunks: 1, EstimatedDocuments: 1000, EstimatedBytes: 10_000},
	}}
	return m
}

func wanted(ns event.Namespace) bool { return ns.Coll != "audit" }

// figure is one of the shop's, its bytes ten times its documents.
func figure(coll string, done, total, chunks, allChunks int64) Figure {
	return Figure{
		NS: event.Namespace{DB: "shop", Coll: coll}, Documents: state.Share{Done: done, Total: total},
		Bytes: state.Share{Done: 10 * done, Total: 10 * total}, Chunks: state.Share{Done: chunks, Total: allChunks},
	}
}

func TestLoaded(t *testing.T) {
	type chunk struct {
		number    int32
		documents int64
		done      bool
	}
	place := func(number int32, documents int64) Place {
		return Place{Chunk: number, Amount: Amount{documents, 10 * documents}}
	}
	over := Place{Chunk: 4, Loaded: true}
	for _, test := range []struct {
		name   string
		read   []chunk
		places []Place
		// orders and users are what is done and expected of both.
		documents, chunks, collections state.Share
		active                         []Figure
		percent                        float64
	}{
		{"nothing", nil, []Place{{}, {}}, state.Share{Total: 17}, state.Share{Total: 4}, state.Share{Total: 2}, nil, 0},
		{
			"read, not loaded",
			[]chunk{{0, 2, true}, {1, 3, false}},
			[]Place{{}, {}},
			state.Share{Total: 15},
			state.Share{Total: 4},
			state.Share{Total: 2},
			nil, 0,
		},
		{
			"a part of a chunk",
			[]chunk{{0, 4, true}, {1, 2, false}},
			[]Place{place(0, 3), {}},
			state.Share{Done: 3, Total: 17},
			state.Share{Total: 4},
			state.Share{Total: 2},
			[]Figure{figure("orders", 3, 12, 0, 3)},
			300. / 17,
		},
		{
			"a chunk of more than was expected",
			[]chunk{{0, 40, false}},
			[]Place{place(0, 40), {}},
			state.Share{Done: 40, Total: 53},
			state.Share{Total: 4},
			state.Share{Total: 2},
			[]Figure{figure("orders", 40, 48, 0, 3)},
			4000. / 53,
		},
		{
			"loaded before it is known as read", nil,
			[]Place{place(0, 9), {}},
			state.Share{Done: 9, Total: 22},
			state.Share{Total: 4},
			state.Share{Total: 2},
			[]Figure{figure("orders", 9, 17, 0, 3)},
			900. / 22,
		},
		{
			"the others of one partition",
			[]chunk{{0, 4, true}, {1, 4, true}, {2, 2, true}, {3, 5, true}, {4, 7, false}},
			[]Place{place(4, 7), place(3, 2)},
			state.Share{Done: 12, Total: 15},
			state.Share{Done: 3, Total: 4},
			state.Share{Done: 1, Total: 2},
			[]Figure{figure("users", 2, 5, 0, 1)},
			80,
		},
		{
			"all, and a collection that became empty",
			[]chunk{{0, 4, true}, {1, 4, true}, {2, 2, true}, {3, 0, true}, {4, 7, false}},
			[]Place{over, over},
			state.Share{Done: 10, Total: 10},
			state.Share{Done: 4, Total: 4},
			state.Share{Done: 2, Total: 2},
			nil, 100,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := NewLedger()
			for _, c := range test.read {
				put(t, l, c.number, c.documents, c.done)
			}
			got := l.Loaded(shop(), wanted, test.places)
			ten := func(s state.Share) state.Share { return state.Share{Done: 10 * s.Done, Total: 10 * s.Total} }
			want := Figures{Documents: test.documents, Bytes: ten(test.documents), Chunks: test.chunks, Collections: test.collections, Active: test.active}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("figures (-want +got):\n%s", diff)
			}
			if p := percent(got.Documents, got.Bytes, got.Chunks); p != test.percent {
				t.Errorf("%v percent, want %v", p, test.percent)
			}
		})
	}
}

func TestLedgerCountsChunks(t *testing.T) {
	l := NewLedger()
	put(t, l, 0, 1, true)
	put(t, l, 0, 1, true)
	put(t, l, 1, 1, true)
	put(t, l, 1, 1, false) // the topic is read from its start again
	if got := l.Done("r"); got != 1 || l.Done("other") != 0 {
		t.Errorf("%d chunks are done, want 1", got)
	}
	if err := l.Apply(state.KeyChunk("r", 0), nil); err != nil || l.Done("r") != 0 {
		t.Errorf("after a removal %d are done: %v", l.Done("r"), err)
	}
	for key, value := range map[string]string{state.KeyChunk("r", 0): "{", state.KeyChunk("r", 0) + "x": "{}"} {
		if err := l.Apply(key, []byte(value)); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is taken: %v", key, err)
		}
	}
	if err := l.Apply(state.KeyPosition(), []byte("{")); err != nil {
		t.Error(err)
	}
}

// Whatever chunks turn out to hold, a load never runs backwards, nor over its
// end, and somebody who begins to look in between sees the same.
func TestNeverBackwards(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		m := &state.Manifest{Run: "r"}
		var held []int64
		for i := range 1 + random.IntN(5) {
			c := state.Collection{DB: "d", Coll: strconv.Itoa(i), Chunks: 1 + random.Int32N(4), EstimatedDocuments: random.Int64N(50)}
			c.EstimatedBytes = c.EstimatedDocuments * random.Int64N(20)
			m.Collections = append(m.Collections, c)
			m.Chunks += c.Chunks
			for range c.Chunks {
				held = append(held, random.Int64N(30))
			}
		}
		l, read, last := NewLedger(), make([]int64, len(held)), 0.0
		for ended := 0; ended < len(held); {
			i := random.IntN(len(held))
			if read[i] < 0 {
				continue
			}
			if read[i] == held[i] {
				put(t, l, int32(i), held[i], true)
				read[i] = -1
				ended++
			} else {
				read[i]++
				put(t, l, int32(i), read[i], false)
			}
			f := l.Read(m)
			now := percent(f.Documents, f.Bytes, f.Chunks)
			if now < last || now > 100 || (now == 100) != (ended == len(held)) || f.Documents.Done > f.Documents.Total || f.Bytes.Done > f.Bytes.Total {
				t.Fatalf("seed %d: from %v to %v percent with %d of %d chunks done: %+v", seed, last, now, ended, len(held), f)
			}
			last = now
		}
	}
}
