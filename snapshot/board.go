package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/tributarydb/tributary/internal/state"
)

// board is what this process knows of runs from following the state topic. It
// is for waiting and for showing progress; decisions are taken on what is loaded
// after a producer was obtained. It is safe for concurrent use.
type board struct {
	mu sync.Mutex
	// runs holds manifests and groups alone; chunks and sums are kept up record by
	// record, since a run may have very many chunks.
	runs    *state.View
	chunks  map[string]sums
	sums    map[string]sums
	changed chan struct{}
}

// sums are those of one chunk or of one run's chunks.
type sums struct {
	run                    string
	documents, bytes, done int64
}

func (s sums) plus(o sums, sign int64) sums {
	s.documents += sign * o.documents
	s.bytes += sign * o.bytes
	s.done += sign * o.done
	return s
}

func newBoard() *board {
	return &board{runs: state.NewView(), chunks: map[string]sums{}, sums: map[string]sums{}, changed: make(chan struct{})}
}

// apply takes over one record of the state topic.
func (b *board) apply(key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	switch {
	case state.IsRun(key):
		err = b.runs.Apply(key, value)
	case state.IsChunk(key):
		err = b.applyChunk(key, value)
	case state.IsGroup(key):
		err = b.runs.Apply(key, value)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

func (b *board) applyChunk(key string, value []byte) error {
	var now sums
	if value != nil {
		var p state.ChunkProgress
		if err := json.Unmarshal(value, &p); err != nil {
			return fmt.Errorf("decode state record key=%s: %w", key, err)
		}
		now = sums{run: p.Run, documents: p.Documents, bytes: p.Bytes}
		if p.Done {
			now.done = 1
		}
	}
	former := b.chunks[key]
	b.sums[former.run] = b.sums[former.run].plus(former, -1)
	b.sums[now.run] = b.sums[now.run].plus(now, 1)
	b.chunks[key] = now
	return nil
}

// wait blocks until condition holds. It runs under the board's lock.
func (b *board) wait(ctx context.Context, condition func(*board) bool) error {
	for {
		b.mu.Lock()
		ok, changed := condition(b), b.changed
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
	sums
	state                              string
	chunks                             int64
	estimatedDocuments, estimatedBytes int64
}

// totals sums up the latest run; ok is false as long as there is none.
func (b *board) totals() (t totals, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.runs.LatestRun()
	if !ok {
		return totals{}, false
	}
	t = totals{sums: b.sums[m.Run], state: m.State, chunks: int64(m.Chunks)}
	for i := range m.Collections {
		t.estimatedDocuments += m.Collections[i].EstimatedDocuments
		t.estimatedBytes += m.Collections[i].EstimatedBytes
	}
	return t, true
}

// loading returns the latest run and the groups that there are.
func (b *board) loading() (state.Manifest, []state.GroupRegistration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, _ := b.runs.LatestRun()
	return m, b.runs.Groups()
}

// begun holds when there is a run.
func begun(b *board) bool {
	_, ok := b.runs.LatestRun()
	return ok
}

// loaded holds when every chunk of the run is done.
func loaded(m *state.Manifest) func(*board) bool {
	return func(b *board) bool { return b.sums[m.Run].done == int64(m.Chunks) }
}
