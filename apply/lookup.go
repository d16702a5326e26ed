package apply

import (
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// lookUp reads what the destination holds of the documents and adds their
// writes one by one, so that no more than a cursor's batch and a command's
// worth of them is in memory.
func (w *writer) lookUp(documents []*document, what need) error {
	for len(documents) > 0 {
		n := fewer(documents)
		if err := w.lookUpSome(documents[:n], what); err != nil {
			return err
		}
		documents = documents[n:]
	}
	return nil
}

// lookUpSome looks up as many as one command can ask for.
func (w *writer) lookUpSome(documents []*document, what need) error {
	ids := make([]bson.RawValue, len(documents))
	byKey := make(map[string]*document, len(documents))
	for i, d := range documents {
		ids[i] = d.id
		key, err := event.AppendIDKey(nil, d.id)
		if err != nil {
			return fail(d.last, err)
		}
		byKey[string(key)] = d
	}
	cursor, err := w.db.RunCommandCursor(w.ctx, findCommand(w.target.Coll, ids, what, w.key))
	if err != nil {
		return fmt.Errorf("look up documents ns=%s: %w", w.target, err)
	}
	err = w.resolveHeld(cursor, byKey)
	if err = errors.Join(err, cursor.Close(w.ctx)); err != nil {
		return err
	}
	// What was not found, in the order of the events.
	for _, d := range documents {
		key, err := event.AppendIDKey(nil, d.id)
		if err != nil {
			return fail(d.last, err)
		}
		if byKey[string(key)] == nil {
			continue
		}
		if err := w.addHeld(d, nil); err != nil {
			return err
		}
	}
	return nil
}

// fewer returns for how many of the documents one command can ask.
func fewer(documents []*document) int {
	return askable(len(documents), func(i int) bson.RawValue { return documents[i].id })
}

// askable returns how many of n _ids one command can hold: they may be as large
// as documents.
func askable(n int, id func(int) bson.RawValue) int {
	const entry = 16 // of the list, beside the value
	size := 0
	for i := range n {
		if size += len(id(i).Value) + entry; size > maxCommandBytes && i > 0 {
			return i
		}
	}
	return n
}

// resolveHeld strikes documents out of byKey as the cursor brings them.
func (w *writer) resolveHeld(cursor *mongo.Cursor, byKey map[string]*document) error {
	var key []byte
	for cursor.Next(w.ctx) {
		held := cursor.Current
		id, err := held.LookupErr("_id")
		if err != nil {
			return fmt.Errorf("look up documents ns=%s: a document without _id came back", w.target)
		}
		if key, err = event.AppendIDKey(key[:0], id); err != nil {
			return fmt.Errorf("look up documents ns=%s: %w", w.target, err)
		}
		d, ok := byKey[string(key)]
		if !ok && w.collated && w.settle != nil {
			return foreign(w.target, id)
		}
		if !ok && w.collated {
			// It stands where one that was asked for shall stand, or stood in
			// history: the source never had both, and if this is the later
			// one, the events that brought it follow.
			if err := w.discard(id); err != nil {
				return err
			}
			continue
		}
		if !ok {
			return fmt.Errorf("look up documents ns=%s: a document came back that was not asked for (_id=%s)", w.target, idText(id))
		}
		if d == nil {
			continue // a flush in between has inserted it anew, spelled otherwise
		}
		byKey[string(key)] = nil
		if err := w.addHeld(d, held); err != nil {
			return err
		}
	}
	if err := cursor.Err(); err != nil {
		return fmt.Errorf("look up documents ns=%s: %w", w.target, err)
	}
	return nil
}

// discard deletes a held document that is in the way of others.
func (w *writer) discard(id bson.RawValue) error {
	if w.builder.full(len(id.Value)) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.builder.add(write{kind: writeDelete, id: id})
}
