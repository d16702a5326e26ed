package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Capped collections keep their documents in the order of insertion, and no
// transaction may write to them. Their events are therefore written one after
// another, before the transaction of their batch. A crash in between delivers
// them again; since they were inserted in order, everything up to the last one
// that is held was inserted before, though the collection may have dropped it
// since.

func hasOrdered(plans []*plan) bool {
	return slices.ContainsFunc(plans, func(p *plan) bool { return len(p.ordered) > 0 })
}

// writeOrdered writes the events of capped collections. It may be repeated.
func (t *target) writeOrdered(ctx context.Context, plans []*plan, fx *effects) error {
	for _, p := range plans {
		if len(p.ordered) == 0 {
			continue
		}
		if err := t.writeCapped(ctx, p, fx); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) writeCapped(ctx context.Context, p *plan, fx *effects) error {
	w := &writer{ctx: ctx, db: t.client.Database(p.target.DB), target: p.target, missing: event.Lenient, misfit: event.Lenient, fx: fx, ordered: true, guard: t.guard}
	// Not the transactions' ability: these writes are outside.
	able := t.able
	able.transactions = false
	builder := newBuilder(p.target.Coll, able)
	w.builder = &builder
	held, err := w.lastHeld(p.ordered)
	if err != nil {
		return err
	}
	for i, c := range p.ordered {
		if arrives(c) && i > held || c.Op == event.OpInsert {
			if i <= held {
				continue
			}
			d := &document{id: c.docID(), first: event.OpInsert, image: c.Document, last: c}
			if err := w.add(d, d.resolve()); err != nil {
				return err
			}
			continue
		}
		if err := w.flush(); err != nil {
			return err
		}
		d := &document{id: c.docID(), first: c.Op, last: c, missing: event.Lenient, misfit: event.Lenient}
		if err := d.apply(c); err != nil {
			return fail(c, err)
		}
		if err := w.lookUp([]*document{d}, needImage); err != nil {
			return err
		}
	}
	return w.flush()
}

// arrives reports whether an event puts a document at the end of a capped
// collection that does not hold it: an insert, or an image of a reload.
func arrives(c change) bool {
	return c.Op == event.OpInsert || c.Op == event.OpRefresh && c.Document != nil
}

// lastHeld returns the index of the last arrival whose document is held, -1 if
// none is.
func (w *writer) lastHeld(changes []change) (int, error) {
	var ids []bson.RawValue
	for _, c := range changes {
		if arrives(c) {
			ids = append(ids, c.docID())
		}
	}
	if len(ids) == 0 {
		return -1, nil
	}
	held := map[string]bool{}
	for len(ids) > 0 {
		n := askable(len(ids), func(i int) bson.RawValue { return ids[i] })
		if err := w.findHeld(ids[:n], held); err != nil {
			return 0, err
		}
		ids = ids[n:]
	}
	var (
		key []byte
		err error
	)
	for i, c := range slices.Backward(changes) {
		if !arrives(c) {
			continue
		}
		if key, err = event.AppendIDKey(key[:0], c.docID()); err != nil {
			return 0, fail(c, err)
		}
		if held[string(key)] {
			return i, nil
		}
	}
	return -1, nil
}

// findHeld adds the keys of those of the _ids that are held.
func (w *writer) findHeld(ids []bson.RawValue, held map[string]bool) error {
	cursor, err := w.db.RunCommandCursor(w.ctx, findCommand(w.target.Coll, ids, needID, nil))
	if err != nil {
		return fmt.Errorf("look up documents ns=%s: %w", w.target, err)
	}
	var key []byte
	for cursor.Next(w.ctx) {
		if key, err = event.AppendIDKey(key[:0], cursor.Current.Lookup("_id")); err != nil {
			break
		}
		held[string(key)] = true
	}
	if err = errors.Join(err, cursor.Err(), cursor.Close(w.ctx)); err != nil {
		return fmt.Errorf("look up documents ns=%s: %w", w.target, err)
	}
	return nil
}
