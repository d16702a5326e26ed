package capture

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// standinPoll is the time between two looks at a stand-in's oplog.
	standinPoll = 100 * time.Millisecond
	// standinSettle is how late an entry may show up after one with a later
	// cluster time and still be noticed.
	standinSettle = time.Second
)

// standinTail follows the oplog of a stand-in by looking again and again at its
// newest entries.
//
// A stand-in gives an entry its cluster time before it stores it, so that of
// two concurrent writers the later one may be seen first; a cursor would pass
// over the earlier one for good. So an entry is held back from the look that
// finds it to the next, and handed out in the order of cluster times; one that
// shows up later still is handed out when it does, out of order. What this
// cannot heal: an entry that shows up late across a restart of capture is lost.
// And a stand-in knows no majority and no terms.
type standinTail struct {
	oplog *mongo.Collection
	// forward reads what was there when the tail was opened; nil afterwards.
	forward *mongo.Cursor
	from    event.Position
	// held were found by the last look and not yet handed out; ready are to be
	// handed out next. Both are in the order of cluster times.
	held, ready []standinEntry
	// known are the entries above floor that were found already.
	known map[bson.Timestamp]struct{}
	marks []standinMark
	floor bson.Timestamp
	next  time.Time
}

type standinEntry struct {
	ts  bson.Timestamp
	raw bson.Raw
}

// standinMark says what was the highest cluster time at a moment.
type standinMark struct {
	at time.Time
	ts bson.Timestamp
}

// openStandinTail goes through the oplog from its start, since a stand-in has no
// index on ts. A position before every entry ({1, 0}) is that of an oplog that
// was empty.
func openStandinTail(ctx context.Context, oplog *mongo.Collection, from event.Position) (tail, event.Position, error) {
	cursor, err := oplog.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}))
	if err != nil {
		return nil, from, &sourceError{fmt.Errorf("open oplog position=%s: %w", from, err)}
	}
	t := &standinTail{oplog: oplog, forward: cursor, from: from, known: map[bson.Timestamp]struct{}{}, floor: from.Time}
	if from.Time.T <= 1 {
		return t, from, nil
	}
	oldest := from
	for first := true; cursor.Next(ctx); first = false {
		p, err := entryPosition(cursor.Current)
		if err != nil {
			return nil, from, err
		}
		if first {
			oldest = p
		}
		if p.Time == from.Time {
			return t, p, nil
		}
		if event.CompareTimes(p.Time, from.Time) > 0 {
			t.ready = append(t.ready, standinEntry{p.Time, bytes.Clone(cursor.Current)})
			t.known[p.Time] = struct{}{}
		}
	}
	defer t.close(context.WithoutCancel(ctx))
	if err := cursor.Err(); err != nil {
		return nil, from, &sourceError{fmt.Errorf("read oplog: %w", err)}
	}
	return nil, from, historyLost(from, fmt.Sprintf("the source's oplog begins at %s and does not hold it", oldest))
}

func (t *standinTail) fetch(ctx context.Context, b *batch) (drained bool, err error) {
	for !b.full() && len(t.ready) > 0 {
		b.add(t.ready[0].raw)
		t.ready = t.ready[1:]
	}
	if t.forward != nil && !b.full() {
		if err := t.fetchForward(ctx, b); err != nil {
			return false, err
		}
	}
	if b.len() > 0 {
		return false, nil
	}
	if err := t.wait(ctx); err != nil {
		return false, err
	}
	if err := t.look(ctx); err != nil {
		return false, err
	}
	return len(t.ready) == 0 && len(t.held) == 0, nil
}

// fetchForward hands out what was there when the tail was opened, in natural
// order.
func (t *standinTail) fetchForward(ctx context.Context, b *batch) error {
	for !b.full() {
		if !t.forward.Next(ctx) {
			if err := t.forward.Err(); err != nil {
				return &sourceError{fmt.Errorf("read oplog: %w", err)}
			}
			t.close(ctx)
			t.forward = nil
			return nil
		}
		p, err := entryPosition(t.forward.Current)
		if err != nil {
			return err
		}
		if _, known := t.known[p.Time]; known || event.CompareTimes(p.Time, t.from.Time) <= 0 {
			continue
		}
		t.found(p.Time)
		b.add(t.forward.Current)
	}
	return nil
}

// found remembers an entry for as long as it may be found again.
func (t *standinTail) found(ts bson.Timestamp) {
	t.known[ts] = struct{}{}
	now := time.Now()
	if n := len(t.marks); n == 0 || now.Sub(t.marks[n-1].at) > standinPoll {
		t.marks = append(t.marks, standinMark{at: now, ts: ts})
	} else if event.CompareTimes(ts, t.marks[n-1].ts) > 0 {
		t.marks[n-1].ts = ts
	}
	settled := 0
	for settled < len(t.marks) && now.Sub(t.marks[settled].at) > standinSettle {
		t.raiseFloor(t.marks[settled].ts)
		settled++
	}
	t.marks = t.marks[settled:]
}

func (t *standinTail) raiseFloor(ts bson.Timestamp) {
	if event.CompareTimes(ts, t.floor) <= 0 {
		return
	}
	t.floor = ts
	for known := range t.known {
		if event.CompareTimes(known, ts) <= 0 {
			delete(t.known, known)
		}
	}
}

// wait keeps the looks apart.
func (t *standinTail) wait(ctx context.Context) error {
	timer := time.NewTimer(time.Until(t.next))
	defer timer.Stop()
	select {
	case <-timer.C:
		t.next = time.Now().Add(standinPoll)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look reads the newest entries down to the floor, makes ready what the last
// look had found and holds back what is new.
func (t *standinTail) look(ctx context.Context) error {
	now := time.Now()
	for len(t.marks) > 0 && now.Sub(t.marks[0].at) > standinSettle {
		t.raiseFloor(t.marks[0].ts)
		t.marks = t.marks[1:]
	}
	fresh, err := t.newest(ctx)
	if err != nil {
		return err
	}
	all := slices.Concat(t.held, fresh)
	slices.SortStableFunc(all, func(a, b standinEntry) int { return event.CompareTimes(a.ts, b.ts) })
	cut := 0
	if n := len(t.held); n > 0 {
		last := t.held[n-1].ts
		cut, _ = slices.BinarySearchFunc(all, last, func(e standinEntry, ts bson.Timestamp) int {
			return cmp.Or(event.CompareTimes(e.ts, ts), -1) // behind the last held one
		})
	}
	t.ready, t.held = all[:cut:cut], all[cut:]
	return nil
}

// newest returns the entries above the floor that were not found before.
func (t *standinTail) newest(ctx context.Context) (fresh []standinEntry, err error) {
	cursor, err := t.oplog.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "$natural", Value: -1}}))
	if err != nil {
		return nil, &sourceError{fmt.Errorf("read oplog: %w", err)}
	}
	defer closeCursor(context.WithoutCancel(ctx), cursor)
	for cursor.Next(ctx) {
		p, err := entryPosition(cursor.Current)
		if err != nil {
			return nil, err
		}
		if event.CompareTimes(p.Time, t.floor) <= 0 {
			break
		}
		if _, known := t.known[p.Time]; !known {
			t.found(p.Time)
			fresh = append(fresh, standinEntry{p.Time, bytes.Clone(cursor.Current)})
		}
	}
	if err := cursor.Err(); err != nil {
		return nil, &sourceError{fmt.Errorf("read oplog: %w", err)}
	}
	return fresh, nil
}

func (t *standinTail) close(ctx context.Context) {
	if t.forward != nil {
		closeCursor(ctx, t.forward)
	}
}
