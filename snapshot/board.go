package snapshot

import (
	"context"
	"sync"

	"github.com/tributarydb/tributary/internal/state"
)

// board is what this process knows of the run from following the state topic.
// It is for waiting and for showing progress; decisions are taken on what is
// loaded after a producer was obtained. It is safe for concurrent use.
type board struct {
	mu      sync.Mutex
	view    *state.View
	changed chan struct{}
}

func newBoard() *board {
	return &board{view: state.NewView(), changed: make(chan struct{})}
}

// apply takes over one record of the state topic.
func (b *board) apply(key string, value []byte) error {
	if !state.IsRun(key) && !state.IsChunk(key) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.view.Apply(key, value); err != nil {
		return err
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// wait blocks until condition holds. It runs under the board's lock.
func (b *board) wait(ctx context.Context, condition func(*state.View) bool) error {
	for {
		b.mu.Lock()
		ok, changed := condition(b.view), b.changed
		b.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// totals of a run.
type totals struct {
	run                      string
	state                    string
	chunks, chunksDone       int64
	documents, bytes         int64
	totalDocuments, allBytes int64
}

// totals sums up the latest run; ok is false as long as there is none.
func (b *board) totals() (t totals, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.view.LatestRun()
	if !ok {
		return totals{}, false
	}
	t = totals{run: m.Run, state: m.State, chunks: int64(m.Chunks)}
	for i := range m.Collections {
		t.totalDocuments += m.Collections[i].EstimatedDocuments
		t.allBytes += m.Collections[i].EstimatedBytes
	}
	for _, p := range b.view.Chunks(m.Run) {
		t.documents += p.Documents
		t.bytes += p.Bytes
		if p.Done {
			t.chunksDone++
		}
	}
	return t, true
}

// begun holds when there is a run.
func begun(v *state.View) bool {
	_, ok := v.LatestRun()
	return ok
}

// ended holds when the latest run is complete or has failed.
func ended(v *state.View) bool {
	m, ok := v.LatestRun()
	return ok && m.State != state.RunLoading
}

// loaded holds when every chunk of the run is done.
func loaded(m *state.Manifest) func(*state.View) bool {
	return func(v *state.View) bool {
		var done int32
		for _, p := range v.Chunks(m.Run) {
			if p.Done && p.Chunk < m.Chunks {
				done++
			}
		}
		return done == m.Chunks
	}
}
