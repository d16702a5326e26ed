package event

import (
	"bytes"
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxOperatorDepth keeps paths well below the nesting that servers accept.
const maxOperatorDepth = 100

// Operators returns the delta as an update document of $set and $unset, if
// that has exactly the effect of Apply on every document in the state that the
// update was made on, in which no field name stands twice on one level. False
// says that it has not, or that it was not worth proving; it is not an error.
//
// Why it is exact, for what is let through. Every name is a plain one (not
// empty, no dot, no leading $), and values hold no name with a leading $, so a
// server accepts the update and reads each path as it was written. _id at the
// top is not touched. No path is a prefix of another, since validated deltas
// name each field of a level once.
//
//   - d: the field exists; $unset removes it and moves nothing else.
//   - u: the field exists; $set replaces the value where it stands.
//   - i is not let through. It names new fields, but also existing ones that a
//     pipeline moved to the end, and the diff does not tell which; $set would
//     leave a moved field where it stood. See GuardedOperators.
//   - s: the sub-document or array exists, so the path leads into it, and what
//     is below is proved in the same way.
//   - u<n> in an array: at or past the end both sides pad with null, in any
//     order of positions.
//   - l has no operator and is not let through.
//
// An ordered delta (rule 1, without l) is what a server logged as $set and
// $unset; run again on the same state it does the same, if the fields that it
// might add come out in its order. Servers apply $set in the order of the
// names (by bytes up to 4.4; from 5.0 digits-only names by number), so they
// do if the delta's order ascends in both.
func (d Delta) Operators() (update bson.Raw, exact bool) {
	update, absent, exact := d.GuardedOperators()
	if len(absent) > 0 {
		return nil, false
	}
	return update, exact
}

// GuardedOperators is Operators for diffs with i as well: the update is exact
// if none of the paths in absent exists in the document, which a caller puts
// in the filter as {<path>: {$exists: false}} for each. No match then means
// that the field was moved (or that the document is gone): Apply says what to
// do. Several new fields of one level must ascend, as for ordered deltas.
func (d Delta) GuardedOperators() (update bson.Raw, absent []string, exact bool) {
	o := operators{}
	if isOrdered(d) {
		rule, node, err := readOrdered(d)
		if err != nil || rule != ruleExact || !o.node(node, 0) {
			return nil, nil, false
		}
	} else if !o.diff(d, 0) {
		return nil, nil, false
	}
	update, exact = o.update()
	return update, o.absent, exact
}

// operators collects the elements of $set and $unset.
type operators struct {
	path   []byte
	set    []byte
	unset  []byte
	absent []string // paths that must not exist
}

func (o *operators) update() (bson.Raw, bool) {
	if len(o.set)+len(o.unset) == 0 {
		return nil, false
	}
	const overhead = 40
	dst, at := rawbson.Begin(make([]byte, 0, len(o.set)+len(o.unset)+overhead))
	for _, part := range []struct {
		name  string
		elems []byte
	}{{"$set", o.set}, {"$unset", o.unset}} {
		if len(part.elems) == 0 {
			continue
		}
		var inner int
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, part.name)
		dst, inner = rawbson.Begin(dst)
		dst = append(dst, part.elems...)
		dst = rawbson.End(dst, inner)
	}
	return bson.Raw(rawbson.End(dst, at)), true
}

// enter appends a name to the path and returns the path's length before.
func (o *operators) enter(name []byte) int {
	before := len(o.path)
	if before > 0 {
		o.path = append(o.path, '.')
	}
	o.path = append(o.path, name...)
	return before
}

func (o *operators) addSet(name []byte, e *rawbson.Element) bool {
	if !plainValue(e) {
		return false
	}
	before := o.enter(name)
	o.set = rawbson.AppendValue(o.set, e.Type, o.path, e.Value)
	o.path = o.path[:before]
	return true
}

func (o *operators) addUnset(name []byte) {
	before := o.enter(name)
	o.unset = append(rawbson.AppendHeader(o.unset, bson.TypeBoolean, o.path), 1)
	o.path = o.path[:before]
}

