package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lostPause is how long a worker that lost its partition waits before it claims
// it again, if the group still says that it is the owner.
const lostPause = 2 * time.Second

// worker applies one partition for as long as this process owns it.
type worker struct {
	s         *Service
	tp        topicPartition
	id        partitionID
	log       zerolog.Logger
	held      offsetRecord
	target    *target
	committer *committer
	// collided is since when an event waits for its unique key; outwaited says
	// that all partitions had passed it before the last try.
	collided  time.Time
	outwaited bool
	// limit is how many events a batch may hold at present.
	limit int
	// stop is closed when the worker shall end after the batch in hand.
	stop <-chan struct{}
	q    *queue
	// watch is for partitions of the change topic.
	watch *watch
}

// run applies the partition until stop closes, ctx ends or an event cannot be
// applied. Losing the partition to a member that took it by mistake is not the
// end: the group decides who owns it, and whoever claims last is the owner.
func (w *worker) run(ctx context.Context) error {
	phase := state.PhaseChanges
	if w.tp.topic == w.s.topics.snapshot {
		phase = state.PhaseSnapshot
		if !w.s.cfg.Sync.Full {
			return w.rest(ctx) // its documents are for others
		}
	}
	for {
		g, ok := w.s.phases.wait(ctx, w.stop, func(g *groupRecord) bool {
			return g.Phase == phase && (phase == state.PhaseChanges || g.Prepared)
		})
		if !ok {
			return nil
		}
		err := w.own(ctx, &g)
		switch {
		case err == nil, ctx.Err() != nil:
			return nil
		case !errors.Is(err, errLost):
			return err
		}
		w.s.metrics.lost.Inc()
		w.log.Info().Err(err).Msg("partition was taken over")
		if !w.pause(ctx, lostPause/2+rand.N(lostPause)) {
			return nil
		}
	}
}

// consume hands records to apply in order until it says that it is done.
func (w *worker) consume(ctx context.Context, apply func(context.Context, []*kgo.Record) (done bool, err error)) error {
	for {
		select {
		case <-w.stop:
			return nil
		default:
		}
		records, err := w.q.take(w.s.cfg.BatchEvents, w.s.cfg.BatchBytes)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			select {
			case <-w.q.ready:
				continue
			case <-w.stop:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
		done, err := apply(ctx, records)
		if err != nil {
			return err
		}
		if done {
			// What is left of the topic is not this worker's to hold.
			return errors.Join(w.q.close(ctx), w.rest(ctx))
		}
	}
}

// unexpected reports a batch that met other documents than its events said: a
// try whose answer was lost, or somebody else's writes.
func (w *worker) unexpected(err error) {
	w.s.metrics.unexpected.Inc()
	w.log.Warn().Err(sanitize(err)).Int64("offset", w.held.Offset).Msg("the destination holds other documents than the events say; looking everything up")
}

// rest waits for the end of ownership.
func (w *worker) rest(ctx context.Context) error {
	select {
	case <-w.stop:
	case <-ctx.Done():
	}
	return nil
}

// pause waits for d and reports whether the worker goes on.
func (w *worker) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stop:
	case <-ctx.Done():
	}
	return false
}

