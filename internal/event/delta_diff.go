package event

import (
	"fmt"
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Parts of a diff; in arrays 'u' and 's' are followed by a position.
const (
	partDelete byte = 'd'
	partUpdate byte = 'u'
	partInsert byte = 'i'
	partInside byte = 's'
)

// diffDocument appends doc with a document diff applied.
//
// It differs from a server in one point. Where a diff goes inside a value of
// another type, a server puts null there, trusting that a later entry
// overwrites it. In lenient mode the value is left alone instead: the later
// event overwrites it as well, and if there should be none (a replay that the
// operator forced), nothing is destroyed.
func (a *applier) diffDocument(doc, diff []byte, depth int) error {
	body, err := rawbson.Body(doc)
	if err != nil {
		return err
	}
	base := len(a.changes)
	if err := a.pushDiff(diff, depth); err != nil {
		return err
	}
	names := a.levelFrom(base)
	var at int
	a.dst, at = rawbson.Begin(a.dst)
	// Runs of elements that do not change are copied at once.
	run, kept := body, 0
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		i := a.find(names, e.Name)
		if i < 0 {
			kept += len(e.Raw)
			continue
		}
		a.dst = append(a.dst, run[:kept]...)
		run, kept = rest, 0
		a.changes[i].hit = true
		switch c := a.changes[i]; c.op {
		case partUpdate:
			a.dst = append(a.dst, c.elem.Raw...)
		case partInside:
			if err := a.diffValue(&e, e.Name, c.elem.Value, depth); err != nil {
				return under(e.Name, err)
			}
		}
	}
	a.dst = append(a.dst, run[:kept]...)
	if err := a.diffRest(base); err != nil {
		return err
	}
	a.changes = a.changes[:base]
	a.dst = rawbson.End(a.dst, at)
	return nil
}

// pushDiff puts the changes of one document diff on the stack, in the order in
// which those that add fields add them.
func (a *applier) pushDiff(diff []byte, depth int) error {
	if depth > rawbson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(diff)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if e.Type != bson.TypeEmbeddedDocument || len(e.Name) == 0 {
			return fmt.Errorf("%w: part %q", ErrDeltaInvalid, e.Name)
		}
		switch {
		case e.Name[0] == partInside:
			a.changes = append(a.changes, change{name: e.Name[1:], elem: e, op: partInside})
		case isPart(e.Name):
			if err := a.pushPart(e.Name[0], e.Value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: part %q", ErrDeltaInvalid, e.Name)
		}
	}
	return nil
}

// isPart reports whether name is one of d, u and i.
func isPart(name []byte) bool {
	return len(name) == 1 && (name[0] == partDelete || name[0] == partUpdate || name[0] == partInsert)
}

func (a *applier) pushPart(op byte, part []byte) error {
	body, err := rawbson.Body(part)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		a.changes = append(a.changes, change{name: e.Name, elem: e, op: op})
		body = rest
	}
	return nil
}

// diffRest handles what the document did not hold: fields to add, and what
// should have been there.
func (a *applier) diffRest(base int) error {
	for i := base; i < len(a.changes); i++ {
		c := &a.changes[i]
		if c.op == partInsert {
			a.dst = append(a.dst, c.elem.Raw...)
			continue
		}
		if c.hit {
			continue
		}
		if err := a.misfit(c.name, "there is no such field"); err != nil {
			return err
		}
		if c.op == partUpdate {
			a.dst = append(a.dst, c.elem.Raw...)
		}
	}
	return nil
}

// diffValue appends element e, under the given name, with a sub-diff applied.
func (a *applier) diffValue(e *rawbson.Element, name, diff []byte, depth int) error {
	want := bson.TypeEmbeddedDocument
	if isArrayDiff(diff) {
		want = bson.TypeArray
	}
	if e.Type != want {
		a.dst = rawbson.AppendValue(a.dst, e.Type, name, e.Value)
		if a.lenient {
			return nil
		}
		return wrongHolder(e.Type, want)
	}
	a.dst = rawbson.AppendHeader(a.dst, e.Type, name)
	if want == bson.TypeArray {
		return a.diffArray(e.Value, diff, depth+1)
	}
	return a.diffDocument(e.Value, diff, depth+1)
}

