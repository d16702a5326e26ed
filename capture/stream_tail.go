package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// streamTail follows a change stream. The driver resumes it by itself, behind
// the last event that it handed out, when a member goes away.
//
// The last events of a batch are held back while more of their time may follow,
// so that batches mostly end where a time does and a watermark can stand behind
// them. They are not kept waiting: the next batch begins with them.
type streamTail struct {
	source    *streamSource
	stream    *mongo.ChangeStream
	assembler changestream.Assembler
	stall     stall
	// catalog is nil where the stream reports every DDL event.
	catalog *catalog

	// last is the position of the last item, or how far the stream has come.
	last event.Position
	// complete is the time up to which everything was handed out at the end of
	// the last batch that did not end inside a time.
	complete bson.Timestamp
	// skip is the time up to which events are left to the full load; zero once
	// a later one has come.
	skip bson.Timestamp
	// drained says that the server's last answer was empty.
	drained bool
	// group are the events held back, all of one time.
	group eventGroup
}

// eventGroup is a run of events of one time, one after another.
type eventGroup struct {
	time bson.Timestamp
	raw  []byte
	ends []int
}

func (g *eventGroup) empty() bool { return len(g.ends) == 0 }

func (g *eventGroup) add(doc bson.Raw) {
	g.raw = append(g.raw, doc...)
	g.ends = append(g.ends, len(g.raw))
}

func (g *eventGroup) clear() {
	if cap(g.raw) > keptBytes {
		g.raw = nil
	}
	g.raw, g.ends = g.raw[:0], g.ends[:0]
}

func (t *streamTail) fetch(ctx context.Context, b *batch) (drained bool, err error) {
	if t.catalog != nil {
		if err := t.catalog.begin(b); err != nil {
			return true, err
		}
	}
	if !t.group.empty() && t.stream.RemainingBatchLength() == 0 {
		// The batch before ended where this time begins.
		if err := t.flush(ctx, b); err != nil {
			return true, err
		}
		return false, t.finish(ctx, b, false)
	}
	for !b.full() {
		held := b.len() > 0 || !t.group.empty()
		if t.stream.RemainingBatchLength() == 0 && held && !t.assembler.Pending() {
			break // hand over before waiting for the server
		}
		if !t.stream.TryNext(ctx) {
			if err := t.failure(); err != nil {
				return true, err
			}
			if held || t.assembler.Pending() {
				break
			}
			if err := t.finish(ctx, b, true); err != nil {
				return true, err
			}
			return true, t.stall.check(ctx, time.Now())
		}
		if err := t.take(ctx, b, t.stream.Current); err != nil {
			return true, err
		}
	}
	return false, t.finish(ctx, b, false)
}

// take adds an event, once it is whole, to those of its time, and hands out the
// ones of the time before.
func (t *streamTail) take(ctx context.Context, b *batch, doc bson.Raw) error {
	h, err := changestream.ReadHeader(doc)
	if err != nil {
		return &finalError{err}
	}
	split := h.Fragment != 0
	if doc, err = t.assembler.Add(doc, h); err != nil {
		return &finalError{err}
	}
	if doc == nil {
		return nil
	}
	if split {
		if h, err = changestream.ReadHeader(doc); err != nil {
			return &finalError{err}
		}
	}
	if !t.skip.IsZero() {
		if event.CompareTimes(h.Time, t.skip) <= 0 {
			return nil
		}
		t.skip = bson.Timestamp{}
	}
	if t.group.time != h.Time {
		if err := t.flush(ctx, b); err != nil {
			return err
		}
		t.group.time = h.Time
	}
	t.group.add(doc)
	if len(t.group.raw) >= batchBytes {
		return t.flush(ctx, b) // more than can be held back
	}
	return nil
}

