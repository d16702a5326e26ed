package capture

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
)

const (
	// hotTries is after how many rounds that a document's own events disturbed
	// the stream is held for it.
	hotTries = 3
	// heldDocuments bounds what is read while the stream is held.
	heldDocuments = 100
	// heldBatches, heldTime and half of the queue's bytes bound how long.
	heldBatches = 32
	heldTime    = 3 * time.Second
	// firstBackoff is the wait after the first failure of a read.
	firstBackoff = 200 * time.Millisecond
)

// refresher publishes whole documents where they were asked for. It belongs to
// the publisher and runs on its goroutine: it decides at which place of the
// stream an image is exactly the state. One round is under way at a time.
//
// A round begins at the place P that is published, has documents read that are
// at P or later, and is completed at the first place at or behind the read's
// operation time R: there it publishes the images of the documents that no
// event came for since P. The others are read again. A document that is never
// left alone is published by a round that holds the stream at P: as the state at
// P, where the source can still tell it, else, once the stream has been looked
// at through R, as the state as of R.
type refresher struct {
	*requests
	publisher *publisher
	retry     retry.Policy
	jobs      chan<- job
	results   <-chan result
	commands  <-chan command

	round *round
	// held are batches that were looked at and not published.
	held      []*batch
	heldBytes int64
	heldSince time.Time
	// images are the bytes of documents in the open transaction.
	images int
	// stopping says that no more rounds begin.
	stopping bool
}

// intake returns where batches come from at present: nowhere while a collection
// is scanned at one place of the stream.
func (f *refresher) intake(ordered <-chan *batch) <-chan *batch {
	if f.scanning() {
		return nil
	}
	return ordered
}

// asked returns where requests come from at present: nowhere while as many as
// may be are pending.
func (f *refresher) asked() <-chan command {
	if f.full() {
		return nil
	}
	return f.commands
}

func (f *refresher) scanning() bool { return f.round != nil && f.round.job.scan != nil }

// arrived takes a batch that is encoded: it is published, or held while a round
// holds the stream.
func (f *refresher) arrived(ctx context.Context, b *batch) error {
	if f.round == nil || !f.round.hold {
		return f.publisher.publish(ctx, b)
	}
	f.round.see(b)
	f.held = append(f.held, b)
	f.heldBytes += b.cost
	return nil
}

// observe takes note of a batch that is about to be published.
func (f *refresher) observe(b *batch) {
	if len(f.byID) > 0 {
		for i := range b.ddl {
			n := namingOf(&b.ddl[i].event)
			f.requests.observe(&n)
		}
	}
	if f.round != nil && !f.round.hold {
		f.round.see(b)
	}
}

// answered takes the reader's result of the round under way.
func (f *refresher) answered(res result) {
	if f.round != nil {
		f.round.result = &res
	}
}

