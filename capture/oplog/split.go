package oplog

import (
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Split cuts an applyOps entry into fragments of so many operations at most,
// nested ones not counted, for DecodeFragment to take one after another. They
// say of the session what the entry says. An entry that holds no more is
// returned as it is, and so is what is no applyOps entry or cannot be read.
func Split(entry bson.Raw, operations int) []bson.Raw {
	list, ok := applyOpsOf(entry)
	if !ok {
		return []bson.Raw{entry}
	}
	var (
		parts []bson.Raw
		from  int
		count int
	)
	for rest := list; len(rest) > 0; {
		_, next, err := rawbson.Next(rest)
		if err != nil {
			return []bson.Raw{entry}
		}
		rest = next
		if count++; count < operations && len(rest) > 0 {
			continue
		}
		at := len(list) - len(rest)
		if from == 0 && at == len(list) {
			break
		}
		parts = append(parts, withOperations(entry, list[from:at]))
		from, count = at, 0
	}
	if parts == nil {
		return []bson.Raw{entry}
	}
	return parts
}

// applyOpsOf returns the operations of an applyOps entry.
func applyOpsOf(entry bson.Raw) ([]byte, bool) {
	o, found, err := rawbson.Lookup(entry, "o")
	if err != nil || !found || o.Type != bson.TypeEmbeddedDocument {
		return nil, false
	}
	body, err := rawbson.Body(o.Value)
	if err != nil || len(body) == 0 {
		return nil, false
	}
	list, _, err := rawbson.Next(body)
	if err != nil || list.Type != bson.TypeArray || string(list.Name) != "applyOps" {
		return nil, false
	}
	body, err = rawbson.Body(list.Value)
	return body, err == nil
}

// withOperations returns an entry with other operations, whose names in the list
// stay as they are.
func withOperations(entry bson.Raw, operations []byte) bson.Raw {
	const overhead = 64
	dst, top := rawbson.Begin(make([]byte, 0, len(operations)+overhead))
	body, err := rawbson.Body(entry)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err == nil && string(e.Name) != "o" {
			dst = append(dst, e.Raw...)
		}
	}
	list, at := rawbson.Begin(make([]byte, 0, len(operations)+overhead))
	list = rawbson.End(append(list, operations...), at)
	o, at := rawbson.Begin(make([]byte, 0, len(list)+overhead))
	o = rawbson.End(rawbson.AppendValue(o, bson.TypeArray, "applyOps", list), at)
	return rawbson.End(rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "o", o), top)
}
