package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// collisionPause is how long a worker rests before it tries an event again whose
// unique key another partition has still to give up.
const collisionPause = 200 * time.Millisecond

// dividing stops at once where only one event of several is at fault: the batch
// is cut until that stands alone.
func dividing(verdict func(error) retry.Verdict) func(error) retry.Verdict {
	return func(err error) retry.Verdict {
		if ofEvent(err) && !errors.Is(err, errHeldDiffers) {
			return retry.Stop
		}
		return verdict(err)
	}
}

// stretch returns how many of the changes to try as one batch. Documents of a
// collection with unique indexes hand keys to one another, and a batch writes
// each document's last state alone. In a transaction a collision undoes all of
// it, and smaller batches follow. Without, every event of such a collection is a
// batch of its own.
func (w *worker) stretch(ctx context.Context, changes []change) (int, error) {
	n := min(max(w.limit, 1), len(changes))
	if w.s.able.transactions {
		return n, nil
	}
	for i, c := range changes[:n] {
		unique, err := w.unique(ctx, c.target)
		if err != nil {
			return 0, err
		}
		if unique {
			return max(i, 1), nil
		}
	}
	return n, nil
}

// unique reports whether a target has unique indexes besides that of _id.
func (w *worker) unique(ctx context.Context, target event.Namespace) (unique bool, err error) {
	if unique, known := w.target.uniques[target]; known {
		return unique, nil
	}
	err = w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		cursor, err := w.s.client.Database(target.DB).Collection(target.Coll).Indexes().List(ctx)
		if hasCode(err, codeNamespaceNotFound) {
			return nil
		}
		var list []bson.Raw
		if err == nil {
			err = cursor.All(ctx, &list)
		}
		if err != nil {
			return fmt.Errorf("list indexes ns=%s: %w", target, err)
		}
		unique = slices.ContainsFunc(list, rules.UniqueIndex)
		return nil
	})
	if err == nil {
		w.target.uniques[target] = unique
	}
	return unique, err
}

// isolate decides how a worker goes on after a batch of n changes, from a place
// in the segment, has failed: with a smaller one (again), past an event that was
// set aside, or not at all.
func (w *worker) isolate(ctx context.Context, seg *segment, from, n int, cause error) (again bool, err error) {
	switch {
	case errors.Is(cause, errTooLarge) && n > 1:
		w.limit = n / 2
		return true, nil
	case !ofEvent(cause):
		return false, cause
	case n > 1:
		w.limit = n / 2
		if !w.s.able.transactions {
			seg.redeliver()
		}
		return true, nil
	}
	c := seg.changes[from]
	var in *eventError
	if !errors.As(cause, &in) {
		cause = fail(c, cause)
	}
	if collides(cause) {
		clear(w.target.uniques) // the index may be younger than what is known
		if seg.mode == event.Lenient {
			// The replay brought a key back that another document has by now. The
			// events that follow would part them again; an image does it at once.
			return false, w.setAside(ctx, c, seg.ends[from], cause, false)
		}
		if mayPass, err := w.awaitKey(ctx, &c); err != nil || mayPass {
			return mayPass, err
		}
	}
	w.collided = time.Time{}
	if w.s.cfg.OnError != OnErrorDeadLetter {
		return false, cause
	}
	return false, w.setAside(ctx, c, seg.ends[from], cause, true)
}

// redeliver marks a segment of which a part may have been written. It is applied
// again as after a restart.
func (seg *segment) redeliver() {
	through := seg.next.Offset
	seg.mode = event.Lenient
	for i := range seg.ends {
		seg.ends[i].Redelivered = max(seg.ends[i].Redelivered, through)
	}
	seg.next.Redelivered = max(seg.next.Redelivered, through)
}

// awaitKey waits a moment for the document that holds a unique key: where
// documents of a collection are in several partitions, the event that takes the
// key from it may not be applied yet. It reports whether that is possible. The
// partition whose next event is the earliest never waits, so some partition
// always goes on; a partition that does not ends the wait with the retry window.
func (w *worker) awaitKey(ctx context.Context, c *change) (bool, error) {
	if w.collided.IsZero() {
		w.collided = time.Now()
	}
	if time.Since(w.collided) > w.s.policy.Other {
		return false, nil
	}
	passed := true
	err := w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		offsets, err := w.s.store.offsets(ctx, w.tp.topic)
		for p, o := range offsets {
			passed = passed && (p == w.tp.partition || behindOf(&o, c.Position))
		}
		return sanitize(err)
	})
	if err != nil || passed && w.outwaited {
		w.outwaited = false
		return false, err
	}
	// Once more after all have passed: the key may have been given up since.
	w.outwaited = passed
	if !passed {
		w.pause(ctx, collisionPause)
	}
	return ctx.Err() == nil && !w.stopping(), nil
}

// behindOf reports whether a partition has left a position behind.
func behindOf(o *offsetRecord, p event.Position) bool {
	return event.CompareTimes(o.Watermark, p.Time) >= 0 || o.Position.position().Compare(p) >= 0
}

// stopping reports whether the worker shall end.
func (w *worker) stopping() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// setAside moves the offset past an event that takes no effect and asks for its
// document; as a dead letter where dead says so.
func (w *worker) setAside(ctx context.Context, c change, next offsetRecord, cause error, dead bool) error {
	fx, err := w.watch.aside(c, cause, dead)
	if err != nil {
		return err
	}
	if dead {
		if err := w.sendLetters(ctx, []letter{{c, cause}}); err != nil {
			return err
		}
	}
	b := &batch{held: w.held, next: next, write: func(ctx context.Context, _ care) error { return fx.save(ctx) }}
	if err := w.committer.commit(ctx, b); err != nil {
		return err
	}
	w.committed(fx)
	w.advance(next)
	return nil
}

// aside makes the effects of an event that is set aside: an entry for its
// document. An image that is a dead letter after another event was is not asked
// for again.
func (w *watch) aside(c change, cause error, dead bool) (*effects, error) {
	kept, err := keptKey(c.docID())
	if err != nil {
		return nil, fail(c, err)
	}
	key := w.keyOf(c.NS, kept)
	held, watched := w.docs[string(key)]
	if dead && !(watched && held.dead) && w.countDead() >= maxDead {
		return nil, fail(c, errors.Join(cause, errTooManyDead))
	}
	state := requestWanted
	if dead && watched && held.dead && c.Op != event.OpUpdate {
		state = requestDead
	}
	entry := w.store.documentRequest(c, kept, state, "an event of it could not be applied")
	entry.Partition, entry.Dead = w.partition, dead
	if watched {
		entry.ID = held.id
	}
	found := map[string]effect{string(key): {ns: c.NS, entry: entry, change: c, cause: cause}}
	return &effects{w: w, found: found}, nil
}

// countDead counts the documents that are dead letters.
func (w *watch) countDead() (n int) {
	for _, d := range w.docs {
		if d.dead {
			n++
		}
	}
	return n
}
