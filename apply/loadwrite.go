package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// What becomes of a loaded document whose _id the destination holds with another
// document, which this run did not write.
const (
	// ConflictsFail stops with the namespace and the _id.
	ConflictsFail = "fail"
	// ConflictsKeep leaves the destination's document as it is until the source
	// changes its own.
	ConflictsKeep = "keep"
	// ConflictsOverwrite puts the source's document in its place.
	ConflictsOverwrite = "overwrite"
)

// loadWriter writes the documents of a load. They are inserted without a look at
// what is there; only where an insert meets its _id is that looked up. Nothing
// else writes to the collection while the load runs, so a document of the same
// bytes is this run's own, from a try whose answer was lost or from before a
// restart, and any other is somebody else's.
type loadWriter struct {
	*writer
	conflicts string
	// again says that the try before may have left half of its writes.
	again bool
	// sent are the documents of the insert command in the making, in its order;
	// met those whose _id was there.
	sent, met []*document
	// others counts the documents that were kept or overwritten.
	others int
}

// writeLoad brings a plan's documents into the destination. In a transaction an
// insert that meets its _id undoes everything, and the next try looks first;
// elsewhere the others stay, and only that one is looked up.
func (t *target) writeLoad(ctx context.Context, p *plan, how care, conflicts string) (others int, err error) {
	plain, err := t.writer(ctx, p, how, nil)
	if err != nil {
		return 0, err
	}
	w := &loadWriter{writer: plain, conflicts: conflicts, again: how == again}
	w.builder.inserts.unordered = !t.able.transactions
	w.settle = w.meet
	var look []*document
	for _, d := range p.documents {
		s, err := shapeOf(d.image)
		if err != nil {
			return 0, fail(d.last, err)
		}
		plain := s.plain()
		switch {
		case t.able.transactions && (how != asSaid || d.look), !t.able.transactions && !plain:
			look = append(look, d)
		case plain:
			err = w.insert(d)
		default:
			err = w.add(d, d.resolve())
		}
		if err != nil {
			return 0, err
		}
	}
	if err := w.flushInserts(); err != nil {
		return 0, err
	}
	w.builder.inserts.unordered = false
	if err := w.lookUp(append(look, w.met...), needImage); err != nil {
		return 0, err
	}
	return w.others, w.flush()
}

// insert adds a document that an insert keeps as it is.
func (w *loadWriter) insert(d *document) error {
	if w.builder.full(len(d.image)) {
		if err := w.flushInserts(); err != nil {
			return err
		}
	}
	inserts := &w.builder.inserts
	inserts.next(w.builder.coll)
	inserts.buf = append(inserts.buf, d.image...)
	w.sent = append(w.sent, d)
	return nil
}

// flushInserts runs the commands so far and takes note of what was there.
func (w *loadWriter) flushInserts() error {
	sent := w.sent
	w.sent = w.sent[:0]
	err := w.flush()
	if err == nil || w.builder.able.transactions {
		return err
	}
	var answer mongo.WriteException
	if !isDuplicateID(err) || !errors.As(err, &answer) || answer.WriteConcernError != nil {
		return err
	}
	for _, e := range answer.WriteErrors {
		if e.Index < 0 || e.Index >= len(sent) {
			return err
		}
		w.met = append(w.met, sent[e.Index])
	}
	return nil
}

// meet decides about a document of which the destination's was looked up; held
// is nil where there is none.
func (w *loadWriter) meet(d *document, held bson.Raw) error {
	if bytes.Equal(held, d.image) {
		return nil
	}
	resolved, _, err := d.resolveHeld(held, event.Strict, event.Strict)
	if err == nil {
		err = w.place(&resolved, held)
	}
	if err != nil {
		return err
	}
	s, err := shapeOf(d.image)
	if err != nil {
		return fail(d.last, err)
	}
	// A document of several steps may have been left half written by this run.
	torn := !s.plain() && !w.builder.able.transactions && (w.again || d.look)
	if held != nil && !torn {
		switch w.conflicts {
		case ConflictsKeep:
			w.others++
			return nil
		case ConflictsOverwrite:
			w.others++
		default:
			return foreign(w.target, d.id)
		}
	}
	return w.add(d, resolved)
}

// foreign is the error of a document that somebody else wrote into a collection
// that is being loaded.
func foreign(target event.Namespace, id bson.RawValue) error {
	return &stateError{fmt.Errorf("load ns=%s _id=%s: the destination holds another document with this _id, which this run did not write: hint: remove it and restart apply, or set conflicts to keep or overwrite",
		target, idText(id))}
}
