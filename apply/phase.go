package apply

import (
	"context"
	"sync"
)

// phases tells the workers of this process what the group's record says.
type phases struct {
	mu      sync.Mutex
	record  groupRecord
	known   bool
	changed chan struct{}
}

func newPhases() *phases { return &phases{changed: make(chan struct{})} }

// publish makes a record known. A record never goes back.
func (p *phases) publish(g groupRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record, p.known = g, true
	close(p.changed)
	p.changed = make(chan struct{})
}

// current returns the last record and a channel that closes with the next.
func (p *phases) current() (g groupRecord, known bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record, p.known, p.changed
}

// wait blocks until the record is as ready wants it, stop closes or ctx ends; ok
// tells the first.
func (p *phases) wait(ctx context.Context, stop <-chan struct{}, ready func(*groupRecord) bool) (g groupRecord, ok bool) {
	for {
		g, known, changed := p.current()
		if known && ready(&g) {
			return g, true
		}
		select {
		case <-changed:
		case <-stop:
			return groupRecord{}, false
		case <-ctx.Done():
			return groupRecord{}, false
		}
	}
}
