package event

import (
	"bytes"
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Operations and kinds of name in an ordered delta's nodes.
const (
	opSet    byte = 's'
	opUnset  byte = 'u'
	opInside byte = 'n'

	kindField    byte = 'f'
	kindPosition byte = 'p'
	kindEither   byte = 'e'
)

// Rules of an ordered delta: what a dot in the source's paths meant.
const (
	ruleExact     int32 = 1
	ruleUncertain int32 = 2
)

// isOrdered tells the ordered form from a diff: no part of a diff is named o.
func isOrdered(raw []byte) bool {
	return len(raw) > 7 && raw[4] == byte(bson.TypeInt32) && raw[5] == 'o' && raw[6] == 0
}

// readOrdered splits an ordered delta into its rule and root node.
func readOrdered(raw []byte) (rule int32, node []byte, err error) {
	body, err := rawbson.Body(raw)
	if err != nil {
		return 0, nil, err
	}
	head, body, err := rawbson.Next(body)
	if err != nil {
		return 0, nil, err
	}
	root, body, err := rawbson.Next(body)
	if err != nil {
		return 0, nil, err
	}
	rule, ok := head.Int32()
	if !ok || string(head.Name) != "o" || (rule != ruleExact && rule != ruleUncertain) {
		return 0, nil, fmt.Errorf("%w: rule of an ordered delta", ErrDeltaInvalid)
	}
	if string(root.Name) != "n" || root.Type != bson.TypeEmbeddedDocument || len(body) > 0 {
		return 0, nil, fmt.Errorf("%w: root of an ordered delta", ErrDeltaInvalid)
	}
	return rule, root.Value, nil
}

// orderedApplier applies an ordered delta as a server applies the $set and
// $unset of its own log: an existing field is set where it stands, the first
// of several with one name; a new one is added at the end, with the documents
// that lead to it; an array grows by null; unset leaves null in arrays; what
// cannot be walked (a name inside an array, anything inside a scalar) is not
// made when the log is replayed, which is Lenient, and is a mismatch in Strict.
type orderedApplier struct {
	*applier
	rule int32
}

func (a *applier) ordered(doc, delta []byte) error {
	rule, node, err := readOrdered(delta)
	if err != nil {
		return err
	}
	o := orderedApplier{applier: a, rule: rule}
	return o.document(doc, node, 0)
}

// pushNode puts a node's changes on the stack and returns the array length
// that it asks for, or -1.
func (o *orderedApplier) pushNode(node []byte, depth int) (length int, err error) {
	if depth > rawbson.MaxDepth {
		return 0, fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	length = -1
	body, err := rawbson.Body(node)
	if err != nil {
		return 0, err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return 0, err
		}
		body = rest
		if n, ok := e.Int32(); ok && len(e.Name) == 1 && e.Name[0] == 'l' && n >= 0 {
			length = int(n)
			continue
		}
		if len(e.Name) < 2 || (e.Name[0] == opInside && e.Type != bson.TypeEmbeddedDocument) {
			return 0, fmt.Errorf("%w: change %q", ErrDeltaInvalid, e.Name)
		}
		o.changes = append(o.changes, change{name: e.Name[2:], elem: e, op: e.Name[0], kind: e.Name[1]})
	}
	return length, nil
}

// document appends doc with a node's changes.
func (o *orderedApplier) document(doc, node []byte, depth int) error {
	body, err := rawbson.Body(doc)
	if err != nil {
		return err
	}
	base := len(o.changes)
	length, err := o.pushNode(node, depth)
	if err != nil {
		return err
	}
	if length >= 0 {
		if err := o.misfit(nil, "want an array, the document holds a document"); err != nil {
			return err
		}
	}
	names := o.levelFrom(base)
	var at int
	o.dst, at = rawbson.Begin(o.dst)
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if err := o.checkDotted(names, e.Name); err != nil {
			return err
		}
		i := o.find(names, e.Name)
		if i < 0 || o.changes[i].hit || o.changes[i].kind == kindPosition {
			o.dst = append(o.dst, e.Raw...)
			continue
		}
		o.changes[i].hit = true
		if err := o.change(&e, e.Name, o.changes[i], depth); err != nil {
			return under(e.Name, err)
		}
	}
	for i := base; i < len(o.changes); i++ {
		if err := o.create(o.changes[i], depth); err != nil {
			return err
		}
	}
	o.changes = o.changes[:base]
	o.dst = rawbson.End(o.dst, at)
	return nil
}

