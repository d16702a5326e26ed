package apply

import (
	"bytes"
	"strconv"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxPathDepth is how deep a path may go; servers stop at 200.
const maxPathDepth = 100

// operators is a delta as update operators: $set of fields that are there and
// $unset. Fields that a delta adds, arrays that it shortens and names that paths
// cannot say are left to the delta's own rules on the held document.
type operators struct {
	sets   []setting
	unsets []string
	// arrays are paths that must hold arrays.
	arrays []string
	// key are the conditions of the document's shard key.
	key []byte
}

type setting struct {
	path  string
	value bson.RawValue
	// exists says that the field must be there: in arrays, positions behind
	// the end are added by $set as by a delta.
	exists bool
}

// operatorsOf turns a delta into operators if these have the same effect, to the
// byte, on every document that the delta fits; ok is false otherwise.
func operatorsOf(delta event.Delta) (o operators, ok bool) {
	if delta.Ambiguous() {
		return operators{}, false
	}
	return o, o.addDocument(delta.Raw(), "", 0) && len(o.sets)+len(o.unsets) > 0
}

// addDocument adds a document's diff: {d, u, i, s<name>…}.
func (o *operators) addDocument(diff []byte, prefix string, depth int) bool {
	return depth < maxPathDepth && eachElement(diff, func(e *rawbson.Element) bool {
		switch {
		case string(e.Name) == "d":
			return eachElement(e.Value, func(f *rawbson.Element) bool {
				o.unsets = append(o.unsets, prefix+string(f.Name))
				return sayable(f.Name)
			})
		case string(e.Name) == "u":
			return eachElement(e.Value, func(f *rawbson.Element) bool {
				return sayable(f.Name) && o.set(prefix+string(f.Name), f, true)
			})
		case len(e.Name) > 1 && e.Name[0] == 's':
			return sayable(e.Name[1:]) && o.addInside(e.Value, prefix+string(e.Name[1:]), depth)
		}
		return false
	})
}

// addInside adds the diff of a nested document or array.
func (o *operators) addInside(diff []byte, path string, depth int) bool {
	first, found, err := rawbson.Lookup(diff, "a")
	if err != nil {
		return false
	}
	if !found || !first.True() {
		return o.addDocument(diff, path+".", depth+1)
	}
	o.arrays = append(o.arrays, path)
	return depth < maxPathDepth && eachElement(diff, func(e *rawbson.Element) bool {
		if string(e.Name) == "a" {
			return true
		}
		if len(e.Name) < 2 {
			return false // a new length
		}
		if _, err := strconv.ParseUint(string(e.Name[1:]), 10, 31); err != nil {
			return false
		}
		inside := path + "." + string(e.Name[1:])
		switch e.Name[0] {
		case 'u':
			return o.set(inside, e, false)
		case 's':
			return o.addInside(e.Value, inside, depth+1)
		}
		return false
	})
}

func (o *operators) set(path string, e *rawbson.Element, exists bool) bool {
	if e.Type == bson.TypeEmbeddedDocument || e.Type == bson.TypeArray {
		if bytes.IndexByte(e.Value, '$') >= 0 {
			if dollar, err := dollarInside(e.Value, e.Type, 0); dollar || err != nil {
				return false
			}
		}
	}
	o.sets = append(o.sets, setting{path: path, value: e.RawValue(), exists: exists})
	return true
}

// sayable reports whether a path can say a field's name.
func sayable(name []byte) bool {
	return len(name) > 0 && name[0] != '$' && bytes.IndexByte(name, '.') < 0
}

// eachElement calls f for every element until it returns false.
func eachElement(doc []byte, f func(*rawbson.Element) bool) bool {
	body, err := rawbson.Body(doc)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err == nil && !f(&e) {
			return false
		}
	}
	return err == nil
}

// operate adds an update by operators. Its filter also asks for what the delta
// takes for granted, so that a document which differs is not matched.
func (b *commandBuilder) operate(id bson.RawValue, o *operators) {
	b.updates.next(b.coll)
	dst, at := rawbson.Begin(b.updates.buf)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "q")
	dst, filter := rawbson.Begin(dst)
	dst = append(appendEqual(dst, id), o.key...)
	for _, path := range o.arrays {
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, path)
		var is int
		dst, is = rawbson.Begin(dst)
		dst = rawbson.AppendString(dst, "$type", "array")
		dst = rawbson.End(dst, is)
	}
	for _, s := range o.sets {
		if s.exists {
			dst = appendExists(dst, s.path)
		}
	}
	for _, path := range o.unsets {
		dst = appendExists(dst, path)
	}
	dst = rawbson.End(dst, filter)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "u")
	dst, u := rawbson.Begin(dst)
	if len(o.sets) > 0 {
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "$set")
		var set int
		dst, set = rawbson.Begin(dst)
		for _, s := range o.sets {
			dst = rawbson.AppendValue(dst, s.value.Type, s.path, s.value.Value)
		}
		dst = rawbson.End(dst, set)
	}
	if len(o.unsets) > 0 {
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "$unset")
		var unset int
		dst, unset = rawbson.Begin(dst)
		for _, path := range o.unsets {
			dst = appendTrue(dst, path)
		}
		dst = rawbson.End(dst, unset)
	}
	dst = rawbson.End(dst, u)
	b.updates.buf = rawbson.End(dst, at)
}

func appendExists(dst []byte, path string) []byte {
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, path)
	dst, is := rawbson.Begin(dst)
	dst = appendTrue(dst, "$exists")
	return rawbson.End(dst, is)
}
