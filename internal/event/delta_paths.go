package event

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// DotRule says what a dot in a logged path can mean.
type DotRule int

const (
	// DotsSeparate is for sources that log a dot only between two names, or
	// say where it is part of one: $v: 1 entries, change streams of a feature
	// compatibility version before 4.7 or, with expanded events, from 6.1.
	DotsSeparate DotRule = iota
	// DotsUncertain is for the others: a field name may hold a dot.
	DotsUncertain
)

// DeltaFromModifiers turns the $set and $unset documents of a $v: 1 oplog
// entry, either of which may be nil, into an ordered delta.
func DeltaFromModifiers(set, unset bson.Raw) (Delta, error) {
	t := newPathTree()
	if set != nil {
		if err := t.addPaths(set, opSet); err != nil {
			return nil, fmt.Errorf("read $set: %w", err)
		}
	}
	if unset != nil {
		if err := t.addPaths(unset, opUnset); err != nil {
			return nil, fmt.Errorf("read $unset: %w", err)
		}
	}
	return t.delta(ruleExact), nil
}

// DeltaFromUpdateDescription turns a change stream's updateDescription into an
// ordered delta. When two of its paths contradict each other, which only
// dotted names can cause, it returns ErrDeltaAmbiguous.
func DeltaFromUpdateDescription(description bson.Raw, dots DotRule) (Delta, error) {
	parts, err := readDescription(description)
	if err != nil {
		return nil, fmt.Errorf("read updateDescription: %w", err)
	}
	t := newPathTree()
	t.paths = parts.disambiguated
	steps := []func() error{
		func() error { return t.addTruncated(parts.truncated) },
		func() error { return t.addPaths(parts.updated, opSet) },
		func() error { return t.addRemoved(parts.removed) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("read updateDescription: %w", err)
		}
	}
	rule := ruleExact
	if dots == DotsUncertain {
		rule = ruleUncertain
	}
	return t.delta(rule), nil
}

// description is a change stream's updateDescription, taken apart.
type description struct {
	updated, removed, truncated []byte
	// disambiguated maps a path to the array of its parts.
	disambiguated map[string][]byte
}

func readDescription(raw []byte) (description, error) {
	empty := emptyDocument()
	d := description{updated: empty, removed: empty, truncated: empty}
	body, err := rawbson.Body(raw)
	if err != nil {
		return d, err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return d, err
		}
		body = rest
		want := bson.TypeArray
		switch string(e.Name) {
		case "updatedFields":
			d.updated, want = e.Value, bson.TypeEmbeddedDocument
		case "removedFields":
			d.removed = e.Value
		case "truncatedArrays":
			d.truncated = e.Value
		case "disambiguatedPaths":
			want = bson.TypeEmbeddedDocument
			if e.Type == want {
				d.disambiguated, err = documentMap(e.Value)
			}
		default:
			return d, invalid(e.Name, "unknown part of an update")
		}
		if err != nil {
			return d, err
		}
		if e.Type != want {
			return d, invalid(e.Name, "wrong type")
		}
	}
	return d, nil
}

func documentMap(doc []byte) (map[string][]byte, error) {
	body, err := rawbson.Body(doc)
	if err != nil {
		return nil, err
	}
	m := make(map[string][]byte)
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, err
		}
		if e.Type != bson.TypeArray {
			return nil, invalid(e.Name, "no list of a path's parts")
		}
		m[string(e.Name)] = e.Value
		body = rest
	}
	return m, nil
}

// addPaths adds every element of a document: its name is a path.
func (t *pathTree) addPaths(doc []byte, op byte) error {
	body, err := rawbson.Body(doc)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err == nil {
			err = rawbson.ValidateValue(&e)
		}
		if err != nil {
			return err
		}
		if err := t.addPath(string(e.Name), pathNode{op: op, typ: e.Type, value: e.Value}); err != nil {
			return err
		}
		body = rest
	}
	return nil
}