// checkDotted finds a field whose own name holds a dot and could be what a
// path meant: path a.b with both a field "a.b" and a change inside "a".
func (o *orderedApplier) checkDotted(names level, field []byte) error {
	if o.rule != ruleUncertain {
		return nil
	}
	dot := bytes.IndexByte(field, '.')
	if dot < 0 {
		return nil
	}
	if i := o.find(names, field[:dot]); i >= 0 && o.changes[i].op == opInside {
		return &pathError{path: []string{string(field)}, what: "a field has this dotted name", err: ErrDeltaAmbiguous}
	}
	return nil
}

// change appends element e of a document with one change made to it.
func (o *orderedApplier) change(e *rawbson.Element, name []byte, c change, depth int) error {
	switch c.op {
	case opSet:
		o.dst = rawbson.AppendValue(o.dst, c.elem.Type, name, c.elem.Value)
		return nil
	case opUnset:
		o.trace.Removed = true
		return nil
	default:
		return o.inside(e, name, c.elem.Value, depth)
	}
}

// inside appends element e with a node's changes made inside it.
func (o *orderedApplier) inside(e *rawbson.Element, name, node []byte, depth int) error {
	switch e.Type {
	case bson.TypeEmbeddedDocument:
		o.dst = rawbson.AppendHeader(o.dst, e.Type, name)
		return o.document(e.Value, node, depth+1)
	case bson.TypeArray:
		o.dst = rawbson.AppendHeader(o.dst, e.Type, name)
		return o.array(e.Value, node, depth+1)
	}
	o.dst = rawbson.AppendValue(o.dst, e.Type, name, e.Value)
	if o.lenient {
		return nil
	}
	return wrongHolder(e.Type, bson.TypeEmbeddedDocument)
}

// create appends what a change adds to a document that lacks the field.
func (o *orderedApplier) create(c change, depth int) error {
	if c.hit || c.op == opUnset {
		return nil
	}
	if c.kind == kindPosition {
		return o.misfit(c.name, "want an array, the document holds a document")
	}
	if c.op == opSet {
		o.trace.Added = true
		o.dst = rawbson.AppendValue(o.dst, c.elem.Type, c.name, c.elem.Value)
		return nil
	}
	sets, err := nodeSets(c.elem.Value, 0)
	if err != nil || !sets {
		return err
	}
	if o.rule == ruleUncertain {
		return &pathError{path: []string{string(c.name)}, what: "there is no such field to go into", err: ErrDeltaAmbiguous}
	}
	o.trace.Added = true
	o.dst = rawbson.AppendHeader(o.dst, bson.TypeEmbeddedDocument, c.name)
	return under(c.name, o.document(emptyDocument(), c.elem.Value, depth+1))
}

// emptyDocument is what a server creates on the way to a new field.
func emptyDocument() []byte { return []byte{5, 0, 0, 0, 0} }

// nodeSets reports whether a node sets anything: one that only unsets does not
// create the documents on its way.
func nodeSets(node []byte, depth int) (bool, error) {
	if depth > rawbson.MaxDepth {
		return false, fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(node)
	if err != nil {
		return false, err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return false, err
		}
		body = rest
		if len(e.Name) < 2 {
			continue
		}
		sets := e.Name[0] == opSet
		if e.Name[0] == opInside {
			if sets, err = nodeSets(e.Value, depth+1); err != nil {
				return false, err
			}
		}
		if sets {
			return true, nil
		}
	}
	return false, nil
}
