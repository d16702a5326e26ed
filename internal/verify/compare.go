package verify

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// windowBytes bounds the unmatched documents that one comparison holds of each
// side.
const windowBytes = 16 << 20

// stream hands out a side's documents one by one; the bytes are good until the
// next call. A nil document is the end, and stays so.
type stream interface {
	next(ctx context.Context) (bson.Raw, error)
}

// lookup visits the documents of a side with the given _ids, in any order; those
// that do not exist are left out. The bytes are good during the visit.
type lookup func(ctx context.Context, ids []bson.RawValue, visit func(bson.Raw) error) error

// comparison joins two streams of documents by _id.
//
// Both come in the order of the _id index, so a document mostly meets its
// counterpart at once. One that does not waits in its side's window; a full
// window is settled by looking its documents up on the other side. Nothing
// relies on the order: it only keeps the windows small. So no order of BSON
// values, of a collation or of another server need be known here.
type comparison struct {
	// limit bounds the documents that wait, in bytes.
	limit                      int
	source, target             stream
	sourceLookup, targetLookup lookup
	// report is called with the _id of each difference.
	report func(Kind, bson.RawValue) error
	// readSource is called with each of the source's documents' size,
	// readTarget for each of the destination's.
	readSource func(size int)
	readTarget func()
}

// window holds documents that have not met their counterpart, by key.
type window struct {
	docs map[string]bson.Raw
	size int
}

func (w *window) put(key string, doc bson.Raw) {
	if old, ok := w.docs[key]; ok {
		w.size -= len(old)
	}
	w.docs[key] = bytes.Clone(doc)
	w.size += len(doc)
}

func (w *window) take(key []byte) (bson.Raw, bool) {
	doc, ok := w.docs[string(key)]
	if ok {
		delete(w.docs, string(key))
		w.size -= len(doc)
	}
	return doc, ok
}

// run compares until both streams have ended.
func (c *comparison) run(ctx context.Context) error {
	src := window{docs: map[string]bson.Raw{}}
	dst := window{docs: map[string]bson.Raw{}}
	for {
		s, err := c.source.next(ctx)
		if err != nil {
			return err
		}
		d, err := c.target.next(ctx)
		if err != nil {
			return err
		}
		if err := c.step(s, d, &src, &dst); err != nil {
			return err
		}
		ended := s == nil && d == nil
		if src.size > c.limit || ended {
			if err := c.settleSource(ctx, &src); err != nil {
				return err
			}
		}
		if dst.size > c.limit || ended {
			if err := c.settleTarget(ctx, &dst); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// step takes one document of each side, either of which may be nil.
func (c *comparison) step(s, d bson.Raw, src, dst *window) error {
	if s != nil {
		c.readSource(len(s))
	}
	if d != nil {
		c.readTarget()
	}
	if s != nil && bytes.Equal(s, d) {
		return nil
	}
	if s != nil {
		if err := c.offer(s, src, dst); err != nil {
			return err
		}
	}
	if d != nil {
		return c.offer(d, dst, src)
	}
	return nil
}

// offer matches doc with the other side's window or puts it into its own.
func (c *comparison) offer(doc bson.Raw, own, other *window) error {
	id, key, err := keyOf(doc)
	if err != nil {
		return err
	}
	counterpart, ok := other.take(key)
	if !ok {
		own.put(string(key), doc)
		return nil
	}
	if bytes.Equal(doc, counterpart) {
		return nil
	}
	return c.report(KindDifferent, id)
}

// settleSource empties the source's window: each document is at the destination
// equal, different or missing. A counterpart that the stream delivers later is
// looked up in its turn and then found at the source.
func (c *comparison) settleSource(ctx context.Context, w *window) error {
	return w.settle(ctx, c.targetLookup, func(id bson.RawValue, doc, counterpart bson.Raw) error {
		switch {
		case counterpart == nil:
			return c.report(KindMissing, id)
		case !bytes.Equal(doc, counterpart):
			return c.report(KindDifferent, id)
		}
		return nil
	})
}

// settleTarget empties the destination's window: a document that the source has
// is, or will be, compared from the source's side.
func (c *comparison) settleTarget(ctx context.Context, w *window) error {
	return w.settle(ctx, c.sourceLookup, func(id bson.RawValue, _, counterpart bson.Raw) error {
		if counterpart == nil {
			return c.report(KindExtra, id)
		}
		return nil
	})
}

// settleBatch is how many documents are looked up at one time.
const settleBatch = 1000

// settle looks every document up, judges it and empties the window. A
// counterpart that does not exist is nil.
func (w *window) settle(ctx context.Context, find lookup, judge func(id bson.RawValue, doc, counterpart bson.Raw) error) error {
	pending := make(map[string]bson.RawValue, settleBatch)
	for key, doc := range w.docs {
		id, err := doc.LookupErr("_id")
		if err != nil {
			return fmt.Errorf("read _id: %w", err)
		}
		pending[key] = id
		if len(pending) == settleBatch {
			if err := w.settlePending(ctx, pending, find, judge); err != nil {
				return err
			}
		}
	}
	if err := w.settlePending(ctx, pending, find, judge); err != nil {
		return err
	}
	clear(w.docs)
	w.size = 0
	return nil
}

// settlePending settles one batch and empties it.
func (w *window) settlePending(ctx context.Context, pending map[string]bson.RawValue, find lookup,
	judge func(id bson.RawValue, doc, counterpart bson.Raw) error,
) error {
	if len(pending) == 0 {
		return nil
	}
	ids := slices.Collect(maps.Values(pending))
	err := find(ctx, ids, func(counterpart bson.Raw) error {
		_, key, err := keyOf(counterpart)
		if err != nil {
			return err
		}
		id, ok := pending[string(key)]
		if !ok {
			return nil
		}
		delete(pending, string(key))
		return judge(id, w.docs[string(key)], counterpart)
	})
	if err != nil {
		return err
	}
	for key, id := range pending {
		if err := judge(id, w.docs[key], nil); err != nil {
			return err
		}
	}
	clear(pending)
	return nil
}

// keyOf returns a document's _id and the key under which equal _ids meet.
func keyOf(doc bson.Raw) (id bson.RawValue, key []byte, err error) {
	if id, err = doc.LookupErr("_id"); err != nil {
		return id, nil, fmt.Errorf("read _id: %w", err)
	}
	if key, err = event.AppendIDKey(nil, id); err != nil {
		return id, nil, fmt.Errorf("key _id: %w", err)
	}
	return id, key, nil
}
