package changestream

import (
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Assembler puts the fragments of split changes together. It is used from one
// goroutine. Its zero value takes no fragment: Limit bounds what it holds.
type Assembler struct {
	// Limit is the largest change in bytes.
	Limit int

	first    change
	next, of int
	dst      []byte
}

// Pending reports whether a change is held of which not all fragments are there.
// The stream cannot be left at its last token then.
func (a *Assembler) Pending() bool { return a.next > 1 }

// Add takes over the next document of the stream. It returns a whole change, or
// nil as long as fragments are missing. What it returns is the document itself
// or, for a split change, memory of its own: {_id: <the last token>, …}.
func (a *Assembler) Add(doc bson.Raw, h Header) (bson.Raw, error) {
	if h.Fragment == 0 {
		if a.Pending() {
			return nil, a.first.malformed("a change between the fragments of another")
		}
		return doc, nil
	}
	if h.Fragment == 1 && !a.Pending() {
		c, err := readChange(doc)
		if err != nil {
			return nil, err
		}
		a.first, a.next, a.of, a.dst = c, 1, h.Fragments, nil
		a.first.key, a.first.full, a.first.description, a.first.diff = nil, nil, nil, nil
	}
	if h.Fragment != a.next || h.Fragments != a.of {
		return nil, a.first.malformed(fmt.Sprintf("fragment %d of %d where %d of %d was to come", h.Fragment, h.Fragments, a.next, a.of))
	}
	if len(a.dst)+len(doc) > a.Limit {
		return nil, a.first.fail(fmt.Errorf("%w: more than %d bytes", ErrTooLarge, a.Limit), "")
	}
	if err := a.take(doc); err != nil {
		return nil, err
	}
	if a.next < a.of {
		a.next++
		return nil, nil
	}
	whole, at := rawbson.Begin(make([]byte, 0, len(a.dst)+len(h.Token)+16))
	whole = rawbson.AppendValue(whole, bson.TypeEmbeddedDocument, "_id", h.Token)
	whole = rawbson.End(append(whole, a.dst...), at)
	a.first, a.next, a.of, a.dst = change{}, 0, 0, nil
	return whole, nil
}

// take copies a fragment's fields, without its token and its place.
func (a *Assembler) take(doc bson.Raw) error {
	body, err := rawbson.Body(doc)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err != nil {
			break
		}
		if name := string(e.Name); name != "_id" && name != "splitEvent" {
			a.dst = append(a.dst, e.Raw...)
		}
	}
	if err != nil {
		return a.first.fail(err, "")
	}
	return nil
}
