package snapshot

import (
	"context"
	"sync"

	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/state"
)

// board is what this process knows of runs from following the state topic. It
// is for waiting and for showing progress; decisions are taken on what is loaded
// after a producer was obtained. It is safe for concurrent use.
type board struct {
	mu sync.Mutex
	// runs holds manifests and groups alone; chunks are summed up, since a run may
	// have very many.
	runs    *state.View
	chunks  *progress.Ledger
	changed chan struct{}
	// current says that everything that stood in the topic at the beginning is
	// known.
	current bool
}

func newBoard() *board {
	return &board{runs: state.NewView(), chunks: progress.NewLedger(), changed: make(chan struct{})}
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
		err = b.chunks.Apply(key, value)
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

// isCurrent notes that the topic was read to where it ended at the beginning.
func (b *board) isCurrent() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = true
	close(b.changed)
	b.changed = make(chan struct{})
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

// load sums up the latest run. Current is false as long as not everything that
// was there is known, ok as long as there is no run.
func (b *board) load() (m state.Manifest, f progress.Figures, current, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m, ok = b.runs.LatestRun(); ok {
		f = b.chunks.Read(&m)
	}
	return m, f, b.current, ok
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
	return func(b *board) bool { return b.chunks.Done(m.Run) == int64(m.Chunks) }
}