// usable reports whether a name can stand in a path.
func (o *operators) usable(name []byte) bool {
	if len(name) == 0 || name[0] == '$' || bytes.IndexByte(name, '.') >= 0 {
		return false
	}
	return len(o.path) > 0 || string(name) != "_id"
}

func (o *operators) diff(diff []byte, depth int) bool {
	body, err := rawbson.Body(diff)
	if err != nil || depth > maxOperatorDepth {
		return false
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil || len(e.Name) == 0 {
			return false
		}
		body = rest
		if e.Name[0] != partInside {
			if !o.part(&e) {
				return false
			}
			continue
		}
		name := e.Name[1:]
		if !o.usable(name) {
			return false
		}
		before := o.enter(name)
		if !o.subDiff(e.Value, depth+1) {
			return false
		}
		o.path = o.path[:before]
	}
	return true
}

func (o *operators) subDiff(diff []byte, depth int) bool {
	if isArrayDiff(diff) {
		return o.array(diff, depth)
	}
	return o.diff(diff, depth)
}

func (o *operators) part(part *rawbson.Element) bool {
	body, err := rawbson.Body(part.Value)
	if err != nil {
		return false
	}
	var order ascending
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil || !o.usable(e.Name) {
			return false
		}
		body = rest
		switch part.Name[0] {
		case partDelete:
			o.addUnset(e.Name)
			continue
		case partInsert:
			if !order.next(e.Name) {
				return false
			}
			before := o.enter(e.Name)
			o.absent = append(o.absent, string(o.path))
			o.path = o.path[:before]
		}
		if !o.addSet(e.Name, &e) {
			return false
		}
	}
	return true
}

func (o *operators) array(diff []byte, depth int) bool {
	r, err := readArrayDiff(diff)
	if err != nil || r.length >= 0 || depth > maxOperatorDepth {
		return false
	}
	for r.more {
		var digits [20]byte
		name := strconv.AppendInt(digits[:0], int64(r.position), 10)
		if r.op == partUpdate {
			if !o.addSet(name, &r.elem) {
				return false
			}
		} else {
			before := o.enter(name)
			if !o.subDiff(r.elem.Value, depth+1) {
				return false
			}
			o.path = o.path[:before]
		}
		if err := r.advance(); err != nil {
			return false
		}
	}
	return true
}

func (o *operators) node(node []byte, depth int) bool {
	body, err := rawbson.Body(node)
	if err != nil || depth > maxOperatorDepth {
		return false
	}
	var order ascending
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil || len(e.Name) < 2 || !o.usable(e.Name[2:]) {
			return false
		}
		body = rest
		name := e.Name[2:]
		switch e.Name[0] {
		case opUnset:
			o.addUnset(name)
			continue
		case opSet:
			if !o.addSet(name, &e) {
				return false
			}
		case opInside:
			before := o.enter(name)
			if !o.node(e.Value, depth+1) {
				return false
			}
			o.path = o.path[:before]
		}
		if !order.next(name) {
			return false
		}
	}
	return true
}

// ascending checks that names ascend in every order that a server uses: by
// bytes, and digits-only names by number among each other. The latter is the
// former for numbers of one length.
type ascending struct {
	last   []byte
	digits int
}

func (a *ascending) next(name []byte) bool {
	if a.last != nil && bytes.Compare(a.last, name) >= 0 {
		return false
	}
	a.last = name
	if !digitsOnly(name) {
		return true
	}
	if a.digits != 0 && a.digits != len(name) {
		return false
	}
	a.digits = len(name)
	return true
}

func digitsOnly(name []byte) bool {
	for _, c := range name {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// plainValue reports whether a value holds no field name that starts with $:
// servers before 5.0 refuse such values in $set.
func plainValue(e *rawbson.Element) bool {
	switch e.Type {
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		return plainDocument(e.Value, 0)
	default:
		return true
	}
}

func plainDocument(doc []byte, depth int) bool {
	body, err := rawbson.Body(doc)
	if err != nil || depth > maxOperatorDepth {
		return false
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil || (len(e.Name) > 0 && e.Name[0] == '$') {
			return false
		}
		body = rest
		if e.Type == bson.TypeEmbeddedDocument || e.Type == bson.TypeArray {
			if !plainDocument(e.Value, depth+1) {
				return false
			}
		}
	}
	return true
}