// step goes on with what can be gone on with. It does not wait for the source.
func (f *refresher) step(ctx context.Context) error {
	for {
		more, err := f.advance(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	f.warnPostponed()
	f.publisher.metrics.pending.Set(float64(len(f.byID)))
	if len(f.changed) > 0 {
		return f.publisher.producer.begin()
	}
	return nil
}

// advance completes the round under way, or begins one. It reports whether
// there may be more to do.
func (f *refresher) advance(ctx context.Context) (bool, error) {
	r := f.round
	switch {
	case r == nil:
		return f.begin(time.Now()), nil
	case r.result != nil && (r.result.err != nil || f.reached(r)):
		err := f.complete(ctx, r)
		if err == nil && (f.round == nil || !f.round.hold) {
			err = f.release(ctx)
		}
		return true, err
	case r.hold && !f.scanning() && f.heldEnough():
		// The stream goes on; documents that change are tried again.
		r.hold = false
		return false, f.release(ctx)
	default:
		return false, nil
	}
}

// reached reports whether the stream was looked at through what the read saw.
func (f *refresher) reached(r *round) bool {
	through := r.through
	if !r.hold {
		through = f.publisher.marks.passed
		if !f.whole() {
			return false
		}
	}
	return r.job.scan != nil || event.CompareTimes(through, r.result.through) >= 0
}

// whole reports whether what is published ends with a whole cluster time: the
// source has no states in between.
func (f *refresher) whole() bool {
	return !f.publisher.marks.held && event.CompareTimes(f.publisher.marks.passed, f.publisher.position.Time) >= 0
}

func (f *refresher) heldEnough() bool {
	return len(f.held) >= heldBatches || f.heldBytes >= f.publisher.cfg.QueueBytes/2 || time.Since(f.heldSince) >= heldTime
}

// release publishes what was held.
func (f *refresher) release(ctx context.Context) error {
	held := f.held
	f.held, f.heldBytes = nil, 0
	for _, b := range held {
		if err := f.publisher.publish(ctx, b); err != nil {
			return err
		}
		if err := f.publisher.commitIfDue(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop gives the round under way up, so that what was read can be committed.
// The requests stay pending for the next life.
func (f *refresher) stop(ctx context.Context) error {
	f.stopping, f.round = true, nil
	return f.release(ctx)
}

// committed notes that the open transaction counts.
func (f *refresher) committed() {
	f.written()
	f.images = 0
}

// begin begins a round for the first request that may have one.
func (f *refresher) begin(now time.Time) bool {
	if f.stopping || len(f.queue) == 0 || !f.whole() {
		return false
	}
	for _, q := range f.queue { // next does not change it
		if now.Before(q.notBefore) || f.postponed(q) {
			continue
		}
		f.round = f.next(q)
		f.round.job.after = f.publisher.position.Time
		if f.round.job.query != nil {
			f.round.job.query.after = f.round.job.after
		}
		f.round.through = f.publisher.marks.passed
		f.heldSince = now
		f.jobs <- f.round.job // there is room: the last one was answered
		return false
	}
	return false
}

// next returns the next round for a request.
func (f *refresher) next(q *request) *round {
	if q.at == nil && q.Kind == state.RequestRefresh {
		q.at = f.known(q)
	}
	switch {
	case q.Kind == state.RequestSelect:
		return &round{job: job{list: true}, of: []*request{q}}
	case q.at == nil, q.Kind == state.RequestReload && q.Reload == nil:
		return &round{job: job{locate: q.Now, uuid: q.UUID}, of: []*request{q}}
	case q.Kind == state.RequestRefresh:
		return f.documents(q)
	default:
		return reloadRound(q)
	}
}

// known returns where a collection is if another request has had it located.
func (f *refresher) known(q *request) *located {
	for _, other := range f.queue {
		if other.at != nil && other.UUID == q.UUID && (other.Now == q.Now || !q.UUID.IsZero() && other.Now.DB == q.Now.DB) {
			return other.at
		}
	}
	return nil
}

// complete ends the round at this place of the stream.
func (f *refresher) complete(ctx context.Context, r *round) error {
	f.round = nil
	if err := r.result.err; err != nil {
		return f.failed(ctx, r, err)
	}
	for _, q := range r.of {
		q.failing, q.notBefore, q.failures = time.Time{}, time.Time{}, 0
	}
	switch {
	case r.job.scan != nil:
		return f.scanned(ctx, r)
	case r.job.list:
		return f.added(r)
	case r.job.query == nil:
		return f.located(ctx, r)
	case r.moved(r.job.query.at.NS, r.job.query.at.UUID):
		f.again(r)
		return nil
	case r.job.query.ids == nil:
		return f.rangeRead(ctx, r)
	default:
		return f.documentsRead(ctx, r)
	}
}

// again puts the requests of a round that came to nothing back.
func (f *refresher) again(r *round) {
	f.publisher.metrics.discarded.Inc()
	for _, q := range r.of {
		q.tries++
		f.later(q)
	}
}

// failed puts the requests of a round whose read failed off, and refuses them
// once that has lasted for the retry window of the error.
func (f *refresher) failed(ctx context.Context, r *round, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	verdict, now := classify(err), time.Now()
	window := f.retry.Other
	if verdict == retry.Connection {
		window = f.retry.Connection
	}
	for _, q := range r.of {
		if f.byID[q.ID] != q {
			continue // refused meanwhile
		}
		if q.failing.IsZero() {
			q.failing = now
		}
		if verdict == retry.Stop || now.Sub(q.failing) >= window && !errors.Is(err, errMoved) {
			f.reject(q, err.Error())
			continue
		}
		q.at = nil // whatever is wrong, look anew
		q.notBefore = now.Add(min(firstBackoff<<min(q.failures, 10), cmp.Or(f.retry.MaxBackoff, retry.DefaultMaxBackoff)))
		q.failures++
		f.later(q)
		f.log.Warn().Err(err).Str(logfield.Request, q.ID).Stringer(logfield.Namespace, q.Now).Msg("documents that were asked for cannot be read; trying again")
	}
	return nil
}

// located takes over where a request's collection is. A reload begins here:
// options and indexes are those of this place, since no DDL came.
func (f *refresher) located(ctx context.Context, r *round) error {
	q, found := r.of[0], r.result.found
	if f.byID[q.ID] != q {
		return nil
	}
	if found == nil {
		if r.altered(q.Now, q.UUID) {
			f.again(r)
		} else {
			f.reject(q, "the collection does not exist")
		}
		return nil
	}
	if r.moved(found.NS, found.UUID) || q.Kind == state.RequestReload && r.altered(found.NS, found.UUID) {
		f.again(r)
		return nil
	}
	if cause := found.unservable(f.publisher.cfg.Select.Match); cause != "" {
		f.reject(q, cause)
		return nil
	}
	q.at, q.tries = found, 0
	if q.Kind == state.RequestRefresh || q.Reload != nil && q.Reload.UUID == found.UUID && q.Now == found.NS && !found.natural() {
		return nil
	}
	return f.reload(ctx, q)
}
