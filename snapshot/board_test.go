package snapshot

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/state"
)

func TestBoard(t *testing.T) {
	b := newBoard()
	put := func(key string, v any) {
		t.Helper()
		var value []byte
		if v != nil {
			var err error
			if value, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.apply(key, value); err != nil {
			t.Fatal(err)
		}
	}
	chunk := func(run string, n int32, documents int64, done bool) {
		t.Helper()
		put(state.KeyChunk(run, n), state.ChunkProgress{Run: run, Chunk: n, Documents: documents, Bytes: 10 * documents, Done: done})
	}
	if _, _, _, ok := b.load(); ok || begun(b) {
		t.Error("there is a run before there is one")
	}
	m := state.Manifest{
		Run: "b", State: state.RunLoading, Started: time.Unix(2, 0), Chunks: 2,
		Collections: []state.Collection{
			{DB: "x", Coll: "y", Chunks: 1, EstimatedDocuments: 5, EstimatedBytes: 50}, {DB: "x", Coll: "z", Chunks: 1, EstimatedDocuments: 6, EstimatedBytes: 60},
		},
	}
	put(state.KeyRun("a"), state.Manifest{Run: "a", State: state.RunComplete, Started: time.Unix(1, 0)})
	put(state.KeyRun("b"), m)
	chunk("a", 0, 100, true)
	chunk("b", 0, 3, false)
	chunk("b", 1, 4, true)
	chunk("b", 0, 7, true)
	if !loaded(&m)(b) {
		t.Error("not loaded although every chunk is done")
	}
	// The topic is followed from its start again: earlier values come back.
	chunk("b", 0, 3, false)
	put(state.KeyStatus("snapshot", "x"), state.Status{})
	if loaded(&m)(b) {
		t.Error("loaded although a chunk is not done")
	}
	_, got, _, _ := b.load()
	want := progress.Figures{
		Documents: state.Share{Done: 7, Total: 9}, Bytes: state.Share{Done: 70, Total: 90}, Chunks: state.Share{Done: 1, Total: 2}, Collections: state.Share{Done: 1, Total: 2},
		Active: []progress.Figure{{
			NS: event.Namespace{DB: "x", Coll: "y"}, Documents: state.Share{Done: 3, Total: 5}, Bytes: state.Share{Done: 30, Total: 50}, Chunks: state.Share{Total: 1},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	put(state.KeyChunk("b", 1), nil)
	if _, got, _, _ := b.load(); got.Documents.Done != 3 || got.Chunks.Done != 0 {
		t.Errorf("after a removal: %+v", got)
	}
	if err := b.apply(state.KeyChunk("b", 1), []byte("{")); err == nil {
		t.Error("a broken record is taken")
	}
}
