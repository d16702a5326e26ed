package oplog

import (
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func (r *run) insert(op *operation, ns event.Namespace) error {
	key, err := op.keyOf(op.o)
	if err != nil {
		return err
	}
	r.emit(op, event.Event{Op: event.OpInsert, NS: ns, UUID: op.uuid, DocumentKey: key, Document: op.o})
	return nil
}

func (r *run) delete(op *operation, ns event.Namespace) error {
	if _, err := op.id(op.o); err != nil {
		return err
	}
	r.emit(op, event.Event{Op: event.OpDelete, NS: ns, UUID: op.uuid, DocumentKey: op.o})
	return nil
}

func (r *run) update(op *operation, ns event.Namespace) error {
	u, err := op.readUpdate()
	if err != nil {
		return err
	}
	e := event.Event{Op: event.OpUpdate, NS: ns, UUID: op.uuid, Delta: u.delta}
	if u.image != nil {
		e.Op = event.OpReplace
		if e.DocumentKey, err = op.keyOf(u.image); err != nil {
			return err
		}
		if e.Document, err = event.IDFirst(u.image); err != nil {
			return op.fail(err, "")
		}
	} else {
		if _, err := op.id(op.o2); err != nil {
			return err
		}
		e.DocumentKey = op.o2
	}
	r.emit(op, e)
	return nil
}

// keyOf returns the document key: o2 where it has one (updates always, inserts
// from 6.0), else {_id} of the document.
func (op *operation) keyOf(doc []byte) (bson.Raw, error) {
	if op.o2 != nil {
		if _, found, err := rawbson.Lookup(op.o2, "_id"); err == nil && found {
			return op.o2, nil
		}
	}
	id, err := op.id(doc)
	if err != nil {
		return nil, err
	}
	const overhead = 5
	key, at := rawbson.Begin(make([]byte, 0, len(id.Raw)+overhead))
	return rawbson.End(append(key, id.Raw...), at), nil
}

func (op *operation) id(doc []byte) (rawbson.Element, error) {
	e, found, err := rawbson.Lookup(doc, "_id")
	if err != nil {
		return e, op.fail(err, "")
	}
	if !found {
		return e, op.malformed("no _id")
	}
	return e, nil
}

// update is what a u entry says: a delta or a whole image.
type update struct {
	delta event.Delta
	image []byte
}

// readUpdate tells the forms of a u entry's o apart:
//
//	{$v: 2, diff: {…}}             a diff
//	{$v: 1, $set: {…}, $unset: …}  paths; $v is absent in a user's applyOps
//	{$set: {_id: …, …}}            a whole image: no server logs _id in $set
//	{_id: …, …}                    a whole image; _id may be anywhere
func (op *operation) readUpdate() (update, error) {
	parts, err := op.updateParts()
	if err != nil || parts.image {
		return update{image: op.o}, err
	}
	switch {
	case parts.version == 2 && parts.diff != nil && parts.set == nil && parts.unset == nil:
		delta, err := event.DeltaFromDiff(parts.diff)
		if err != nil {
			return update{}, op.fail(err, "")
		}
		return update{delta: delta}, nil
	case parts.version != 1 || parts.diff != nil:
		return update{}, op.unknown("version of the update")
	}
	if parts.set != nil {
		if _, found, err := rawbson.Lookup(parts.set, "_id"); err != nil {
			return update{}, op.fail(err, "")
		} else if found {
			return update{image: parts.set}, nil
		}
	}
	delta, err := event.DeltaFromModifiers(parts.set, parts.unset)
	if err != nil {
		return update{}, op.fail(err, "")
	}
	return update{delta: delta}, nil
}

type updateParts struct {
	version          int64
	diff, set, unset []byte
	image            bool
}

func (op *operation) updateParts() (updateParts, error) {
	p := updateParts{version: 1}
	body, err := rawbson.Body(op.o)
	if err != nil {
		return p, op.fail(err, "")
	}
	var other []byte
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return p, op.fail(err, "")
		}
		body = rest
		ok := true
		switch string(e.Name) {
		case "_id":
			// The entry's other names are then the image's, whatever they are.
			p.image = true
			return p, nil
		case "$v":
			p.version, ok = e.Int64()
		case "diff":
			p.diff, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
		case "$set":
			p.set, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
		case "$unset":
			p.unset, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
		default:
			other = e.Name
		}
		if !ok && other == nil {
			other = e.Name
		}
	}
	switch {
	case other == nil:
		return p, nil
	case other[0] == '$':
		return p, op.unsupported("update operator " + string(other))
	default:
		return p, op.malformed("whole image without _id")
	}
}