// changes applies records of the change topic.
func (w *worker) changes(ctx context.Context, records []*kgo.Record) (bool, error) {
	seg := segment{next: w.held}
	for _, r := range records {
		e, err := w.s.codec.DecodeEvent(r.Value)
		if err != nil {
			return false, fmt.Errorf("decode change event partition=%s/%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if len(seg.changes) > 0 && seg.mode != seg.next.mode(r.Offset) {
			if err := w.flush(ctx, &seg); err != nil {
				return false, err
			}
		}
		concerned := false
		if e.Op.IsDDL() {
			if concerned, err = concerns(w.s.cfg.Rules, w.s.cfg.Destination, &e); err != nil {
				return false, err
			}
		}
		if concerned {
			if err := w.flush(ctx, &seg); err != nil {
				return false, err
			}
			passed, err := w.barrier(ctx, &e, r)
			if err != nil || !passed {
				return !passed && err == nil, err
			}
			if err := w.lookAfter(ctx, e.Op); err != nil {
				return false, err
			}
			seg = segment{next: w.held}
			seg.next.Offset, seg.next.Position = r.Offset+1, placeOf(e.Position)
			continue
		}
		if err := w.collect(&seg, &e, r); err != nil {
			return false, err
		}
	}
	return false, w.flush(ctx, &seg)
}

// segment is a run of events that take effect together, or in halves.
type segment struct {
	changes []change
	// ends[i] is the record after changes[i] and what follows it without
	// effect, so that a part of the segment can be committed.
	ends []offsetRecord
	// next is the record after all of it.
	next  offsetRecord
	mode  event.ApplyMode
	bytes int64
}

// collect adds an event to the segment.
func (w *worker) collect(seg *segment, e *event.Event, r *kgo.Record) error {
	mode := seg.next.mode(r.Offset)
	seg.bytes += recordBytes(r)
	seg.next.Offset = r.Offset + 1
	switch {
	case e.Op == event.OpWatermark:
		w.pass(seg, e)
	case e.Op.IsData():
		seg.next.Position = placeOf(e.Position)
		if target, ok := w.s.cfg.Rules.Target(e.NS); ok {
			seg.changes = append(seg.changes, change{Event: e, target: target, offset: r.Offset, record: r})
			seg.ends = append(seg.ends, seg.next)
			seg.mode = mode
			return nil
		}
	case e.Op.IsDDL():
		seg.next.Position = placeOf(e.Position)
	default:
		return fmt.Errorf("apply %s: this version does not know the operation", e)
	}
	if n := len(seg.ends); n > 0 {
		seg.ends[n-1] = seg.next
	}
	return nil
}

// pass takes note of a watermark.
func (w *worker) pass(seg *segment, e *event.Event) {
	seg.next.Watermark, seg.next.Wall = e.Position.Time, e.WallTime
	g, _, _ := w.s.phases.current()
	if seg.next.CatchingUp && event.CompareTimes(e.Position.Time, g.ReadThrough) >= 0 {
		seg.next.CatchingUp = false
		w.log.Info().Msg("partition has caught up with its load")
	}
}

// flush makes a segment take effect, in as many batches as it needs.
func (w *worker) flush(ctx context.Context, seg *segment) error {
	if seg.next.Offset == w.held.Offset {
		return nil
	}
	if len(seg.changes) == 0 {
		if err := w.committer.move(ctx, w.held, seg.next); err != nil {
			return err
		}
		w.advance(seg.next)
		*seg = segment{next: w.held}
		return nil
	}
	for from := 0; from < len(seg.changes); {
		n, err := w.stretch(ctx, seg.changes[from:])
		if err != nil {
			return err
		}
		err = w.commit(ctx, seg.changes[from:from+n], seg.ends[from+n-1], seg.mode)
		if err != nil {
			again, err := w.isolate(ctx, seg, from, n, err)
			if err != nil || w.stopping() && again {
				return err
			}
			if again {
				continue
			}
		}
		w.collided = time.Time{}
		from += n
		w.limit = min(w.s.cfg.BatchEvents, w.limit+w.limit/8+1)
	}
	w.s.metrics.bytes.Add(float64(seg.bytes))
	*seg = segment{next: w.held}
	return nil
}

// commit makes one batch of changes take effect.
func (w *worker) commit(ctx context.Context, changes []change, next offsetRecord, mode event.ApplyMode) error {
	started := time.Now()
	fx, err := w.admit(ctx, changes, mode)
	if err != nil {
		return err
	}
	plans, err := w.fold(fx.changes, mode)
	if err != nil {
		return err
	}
	if err := w.sendLetters(ctx, fx.letters); err != nil {
		return err
	}
	b := &batch{held: w.held, next: next, divisible: len(changes) > 1}
	b.write = func(ctx context.Context, how care) error {
		fx.begin()
		for _, p := range plans {
			if err := w.target.write(ctx, p, how, fx); err != nil {
				return err
			}
		}
		return fx.save(ctx)
	}
	if hasOrdered(plans) {
		b.before = func(ctx context.Context) error {
			fx.beginOrdered()
			return w.target.writeOrdered(ctx, plans, fx)
		}
	}
	if err := w.committer.commit(ctx, b); err != nil {
		return err
	}
	w.committed(fx)
	for _, c := range fx.changes {
		w.s.metrics.count(c.Op, 1)
	}
	w.s.progress.events.Add(int64(len(changes)))
	w.s.metrics.batches.Inc()
	w.s.metrics.batchTime.Observe(time.Since(started).Seconds())
	w.advance(next)
	w.pace(ctx, w.s.cfg.ChangesThrottle, int64(len(changes)), sizeOf(changes))
	return nil
}

// fold folds a batch. Without a load nobody knows that a document which is
// missing will come or go later in the stream: it is asked for.
func (w *worker) fold(changes []change, mode event.ApplyMode) ([]*plan, error) {
	f := newFolder(mode, w.target.capped)
	if !w.s.cfg.Sync.loads() {
		f.missing = event.Strict
	}
	return f.all(changes)
}

// ensure has the target look up the collections of a batch.
func (w *worker) ensure(ctx context.Context, changes []change, mode event.ApplyMode) error {
	return w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		return sanitize(w.target.ensure(ctx, changes, mode))
	})
}

// advance takes note of what was committed.
func (w *worker) advance(next offsetRecord) {
	if w.watch != nil {
		w.passed(&next)
	}
	w.held = next
	w.s.progress.set(w.tp, &w.held)
}
