package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrGaveUp is returned, wrapped, when a retry window is over: the failure may
// pass, and a later start begins a window of its own.
var ErrGaveUp = errors.New("give up")

// Verdict says what to do about an error.
type Verdict int

const (
	// Stop gives up at once: trying again cannot help.
	Stop Verdict = iota
	// Now tries again without waiting; several in a row wait as Other does.
	Now
	// Connection tries again within the connection window.
	Connection
	// Other tries again within the window of all other errors.
	Other
)

// String names the verdict for messages.
func (v Verdict) String() string {
	switch v {
	case Stop:
		return "stop"
	case Now:
		return "now"
	case Connection:
		return "connection"
	case Other:
		return "other"
	}
	return fmt.Sprintf("verdict(%d)", int(v))
}

// The defaults of a Policy.
const (
	DefaultConnection = 12 * time.Hour
	DefaultOther      = 10 * time.Minute
	DefaultMaxBackoff = 30 * time.Second
)

const (
	minBackoff = 100 * time.Millisecond
	// quickRetries is how many verdicts Now in a row are obeyed literally.
	quickRetries = 3
	// longTries is how many tries in a row may open the window anew because
	// they went well for as long as it lasts.
	longTries = 10
	// longTry is the shortest such try: windows shorter than that are about
	// tries that wait, not about work.
	longTry = time.Minute
)

// Policy bounds retries. It is a value, safe to copy and to share.
type Policy struct {
	// Connection is the window of Connection verdicts; zero means that the
	// first such error is final.
	Connection time.Duration
	// Other is the window of Other verdicts (and of Now in a row); zero
	// means that the first such error is final.
	Other time.Duration
	// MaxBackoff caps the wait between two tries; zero means
	// DefaultMaxBackoff.
	MaxBackoff time.Duration
	// OnRetry, if set, is called before each wait, on the goroutine of Do. It
	// must not block.
	OnRetry func(Attempt)
}

// Attempt describes a failure that will be tried again.
type Attempt struct {
	// Err is the failure.
	Err error
	// Verdict is what the classify function said of it.
	Verdict Verdict
	// Since is when the window opened, Until when it closes.
	Since, Until time.Time
	// Wait is how long the operation rests before the next try.
	Wait time.Duration
}

// Default returns the policy of an unconfigured service.
func Default() Policy {
	return Policy{Connection: DefaultConnection, Other: DefaultOther, MaxBackoff: DefaultMaxBackoff}
}

// Do calls fn until it succeeds, until classify says Stop or until the window
// of its errors closes; it blocks meanwhile, on the caller's goroutine. The
// returned error wraps fn's last one and, after a window, names it; the end of
// ctx ends Do at once with an error that is ctx's.
func (p Policy) Do(ctx context.Context, classify func(error) Verdict, fn func(context.Context) error) error {
	return p.Loop(ctx, classify, func(ctx context.Context, _ func()) error { return fn(ctx) })
}

// Loop is Do for an operation that works for a long time before it fails, as
// following a stream does: fn calls alive whenever it got something done, and
// that closes the window, so that only failures without any success between
// them count. Alive must be called on fn's own goroutine.
func (p Policy) Loop(ctx context.Context, classify func(error) Verdict, fn func(ctx context.Context, alive func()) error) error {
	w := window{policy: p}
	for {
		started := time.Now()
		err := fn(ctx, w.reset)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ended(ctx, err)
		}
		attempt, giveUp := w.fail(err, classify(err), started, time.Now())
		if giveUp != nil {
			return giveUp
		}
		if p.OnRetry != nil {
			p.OnRetry(attempt)
		}
		if !sleep(ctx, attempt.Wait) {
			return ended(ctx, err)
		}
	}
}

// window counts the failures since the last success.
type window struct {
	policy   Policy
	failures int
	quick    int
	// since is the first failure, otherSince the first of an unbroken row of
	// other errors: an outage of hours that ends in another error must not use
	// up that error's shorter window.
	since, otherSince time.Time
	// long counts tries that lasted longer than the window.
	long int
}

func (w *window) reset() { *w = window{policy: w.policy} }

// fail counts a failure and says how to go on, or returns the final error.
func (w *window) fail(err error, verdict Verdict, started, now time.Time) (Attempt, error) {
	if verdict == Stop {
		return Attempt{}, err
	}
	w.apart(verdict, now.Sub(started))
	if w.since.IsZero() {
		w.since = now
	}
	if verdict == Connection {
		w.otherSince = time.Time{}
	} else if w.otherSince.IsZero() {
		w.otherSince = now
	}
	since, bound := w.since, w.policy.Connection
	if verdict != Connection {
		since, bound = w.otherSince, w.policy.Other
	}
	if bound <= 0 {
		return Attempt{}, err
	}
	until := since.Add(bound)
	if !now.Before(until) {
		return Attempt{}, fmt.Errorf("%w after %s of failures (retry window for %s errors is %s): %w",
			ErrGaveUp, now.Sub(since).Round(time.Second), kind(verdict), bound, err)
	}
	wait := min(w.wait(verdict), until.Sub(now))
	return Attempt{Err: err, Verdict: verdict, Since: since, Until: until, Wait: wait}, nil
}

// apart opens the window anew when the try went well for as long as the window
// is: failures that far apart are no row of them, though nobody called alive.
func (w *window) apart(verdict Verdict, lasted time.Duration) {
	bound := w.policy.Other
	if verdict == Connection {
		bound = w.policy.Connection
	}
	if w.since.IsZero() || lasted < max(bound, longTry) || w.long >= longTries {
		return
	}
	w.long++
	w.failures, w.quick, w.since, w.otherSince = 0, 0, time.Time{}, time.Time{}
}

// wait is the time before the next try: exponential from minBackoff, capped,
// with the upper half of it random so that many clients do not knock together.
func (w *window) wait(verdict Verdict) time.Duration {
	if verdict == Now && w.quick < quickRetries {
		w.quick++
		return 0
	}
	if verdict != Now {
		w.quick = 0
	}
	limit := w.policy.MaxBackoff
	if limit <= 0 {
		limit = DefaultMaxBackoff
	}
	backoff := limit
	if w.failures < 30 { // beyond, the shift would overflow
		backoff = min(minBackoff<<w.failures, limit)
	}
	w.failures++
	return backoff/2 + rand.N(backoff/2+1)
}

func kind(v Verdict) string {
	if v == Connection {
		return "connection"
	}
	return "other"
}

// ended is the error of an operation that ctx ended: ctx's own, with the last
// failure for the reader unless that is the same news.
func ended(ctx context.Context, last error) error {
	if errors.Is(last, ctx.Err()) {
		return last
	}
	return fmt.Errorf("%w (last error: %w)", ctx.Err(), last)
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