// wrongHolder is the mismatch of a value that should be of type want.
func wrongHolder(held, want bson.Type) error {
	return &pathError{what: fmt.Sprintf("want %s, the document holds %s", want, held), err: ErrDeltaMismatch}
}

func isArrayDiff(diff []byte) bool {
	return len(diff) > 7 && diff[4] == byte(bson.TypeBoolean) && diff[5] == 'a' && diff[6] == 0
}

// diffArray appends array with an array diff applied. Elements are named by
// their positions, as a server names them again when it rebuilds an array.
func (a *applier) diffArray(array, diff []byte, depth int) error {
	if depth > rawbson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(array)
	if err != nil {
		return err
	}
	r, err := readArrayDiff(diff)
	if err != nil {
		return err
	}
	w := a.beginArray()
	for len(body) > 0 && (r.length < 0 || w.next < r.length) {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if err := a.diffElement(&w, &r, &e, depth); err != nil {
			return err
		}
	}
	for w.next < r.length || r.more {
		if err := a.diffElement(&w, &r, nil, depth); err != nil {
			return err
		}
	}
	w.end()
	return nil
}

// diffElement appends the next element: held is what the array has there, nil
// past its end.
func (a *applier) diffElement(w *arrayWriter, r *arrayDiff, held *rawbson.Element, depth int) error {
	if !r.more || r.position != w.next {
		return w.keep(held)
	}
	op, e := r.op, r.elem
	if err := r.advance(); err != nil {
		return err
	}
	if op == partUpdate {
		return w.put(e.Type, e.Value)
	}
	if held == nil {
		if err := a.misfit(w.name(), "the array is shorter"); err != nil {
			return err
		}
		return w.put(bson.TypeNull, nil)
	}
	if err := a.diffValue(held, w.name(), e.Value, depth); err != nil {
		return under(strconv.Itoa(w.next), err)
	}
	w.next++
	return nil
}

// arrayDiff reads an array diff change by change.
type arrayDiff struct {
	// length is the new length, -1 when it is not given.
	length int
	more   bool
	// position, op and elem are the current change, if there is one more.
	position int
	op       byte
	elem     rawbson.Element
	body     []byte
}

func readArrayDiff(diff []byte) (arrayDiff, error) {
	r := arrayDiff{length: -1, position: -1}
	body, err := rawbson.Body(diff)
	if err != nil {
		return r, err
	}
	head, body, err := rawbson.Next(body)
	if err != nil {
		return r, err
	}
	if string(head.Name) != "a" || !head.True() {
		return r, fmt.Errorf("%w: array diff without its mark", ErrDeltaInvalid)
	}
	if len(body) > 2 && body[1] == 'l' && body[2] == 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return r, err
		}
		n, ok := e.Int32()
		if !ok || n < 0 {
			return r, fmt.Errorf("%w: length of an array", ErrDeltaInvalid)
		}
		r.length, body = int(n), rest
	}
	r.body = body
	return r, r.advance()
}

// advance reads the next change, whose position must be higher than the last.
func (r *arrayDiff) advance() error {
	r.more = len(r.body) > 0
	if !r.more {
		return nil
	}
	e, rest, err := rawbson.Next(r.body)
	if err != nil {
		return err
	}
	r.body = rest
	if len(e.Name) < 2 || (e.Name[0] != partUpdate && e.Name[0] != partInside) {
		return fmt.Errorf("%w: array change %q", ErrDeltaInvalid, e.Name)
	}
	if e.Name[0] == partInside && e.Type != bson.TypeEmbeddedDocument {
		return fmt.Errorf("%w: array change %q is no document", ErrDeltaInvalid, e.Name)
	}
	n, ok := parsePosition(e.Name[1:])
	if !ok || n <= r.position || (r.length >= 0 && n >= r.length) {
		return fmt.Errorf("%w: array position %q", ErrDeltaInvalid, e.Name)
	}
	r.position, r.op, r.elem = n, e.Name[0], e
	return nil
}
