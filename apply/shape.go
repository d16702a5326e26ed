package apply

import (
	"bytes"
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// shape is what decides which of a server's write paths keeps a document
// exactly as it is.
type shape struct {
	// idFirst: an insert moves _id to the front.
	idFirst bool
	// zeroTimes are top-level fields other than _id that hold Timestamp(0, 0),
	// which inserts and replacements fill with the server's time.
	zeroTimes []string
	// topDollar: a top-level name starts with $, which makes a replacement
	// read as operators, and which inserts accept from 5.0 on.
	topDollar bool
	// id is the raw _id element's value.
	id bson.RawValue
}

// plain reports whether an insert keeps the document as it is.
func (s *shape) plain() bool { return s.idFirst && len(s.zeroTimes) == 0 }

// shapeOf looks at the top level of a document.
func shapeOf(doc bson.Raw) (shape, error) {
	body, err := rawbson.Body(doc)
	if err != nil {
		return shape{}, fmt.Errorf("read document: %w", err)
	}
	var s shape
	for first := true; len(body) > 0; first = false {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return shape{}, fmt.Errorf("read document: %w", err)
		}
		body = rest
		switch {
		case string(e.Name) == "_id":
			if s.id.Type == 0 {
				s.id, s.idFirst = e.RawValue(), first
			}
		case e.Type == bson.TypeTimestamp && isZero(e.Value):
			s.zeroTimes = append(s.zeroTimes, string(e.Name))
		}
		if len(e.Name) > 0 && e.Name[0] == '$' {
			s.topDollar = true
		}
	}
	if s.id.Type == 0 {
		return shape{}, fmt.Errorf("read document: no _id")
	}
	return s, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// hasDollar reports whether a name inside the document starts with $ other than
// in a DBRef ($ref, $id and, optionally, $db in this order). Servers before 5.0
// refuse such a document as the result of any update, though they insert it.
// Names of array elements do not count.
func hasDollar(doc []byte) (bool, error) { return dollarInside(doc, bson.TypeEmbeddedDocument, 0) }

func dollarInside(doc []byte, t bson.Type, depth int) (bool, error) {
	if depth > rawbson.MaxDepth {
		return false, fmt.Errorf("read document: %w: nested deeper than %d", rawbson.ErrMalformed, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(doc)
	if err != nil {
		return false, fmt.Errorf("read document: %w", err)
	}
	before := ""
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return false, fmt.Errorf("read document: %w", err)
		}
		body = rest
		if t != bson.TypeArray && len(e.Name) > 0 && e.Name[0] == '$' {
			if !dbRefField(&e, before, body) {
				return true, nil
			}
			before = string(e.Name)
		} else {
			before = ""
		}
		if e.Type != bson.TypeEmbeddedDocument && e.Type != bson.TypeArray {
			continue
		}
		// Most values hold no $ at all, and looking for the byte is cheap.
		if bytes.IndexByte(e.Value, '$') < 0 {
			continue
		}
		found, err := dollarInside(e.Value, e.Type, depth+1)
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// dbRefField reports whether e is a field of a DBRef, given the name before it
// and what follows.
func dbRefField(e *rawbson.Element, before string, rest []byte) bool {
	switch string(e.Name) {
	case "$ref":
		if e.Type != bson.TypeString || len(rest) == 0 {
			return false
		}
		next, _, err := rawbson.Next(rest)
		return err == nil && string(next.Name) == "$id"
	case "$id":
		return before == "$ref"
	case "$db":
		return before == "$id" && e.Type == bson.TypeString
	}
	return false
}

// sameBytes reports whether two values are the same to the byte; 1 and 1.0 are
// equal to a server and not the same.
func sameBytes(a, b bson.RawValue) bool {
	return a.Type == b.Type && bytes.Equal(a.Value, b.Value)
}
