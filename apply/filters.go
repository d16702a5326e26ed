package apply

import (
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// appendIDFilter appends name: a filter for that _id.
func appendIDFilter(dst []byte, name string, id bson.RawValue, more ...byte) []byte {
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, name)
	dst, filter := rawbson.Begin(dst)
	dst = append(appendEqual(dst, id), more...)
	return rawbson.End(dst, filter)
}

// appendEqual appends _id: id, the form that servers look up without planning
// (and the only one for which the stand-in uses an index). A document may look
// like an operator, which $eq keeps a value.
func appendEqual(dst []byte, id bson.RawValue) []byte {
	if !beginsWithDollar(id) {
		return rawbson.AppendValue(dst, id.Type, "_id", id.Value)
	}
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "_id")
	dst, eq := rawbson.Begin(dst)
	dst = rawbson.AppendValue(dst, id.Type, "$eq", id.Value)
	return rawbson.End(dst, eq)
}

func appendTrue(dst []byte, name string) []byte {
	return append(rawbson.AppendHeader(dst, bson.TypeBoolean, name), 1)
}

func appendIDsFilter(dst []byte, ids []bson.RawValue) []byte {
	var plain, special []bson.RawValue
	for _, id := range ids {
		if beginsWithDollar(id) {
			special = append(special, id)
		} else {
			plain = append(plain, id)
		}
	}
	dst, filter := rawbson.Begin(dst)
	if len(special) == 0 {
		dst = appendIn(dst, plain)
		return rawbson.End(dst, filter)
	}
	dst = rawbson.AppendHeader(dst, bson.TypeArray, "$or")
	dst, or := rawbson.Begin(dst)
	n := 0
	branch := func(fill func([]byte) []byte) {
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, strconv.Itoa(n))
		var b int
		dst, b = rawbson.Begin(dst)
		dst = rawbson.End(fill(dst), b)
		n++
	}
	if len(plain) > 0 {
		branch(func(dst []byte) []byte { return appendIn(dst, plain) })
	}
	for _, id := range special {
		branch(func(dst []byte) []byte { return appendEqual(dst, id) })
	}
	dst = rawbson.End(dst, or)
	return rawbson.End(dst, filter)
}

func appendIn(dst []byte, ids []bson.RawValue) []byte {
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "_id")
	dst, in := rawbson.Begin(dst)
	dst = rawbson.AppendHeader(dst, bson.TypeArray, "$in")
	dst, array := rawbson.Begin(dst)
	for i, id := range ids {
		dst = rawbson.AppendValue(dst, id.Type, strconv.Itoa(i), id.Value)
	}
	dst = rawbson.End(dst, array)
	return rawbson.End(dst, in)
}

// beginsWithDollar reports whether an _id is a document whose first name begins
// with $ (a DBRef).
func beginsWithDollar(id bson.RawValue) bool {
	if id.Type != bson.TypeEmbeddedDocument {
		return false
	}
	body, err := rawbson.Body(id.Value)
	if err != nil || len(body) == 0 {
		return false
	}
	e, _, err := rawbson.Next(body)
	return err == nil && len(e.Name) > 0 && e.Name[0] == '$'
}
