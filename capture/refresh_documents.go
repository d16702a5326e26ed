package capture

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// documents returns a round for the documents of a request and of others that
// want some of the same collection.
func (f *refresher) documents(q *request) *round {
	r := newRound(q.at)
	r.hold = q.tries >= hotTries
	limit := imageDocuments
	if r.hold {
		limit = heldDocuments
	}
	var ids [][]byte
	add := func(other *request) {
		n := min(len(other.IDs), limit-len(ids))
		if n <= 0 {
			return
		}
		ids = append(ids, other.IDs[:n]...)
		r.of = append(r.of, other)
	}
	add(q)
	for _, other := range f.queue {
		if other.Kind == state.RequestRefresh && other.at == nil && other.UUID == q.UUID && other.Now == q.Now {
			other.at = q.at
		}
		if other != q && other.at == q.at && other.Kind == state.RequestRefresh && (other.tries >= hotTries) == r.hold {
			add(other)
		}
	}
	r.job.query = &query{at: q.at, ids: ids, documents: limit, bytes: imageBytes, exact: r.hold}
	return r
}

// documentsRead publishes the images of documents that were asked for by their
// _ids, as far as they are certain.
func (f *refresher) documentsRead(ctx context.Context, r *round) error {
	at := r.job.query.at
	settled := make(map[string]bool, len(r.result.reading.images))
	var events []event.Event
	for i := range r.result.reading.images {
		img := &r.result.reading.images[i]
		changed, err := r.changed(at, img.id)
		if err != nil {
			return err
		}
		key, err := keyOfID(img.id)
		if err != nil {
			return err
		}
		settled[key] = !changed || r.hold
		if settled[key] {
			var asOf bson.Timestamp
			if changed && !r.result.reading.exact {
				asOf = r.result.through
			}
			events = append(events, f.image(at, img, asOf))
		}
	}
	if err := f.publish(ctx, r, events); err != nil {
		return err
	}
	for _, q := range r.of {
		if f.byID[q.ID] != q {
			continue
		}
		if q.Reload != nil {
			if err := f.reloadLeft(ctx, q, r.result.reading, settled); err != nil {
				return err
			}
			continue
		}
		var err error
		if q.IDs, err = q.unsettled(q.IDs, settled); err != nil {
			return err
		}
		f.later(q)
		if len(q.IDs) == 0 {
			f.remove(q)
			f.log.Debug().Str(logfield.Request, q.ID).Stringer(logfield.Namespace, at.NS).Msg("refresh is published")
		} else {
			f.change(q)
		}
	}
	return nil
}

// unsettled returns the _ids whose documents are still wanted, and counts the
// rounds that were disturbed.
func (q *request) unsettled(ids [][]byte, settled map[string]bool) ([][]byte, error) {
	var left [][]byte
	disturbed := false
	for _, id := range ids {
		key, err := keyOfID(id)
		if err != nil {
			return nil, err
		}
		done, read := settled[key]
		if done {
			continue
		}
		disturbed = disturbed || read
		left = append(left, id)
	}
	if disturbed {
		q.tries++
	} else {
		q.tries = 0
	}
	return left, nil
}

// image makes the event of an image at this place.
func (f *refresher) image(at *located, img *image, asOf bson.Timestamp) event.Event {
	p := f.publisher
	return event.Event{
		Op: event.OpRefresh, NS: at.NS, UUID: at.UUID, DocumentKey: img.id, Document: img.document,
		Position: p.position, WallTime: time.Unix(int64(p.position.Time.T), 0), Source: p.source, AsOf: asOf,
	}
}

// publish puts events of requests into the stream at this place. A transaction
// holds the images of one read. What cannot be encoded refuses the requests.
func (f *refresher) publish(ctx context.Context, r *round, events []event.Event) error {
	p := f.publisher
	size := 0
	for i := range events {
		size += len(events[i].Document)
	}
	if f.images > 0 && size > 0 {
		if err := p.commit(ctx); err != nil {
			return err
		}
	}
	b := p.pipeline.batch()
	for i := range events {
		if err := p.encoder.append(b, &events[i]); err != nil {
			b.records, b.routes, b.ddl = b.records[:0], b.routes[:0], b.ddl[:0]
			for _, q := range r.of {
				if f.byID[q.ID] == q {
					f.reject(q, err.Error())
				}
			}
			return p.produce(ctx, b)
		}
	}
	if err := p.applyClasses(ctx, b); err != nil {
		return err
	}
	f.images += size
	p.events += len(events)
	p.metrics.images.Add(float64(len(events)))
	return p.produce(ctx, b)
}
