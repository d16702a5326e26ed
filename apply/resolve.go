package apply

import (
	"bytes"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// need says what must be known of the destination's document before a folded
// one can be written.
type need int

const (
	// needNothing: the events say it all.
	needNothing need = iota
	// needID: whether it exists, and how its _id is spelled.
	needID
	// needImage: the document itself, to apply deltas to.
	needImage
)

// needs says what to look up. Look asks for every document with an image to be
// looked up: while catching up, redelivering or after the events turned out not
// to match what is held.
func (d *document) needs(look bool) need {
	switch {
	case d.gone:
		return needNothing
	case d.image == nil:
		return needImage
	case look:
		return needID
	case d.first == event.OpRefresh:
		// A refresh does not say whether the document was there.
		return needID
	case d.respelled && d.first != event.OpInsert:
		return needID
	}
	return needNothing
}

// writeKind is how a document reaches its final state.
type writeKind int

const (
	// writeNothing: it is there already.
	writeNothing writeKind = iota
	writeInsert
	// writeReplace replaces the held document, whose _id is spelled the same.
	writeReplace
	// writeRespell deletes the held document and inserts the new one: no
	// update changes an _id from 1 to 1.0.
	writeRespell
	writeDelete
)

// write is one document's write.
type write struct {
	kind writeKind
	// id selects the held document, with key, the conditions of its shard key.
	id  bson.RawValue
	key []byte
	// doc is the image to be there afterwards.
	doc bson.Raw
	// fromDeltas says that doc was made from the held document, so that it
	// cannot be made again once that is gone.
	fromDeltas bool
}

// resolve decides the write of a document of which nothing was looked up.
func (d *document) resolve() write {
	switch {
	case d.gone:
		return write{kind: writeDelete, id: d.id}
	case d.first == event.OpInsert:
		return write{kind: writeInsert, id: d.id, doc: d.image}
	}
	return write{kind: writeReplace, id: d.id, doc: d.image}
}

// resolveHeld decides the write of a document that was looked up; held is nil
// when the destination has none, and need not be more than its _id when there
// are no deltas. Missing says whether there must be one for deltas, misfit how
// these are applied to it: a try may meet the effect of the one before, which
// never is that a document with deltas is gone. Removed says that history took a
// field from it.
func (d *document) resolveHeld(held bson.Raw, missing, misfit event.ApplyMode) (w write, removed bool, err error) {
	if d.gone {
		return write{kind: writeDelete, id: d.id}, false, nil
	}
	image, fromDeltas := d.image, false
	if image == nil {
		if held == nil {
			if missing == event.Lenient {
				return write{}, false, nil
			}
			return write{}, false, fail(d.last, errMissing)
		}
		fromDeltas = true
		if image, removed, err = patch(held, d.deltas, misfit, d.shaken); err != nil {
			return write{}, false, fail(d.last, err)
		}
		if bytes.Equal(image, held) {
			return write{}, removed, nil
		}
	}
	if held == nil {
		return write{kind: writeInsert, id: d.id, doc: image}, removed, nil
	}
	heldID, newID := held.Lookup("_id"), image.Lookup("_id")
	kind := writeReplace
	if !sameBytes(heldID, newID) {
		kind = writeRespell
	}
	return write{kind: kind, id: heldID, doc: image, fromDeltas: fromDeltas}, removed, nil
}