// addRemoved adds an array of paths to unset.
func (t *pathTree) addRemoved(array []byte) error {
	body, err := rawbson.Body(array)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		path, ok := e.Text()
		if !ok {
			return invalid(e.Name, "removed field is no string")
		}
		if err := t.addPath(string(path), pathNode{op: opUnset}); err != nil {
			return err
		}
		body = rest
	}
	return nil
}

// addTruncated adds an array of {field, newSize}.
func (t *pathTree) addTruncated(array []byte) error {
	body, err := rawbson.Body(array)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if e.Type != bson.TypeEmbeddedDocument {
			return invalid(e.Name, "truncated array is no document")
		}
		field, found, err := rawbson.Lookup(e.Value, "field")
		if err != nil {
			return err
		}
		path, ok := field.Text()
		size, found2, err := rawbson.Lookup(e.Value, "newSize")
		if err != nil {
			return err
		}
		n, ok2 := size.Int32()
		if !found || !found2 || !ok || !ok2 || n < 0 {
			return invalid(e.Name, "truncated array without field and newSize")
		}
		if err := t.addPath(string(path), pathNode{op: opInside, length: n}); err != nil {
			return err
		}
	}
	return nil
}

// addPath splits a path, or takes the parts that the source gave for it.
func (t *pathTree) addPath(path string, leaf pathNode) error {
	at := rootNode
	parts, given := t.paths[path]
	if given {
		return t.addParts(path, parts, leaf)
	}
	for {
		name, rest, more := strings.Cut(path, ".")
		kind := kindField
		if at != rootNode {
			kind = kindOf(name)
		}
		if !more {
			leaf.name, leaf.kind = name, kind
			return t.addLeaf(at, leaf)
		}
		var err error
		if at, err = t.enter(at, name, kind); err != nil {
			return err
		}
		path = rest
	}
}

// kindOf returns what a name in a path may be below the root.
func kindOf(name string) byte {
	if _, ok := parsePosition(name); ok {
		return kindEither
	}
	return kindField
}

// addParts adds a path by its parts: strings are names, integers positions.
func (t *pathTree) addParts(path string, parts []byte, leaf pathNode) error {
	body, err := rawbson.Body(parts)
	if err != nil {
		return err
	}
	at := rootNode
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		var name string
		kind := kindField
		if text, ok := e.Text(); ok {
			name = string(text)
		} else if n, ok := e.Int32(); ok && n >= 0 {
			name, kind = fmt.Sprint(n), kindPosition
		} else {
			return invalid([]byte(path), "part of a path is no name or position")
		}
		if len(body) == 0 {
			leaf.name, leaf.kind = name, kind
			return t.addLeaf(at, leaf)
		}
		if at, err = t.enter(at, name, kind); err != nil {
			return err
		}
	}
	return invalid([]byte(path), "path without parts")
}

// appendNode appends the children of a node as an ordered delta's node.
func (t *pathTree) appendNode(dst []byte, at int) []byte {
	dst, start := rawbson.Begin(dst)
	if n := t.nodes[at].length; n >= 0 {
		dst = rawbson.AppendHeader(dst, bson.TypeInt32, "l")
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	}
	for i := t.nodes[at].first; i != 0; i = t.nodes[i].next {
		n := &t.nodes[i]
		typ := n.typ
		switch n.op {
		case opInside:
			typ = bson.TypeEmbeddedDocument
		case opUnset:
			typ = bson.TypeBoolean
		}
		dst = append(dst, byte(typ), n.op, n.kind)
		dst = append(append(dst, n.name...), 0)
		switch n.op {
		case opInside:
			dst = t.appendNode(dst, i)
		case opUnset:
			dst = append(dst, 1)
		default:
			dst = append(dst, n.value...)
		}
	}
	return rawbson.End(dst, start)
}

// delta writes the tree.
func (t *pathTree) delta(rule int32) Delta {
	dst, at := rawbson.Begin(make([]byte, 0, t.size+16))
	dst = rawbson.AppendInt32(dst, "o", rule)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "n")
	dst = t.appendNode(dst, rootNode)
	return Delta(rawbson.End(dst, at))
}