// flush puts the events held back into the batch.
func (t *streamTail) flush(ctx context.Context, b *batch) error {
	start := 0
	for _, end := range t.group.ends {
		doc := bson.Raw(t.group.raw[start:end:end])
		start = end
		if t.catalog != nil {
			h, err := changestream.ReadHeader(doc)
			if err != nil {
				return &finalError{err}
			}
			if err := t.catalog.observe(ctx, t, b, &h); err != nil {
				return err
			}
		}
		if err := t.add(b, doc, t.group.time); err != nil {
			return err
		}
	}
	t.group.clear()
	return nil
}

// add gives an item its position: the index goes on inside one time, over
// batches and restarts.
func (t *streamTail) add(b *batch, doc bson.Raw, at bson.Timestamp) error {
	switch event.CompareTimes(at, t.last.Time) {
	case 1:
		t.last = event.Position{Time: at}
	case 0:
		t.last.Index++
	default:
		return &finalError{fmt.Errorf("read change stream: an event of time %d.%d comes behind position=%s: the order is broken", at.T, at.I, t.last)}
	}
	b.add(doc)
	b.stream.positions = append(b.stream.positions, t.last)
	return nil
}

// finish notes how far the stream has come with the batch. Between the fragments
// of an event that is as far as the last whole one.
func (t *streamTail) finish(ctx context.Context, b *batch, drained bool) error {
	t.drained = drained
	complete, token, err := t.passed()
	if err != nil {
		return err
	}
	was := t.last
	if event.CompareTimes(t.group.time, complete) <= 0 {
		if err := t.flush(ctx, b); err != nil {
			return err
		}
	}
	if t.group.empty() && token != nil {
		b.stream.reached = bytes.Clone(token)
	}
	switch event.CompareTimes(t.last.Time, complete) {
	case 1: // the batch ends inside a time
		if b.len() == 0 {
			return nil
		}
		b.reached, b.partial = t.last, true
		b.readFrom = event.Position{Time: t.complete}
		return nil
	case -1:
		t.last = event.Position{Time: complete}
	}
	if t.catalog != nil && event.CompareTimes(complete, t.complete) > 0 {
		// Every watermark said so far is earlier, every event to come is later.
		if err := t.catalog.compare(ctx, t, b, complete); err != nil {
			return err
		}
	}
	if b.len() > 0 || t.last != was || complete != t.complete {
		b.reached = t.last // else the publisher may be further, with events of its own
	}
	t.complete = complete
	return nil
}

// passed returns the time up to which nothing more comes that is not held back,
// and the stream's token; nil between the fragments of an event.
//
// A token of time T says that all before T has come. More of T may follow: of the
// same transaction, or of another shard. On a replica set nothing does once a
// later time is said or the server has nothing more, since each entry of its one
// oplog has a time of its own.
func (t *streamTail) passed() (bson.Timestamp, bson.Raw, error) {
	raw := t.stream.ResumeToken()
	if len(raw) == 0 || t.assembler.Pending() {
		return t.complete, nil, nil
	}
	token, err := changestream.ParseToken(raw)
	if err != nil {
		return bson.Timestamp{}, nil, &finalError{fmt.Errorf("read change stream: %w: hint: follow the source by its oplog", err)}
	}
	if event.CompareTimes(token.Time, t.stall.last) > 0 {
		t.stall.moved(token.Time, time.Now())
	}
	newest := t.last.Time
	if !t.group.empty() {
		newest = t.group.time
	}
	complete := before(token.Time)
	if !t.source.sharded && (t.drained || event.CompareTimes(token.Time, newest) > 0) {
		complete = token.Time
	}
	if event.CompareTimes(complete, t.complete) < 0 { // a stream that was opened again
		complete = t.complete
	}
	return complete, raw, nil
}

// failure is why TryNext returned nothing, or nil where there was nothing.
func (t *streamTail) failure() error {
	if err := t.stream.Err(); err != nil {
		return streamFailure(t.last, "read change stream", err)
	}
	if t.stream.ID() == 0 {
		return &transientError{errors.New("read change stream: the server closed the cursor")}
	}
	return nil
}

func (t *streamTail) close(ctx context.Context) {
	if t.catalog != nil {
		t.catalog.close()
	}
	closeStream(ctx, t.stream)
}
