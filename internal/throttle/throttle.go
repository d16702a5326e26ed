package throttle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are units per second; 0 is unlimited. What is negative counts as 0.
type Limits struct {
	// Queries are commands that read: find and getMore.
	Queries int64 `json:"queries"`
	// Documents are documents, or operations of changes.
	Documents int64 `json:"documents"`
	Bytes     int64 `json:"bytes"`
}

// Unlimited reports whether nothing is limited.
func (l Limits) Unlimited() bool { return l.Queries <= 0 && l.Documents <= 0 && l.Bytes <= 0 }

// kept is for how long units are kept that nobody takes.
const kept = 200 * time.Millisecond

// The units that are limited.
const (
	queries = iota
	documents
	bytes
	units
)

// Limiter makes work wait for its budget. A nil Limiter limits nothing. All
// methods are safe for concurrent use.
type Limiter struct {
	// turn is held by the one that waits for its units; the others queue for it
	// in the order of their coming.
	turn chan struct{}
	free atomic.Bool

	mu      sync.Mutex
	limits  Limits
	share   int
	changed chan struct{}
	// have counts the units that have come and were not taken, as of then; want
	// is what the one with the turn waits for.
	have, want [units]float64
	then       time.Time
}

// New returns a limiter with these limits. Its first units have come already.
func New(limits Limits) *Limiter {
	l := &Limiter{turn: make(chan struct{}, 1), share: 1, changed: make(chan struct{}), limits: limits, then: time.Now()}
	l.free.Store(limits.Unlimited())
	for u := range l.have {
		l.have[u] = l.mostKept(u)
	}
	return l
}

// Set replaces the limits. Who waits feels it at once.
func (l *Limiter) Set(limits Limits) { l.change(func() { l.limits = limits }) }

// Share says that the limits are those of n limiters together, of which this
// one takes an equal part; less than 1 counts as 1.
func (l *Limiter) Share(n int) { l.change(func() { l.share = max(n, 1) }) }

func (l *Limiter) change(set func()) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(time.Now()) // until now the former limits hold
	limits, share := l.limits, l.share
	set()
	if l.limits == limits && l.share == share {
		return
	}
	l.free.Store(l.limits.Unlimited())
	close(l.changed)
	l.changed = make(chan struct{})
}

// Limits returns the limits that were set last, not divided.
func (l *Limiter) Limits() Limits {
	if l == nil {
		return Limits{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits
}

// Wait blocks until that much work is due, and takes its units. Work larger
// than a second's budget is due after as many seconds as it needs. The error is
// ctx's; then nothing was taken.
func (l *Limiter) Wait(ctx context.Context, docs, size int64) error {
	return l.wait(ctx, nil, [units]float64{documents: float64(docs), bytes: float64(size)})
}

// WaitOr is Wait for work that is done already: it ends without an error when
// ctx ends or stop is closed, whichever comes first.
func (l *Limiter) WaitOr(ctx context.Context, stop <-chan struct{}, docs, size int64) {
	// The error says no more than that nothing was taken.
	_ = l.wait(ctx, stop, [units]float64{documents: float64(docs), bytes: float64(size)})
}

// WaitQuery blocks until one query is due. The error is ctx's; then nothing was
// taken.
func (l *Limiter) WaitQuery(ctx context.Context) error {
	return l.wait(ctx, nil, [units]float64{queries: 1})
}

func (l *Limiter) wait(ctx context.Context, stop <-chan struct{}, want [units]float64) error {
	if l == nil || l.free.Load() {
		return ctx.Err()
	}
	select {
	case l.turn <- struct{}{}:
	case <-stop:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	l.begin(want)
	defer l.end()
	for {
		wait, changed := l.take()
		if wait == 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-stop:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// begin takes note of what the one with the turn waits for: only that much more
// is kept.
func (l *Limiter) begin(want [units]float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(time.Now())
	l.want = want
}

// end lets go what was kept for somebody who gave up.
func (l *Limiter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = [units]float64{}
	l.advance(time.Now())
}

// take takes the units if they have come; otherwise it says how long that needs
// with the present limits.
func (l *Limiter) take() (wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(time.Now())
	for u, want := range l.want {
		rate := l.rate(u)
		if missing := want - l.have[u]; rate > 0 && missing > 0 {
			wait = max(wait, waitFor(missing, rate))
		}
	}
	if wait > 0 {
		return wait, l.changed
	}
	for u, want := range l.want {
		l.have[u] = max(l.have[u]-want, 0)
	}
	return 0, nil
}

// longest bounds one wait, so that it can be counted; it is then gone on with.
const longest = time.Hour

// waitFor is how long missing units need, rounded up: a timer that ends early
// would be followed by another.
func waitFor(missing, rate float64) time.Duration {
	seconds := missing / rate
	if seconds >= longest.Seconds() {
		return longest
	}
	return time.Duration(seconds*float64(time.Second)) + time.Microsecond
}

// advance adds the units that came since the last time. No more are kept than
// somebody waits for, or a short while's.
func (l *Limiter) advance(now time.Time) {
	passed := max(now.Sub(l.then), 0)
	l.then = now
	for u := range l.have {
		l.have[u] = min(l.have[u]+l.rate(u)*passed.Seconds(), max(l.mostKept(u), l.want[u]))
	}
}

// mostKept is how many units are kept for nobody: at least one, or a limit of
// few units would be missed by every delay.
func (l *Limiter) mostKept(unit int) float64 { return max(l.rate(unit)*kept.Seconds(), 1) }

// rate is this limiter's part of a limit, in units per second; 0 is unlimited.
func (l *Limiter) rate(unit int) float64 {
	var limit int64
	switch unit {
	case queries:
		limit = l.limits.Queries
	case documents:
		limit = l.limits.Documents
	case bytes:
		limit = l.limits.Bytes
	}
	return max(float64(limit), 0) / float64(l.share)
}
