package oplog

import (
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Effect says where the operations of a fragment take effect.
type Effect struct {
	// Position is that of the entry that commits; its Index is the place of
	// the fragment's first operation in the whole transaction.
	Position event.Position
	// WallTime is that of the entry that commits.
	WallTime time.Time
	// Skip is how many operations at the transaction's beginning become no
	// events.
	Skip int32
}

// DecodeFragment is Decode for an applyOps entry that is part of a transaction:
// its operations take effect where e says.
func (d *Decoder) DecodeFragment(entry bson.Raw, e Effect, dst []event.Event) ([]event.Event, error) {
	op, err := readEntry(entry)
	if err != nil {
		return dst, err
	}
	if op.command != "applyOps" {
		return dst, op.malformed("fragment without operations")
	}
	at := e.Position
	op.at.Time, op.at.Term, op.wall, op.fragment = at.Time, at.Term, e.WallTime, Whole
	r := run{d: d, events: dst, next: at.Index, skip: e.Skip}
	if err := r.operation(&op, 0); err != nil {
		return dst, err
	}
	return r.events, nil
}

// DecodeHistory decodes entries one after another. Transactions over several
// entries must begin in them; those that do not end there become no events.
func (d *Decoder) DecodeHistory(entries []bson.Raw) ([]event.Event, error) {
	var events []event.Event
	open := Transactions{Limit: -1}
	for _, entry := range entries {
		h, err := ReadHeader(entry)
		if err != nil {
			return nil, err
		}
		if h.Fragment == Whole {
			if events, err = d.Decode(entry, events); err != nil {
				return nil, err
			}
			continue
		}
		t, known := open.Take(entry, &h)
		if !known {
			return nil, fmt.Errorf("decode history position=%s: its transaction begins before the first entry", h.Position)
		}
		if t == nil {
			continue
		}
		effect := Effect{Position: h.Position, WallTime: h.WallTime}
		for _, fragment := range t.Fragments {
			if events, err = d.DecodeFragment(fragment, effect, events); err != nil {
				return nil, err
			}
			effect.Position.Index += Operations(fragment)
		}
	}
	return events, nil
}

// IsCommand reports whether an entry is a command, and so possibly a fragment.
// It reads no further than op.
func IsCommand(entry bson.Raw) bool {
	op, found, err := rawbson.Lookup(entry, "op")
	text, ok := op.Text()
	return err == nil && found && ok && len(text) == 1 && text[0] == kindCommand
}

// Operations returns how many positions an entry's operations take: one, or
// those of applyOps. What cannot be read counts as one; decoding it says what is
// wrong.
func Operations(entry bson.Raw) int32 {
	o, found, err := rawbson.Lookup(entry, "o")
	if err != nil || !found || o.Type != bson.TypeEmbeddedDocument {
		return 1
	}
	if n, ok := operationsIn(o.Value, 0); ok {
		return n
	}
	return 1
}

// operationsIn counts the operations of a command, false where it is not
// applyOps.
func operationsIn(command []byte, depth int) (n int32, ok bool) {
	body, err := rawbson.Body(command)
	if err != nil || len(body) == 0 {
		return 0, false
	}
	list, _, err := rawbson.Next(body)
	if err != nil || list.Type != bson.TypeArray || string(list.Name) != "applyOps" || depth > maxNestedApplyOps {
		return 0, false
	}
	body, err = rawbson.Body(list.Value)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err != nil {
			return 0, false
		}
		n += operationsOf(&e, depth)
	}
	return n, err == nil
}

// operationsOf counts the operations of an element of applyOps.
func operationsOf(e *rawbson.Element, depth int) int32 {
	if e.Type != bson.TypeEmbeddedDocument || !IsCommand(e.Value) {
		return 1
	}
	o, found, err := rawbson.Lookup(e.Value, "o")
	if err != nil || !found || o.Type != bson.TypeEmbeddedDocument {
		return 1
	}
	if n, ok := operationsIn(o.Value, depth+1); ok {
		return n
	}
	return 1
}
