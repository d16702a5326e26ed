package rules

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// IndexPolicy says which properties of indexes a destination has before the
// operator finalises it. The zero value defers both.
type IndexPolicy struct {
	// Unique enforces unique indexes: their namespaces are kept in the order
	// of the whole collection.
	Unique bool
	// TTL enforces expiry: the destination expires documents by itself.
	TTL bool
}

// DeferIndex returns the form in which a destination builds an index before
// cutover: without unique and expireAfterSeconds where the policy does not
// enforce them, so that a replay can neither collide nor expire early. It
// reports whether that differs from spec; then what was taken off waits for
// finalize. The _id index is never changed. All other fields keep their bytes
// and their order; built aliases spec where nothing changed.
func DeferIndex(spec bson.Raw, policy IndexPolicy) (built bson.Raw, deferred bool, err error) {
	elements, err := spec.Elements()
	if err != nil {
		return nil, false, fmt.Errorf("read index: %w", err)
	}
	if isIDIndex(spec) {
		return spec, false, nil
	}
	start, dst := bsoncore.AppendDocumentStart(nil)
	for _, e := range elements {
		if weakens(e, policy) {
			deferred = true
			continue
		}
		dst = append(dst, e...)
	}
	if !deferred {
		return spec, false, nil
	}
	dst, err = bsoncore.AppendDocumentEnd(dst, start)
	if err != nil {
		return nil, false, fmt.Errorf("write index: %w", err)
	}
	return dst, true, nil
}

// weakens reports whether an element of an index is taken off until cutover.
// unique: false says nothing, yet stays where the source wrote it.
func weakens(e bson.RawElement, policy IndexPolicy) bool {
	switch e.Key() {
	case "unique":
		return !policy.Unique && truthy(e.Value())
	case "expireAfterSeconds":
		return !policy.TTL
	}
	return false
}

// UniqueIndex reports whether an index, other than that of _id, allows a key
// only once.
func UniqueIndex(spec bson.Raw) bool {
	v, err := spec.LookupErr("unique")
	return err == nil && truthy(v) && !isIDIndex(spec)
}

// TTLIndex reports whether an index expires documents.
func TTLIndex(spec bson.Raw) bool {
	_, err := spec.LookupErr("expireAfterSeconds")
	return err == nil
}

// truthy is the server's reading of a flag: a boolean or a number other than
// zero.
func truthy(v bson.RawValue) bool {
	if b, ok := v.BooleanOK(); ok {
		return b
	}
	if n, ok := v.AsFloat64OK(); ok {
		return n != 0
	}
	return false
}

func isIDIndex(spec bson.Raw) bool {
	key, ok := spec.Lookup("key").DocumentOK()
	if !ok {
		return false
	}
	elements, err := key.Elements()
	return err == nil && len(elements) == 1 && elements[0].Key() == "_id" && lookupString(spec, "name") == "_id_"
}

// lookupString returns a string field, or "" where there is none.
func lookupString(doc bson.Raw, field string) string {
	s, _ := doc.Lookup(field).StringValueOK()
	return s
}
