package capture

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// reload publishes the reload event of a located collection at this place.
func (f *refresher) reload(ctx context.Context, q *request) error {
	at := q.at
	ddl, start := rawbson.Begin(nil)
	ddl = reloadHead(ddl, "reload", at, q)
	ddl = rawbson.AppendValue(ddl, bson.TypeEmbeddedDocument, "options", at.Options)
	list, from := rawbson.Begin(nil)
	for i, index := range at.Indexes {
		list = rawbson.AppendValue(list, bson.TypeEmbeddedDocument, strconv.Itoa(i), index)
	}
	ddl = rawbson.AppendValue(ddl, bson.TypeArray, "indexes", rawbson.End(list, from))
	if err := f.barrier(ctx, q, event.OpReload, rawbson.End(ddl, start)); err != nil || f.byID[q.ID] != q {
		return err
	}
	if f.publisher.classes.unique.orders(&at.CatalogEntry) {
		f.publisher.classes.add(at.UUID)
	}
	q.Now = at.NS
	q.Reload = &state.ReloadProgress{UUID: at.UUID, ReadThrough: f.publisher.position.Time}
	f.change(q)
	f.log.Info().Str(logfield.Request, q.ID).Stringer(logfield.Namespace, at.NS).Stringer(logfield.Position, f.publisher.position).Msg("reload begins")
	return nil
}

// reloadEnd publishes the event that closes a reload, which is over with it.
func (f *refresher) reloadEnd(ctx context.Context, q *request) error {
	ddl, start := rawbson.Begin(nil)
	ddl = reloadHead(ddl, "reloadEnd", q.at, q)
	ddl = rawbson.AppendHeader(ddl, bson.TypeTimestamp, "through")
	ddl = binary.LittleEndian.AppendUint32(ddl, q.Reload.ReadThrough.I)
	ddl = binary.LittleEndian.AppendUint32(ddl, q.Reload.ReadThrough.T)
	if err := f.barrier(ctx, q, event.OpReloadEnd, rawbson.End(ddl, start)); err != nil || f.byID[q.ID] != q {
		return err
	}
	f.remove(q)
	f.log.Info().Str(logfield.Request, q.ID).Stringer(logfield.Namespace, q.at.NS).Int64("documents", q.Reload.Documents).Msg("reload ends")
	return nil
}

// reloadHead begins the canonical form of reload's events: {reload: coll,
// request, destinations}, where no destination means every one.
func reloadHead(dst []byte, name string, at *located, q *request) []byte {
	dst = rawbson.AppendString(dst, name, at.NS.Coll)
	dst = rawbson.AppendString(dst, "request", q.ID)
	list, from := rawbson.Begin(nil)
	if q.Destination != "" {
		list = rawbson.AppendString(list, "0", q.Destination)
	}
	return rawbson.AppendValue(dst, bson.TypeArray, "destinations", rawbson.End(list, from))
}

// barrier publishes a DDL event of a request at a place of its own, behind
// everything of the present cluster time: barriers are told apart by their
// position.
func (f *refresher) barrier(ctx context.Context, q *request, op event.Op, ddl bson.Raw) error {
	p := f.publisher
	next := p.position
	next.Index++
	if p.readFrom == p.position {
		p.readFrom = next
	}
	p.position = next
	return f.publish(ctx, &round{of: []*request{q}}, []event.Event{{
		Op: op, NS: q.at.NS, UUID: q.at.UUID, DDL: ddl,
		Position: next, WallTime: time.Unix(int64(next.Time.T), 0), Source: p.source,
	}})
}

// reloadRound returns the next round of a reload whose first event is
// published.
func reloadRound(q *request) *round {
	r := newRound(q.at)
	r.of = []*request{q}
	switch {
	case q.at.natural():
		r.hold = true
		r.job.scan, r.job.begin = q.at, q.Reload.Documents == 0
	case len(q.Reload.Left) > 0:
		r.hold = q.tries >= hotTries
		limit := imageDocuments
		if r.hold {
			limit = heldDocuments
		}
		ids := q.Reload.Left[:min(limit, len(q.Reload.Left))]
		r.job.query = &query{at: q.at, ids: ids, documents: limit, bytes: imageBytes, exact: r.hold}
	default:
		r.job.query = &query{at: q.at, next: q.Reload.Next, documents: imageDocuments, bytes: imageBytes}
	}
	return r
}

// rangeRead publishes the next documents of a reload. Those that changed
// meanwhile are read again before it goes on; one that came meanwhile is in the
// stream.
func (f *refresher) rangeRead(ctx context.Context, r *round) error {
	q, found := r.of[0], r.result.reading
	if f.byID[q.ID] != q || q.Reload == nil || q.at != r.job.query.at {
		return nil // it ended, or begins again
	}
	var events []event.Event
	var left [][]byte
	for i := range found.images {
		img := &found.images[i]
		changed, err := r.changed(q.at, img.id)
		if err != nil {
			return err
		}
		if changed {
			left = append(left, img.id)
			continue
		}
		events = append(events, f.image(q.at, img, bson.Timestamp{}))
	}
	if err := f.publish(ctx, r, events); err != nil || f.byID[q.ID] != q {
		return err
	}
	p := q.Reload
	countReading(p, found)
	p.Left, p.Exhausted = left, found.last
	if n := len(found.images); n > 0 {
		p.Next = found.images[n-1].id
	}
	q.tries = 0
	return f.reloadGoesOn(ctx, q)
}

// reloadLeft takes note of documents that were read again.
func (f *refresher) reloadLeft(ctx context.Context, q *request, found *reading, settled map[string]bool) error {
	left, err := q.unsettled(q.Reload.Left, settled)
	if err != nil {
		return err
	}
	q.Reload.Left = left
	passThrough(q.Reload, found)
	return f.reloadGoesOn(ctx, q)
}

// reloadGoesOn stores how far a reload has come, or ends it.
func (f *refresher) reloadGoesOn(ctx context.Context, q *request) error {
	if q.Reload.Exhausted && len(q.Reload.Left) == 0 {
		return f.reloadEnd(ctx, q)
	}
	f.change(q)
	f.later(q)
	return nil
}

// scanned publishes the next documents of a collection that is read as a whole.
// The stream waits at the place of the scan's beginning: everything later than
// it follows behind the scan's end, and is applied to it again.
func (f *refresher) scanned(ctx context.Context, r *round) error {
	q, found := r.of[0], r.result.reading
	var events []event.Event
	var asOf bson.Timestamp
	if event.CompareTimes(found.through, f.publisher.position.Time) > 0 {
		asOf = found.through
	}
	for i := range found.images {
		events = append(events, f.image(q.at, &found.images[i], asOf))
	}
	if err := f.publish(ctx, r, events); err != nil || f.byID[q.ID] != q {
		return err
	}
	countReading(q.Reload, found)
	if found.last {
		return f.reloadEnd(ctx, q)
	}
	f.change(q)
	f.round = reloadRound(q)
	f.round.job.after, f.round.job.begin = r.job.after, false
	f.jobs <- f.round.job // there is room: the last one was answered
	return nil
}

// countReading adds what was read to a reload's progress.
func countReading(p *state.ReloadProgress, found *reading) {
	for i := range found.images {
		p.Bytes += int64(len(found.images[i].document))
	}
	p.Documents += int64(len(found.images))
	passThrough(p, found)
}

// passThrough keeps the newest operation time of a reload's reads.
func passThrough(p *state.ReloadProgress, found *reading) {
	if event.CompareTimes(found.through, p.ReadThrough) > 0 {
		p.ReadThrough = found.through
	}
}
