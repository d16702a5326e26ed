package mongodb

import (
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// CreatableIndex turns an index as listIndexes and the oplog show it into one
// that createIndexes takes: the stored form of a text index ({_fts: "text",
// _ftsx: 1} and weights) becomes its keys again, and ns goes away. Everything
// else keeps its bytes and its order.
func CreatableIndex(spec bson.Raw) (bson.Raw, error) {
	elements, err := spec.Elements()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	start, dst := bsoncore.AppendDocumentStart(nil)
	for _, e := range elements {
		switch e.Key() {
		case "ns":
			continue
		case "key":
			key, ok := e.Value().DocumentOK()
			if !ok {
				return nil, errors.New("read index: key is not a document")
			}
			dst = bsoncore.AppendHeader(dst, bsoncore.TypeEmbeddedDocument, "key")
			if dst, err = appendKey(dst, key, spec); err != nil {
				return nil, err
			}
		default:
			dst = append(dst, e...)
		}
	}
	dst, err = bsoncore.AppendDocumentEnd(dst, start)
	if err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return dst, nil
}

// appendKey appends the key document; the weighted fields of a text index take
// the place of _fts and _ftsx between prefix and suffix.
func appendKey(dst []byte, key, spec bson.Raw) ([]byte, error) {
	elements, err := key.Elements()
	if err != nil {
		return nil, fmt.Errorf("read index key: %w", err)
	}
	if text, ok := key.Lookup("_fts").StringValueOK(); !ok || text != "text" {
		return append(dst, key...), nil
	}
	start, dst := bsoncore.AppendDocumentStart(dst)
	for _, e := range elements {
		switch e.Key() {
		case "_fts":
			if dst, err = appendWeighted(dst, spec); err != nil {
				return nil, err
			}
		case "_ftsx":
		default:
			dst = append(dst, e...)
		}
	}
	dst, err = bsoncore.AppendDocumentEnd(dst, start)
	if err != nil {
		return nil, fmt.Errorf("write index key: %w", err)
	}
	return dst, nil
}

// appendWeighted appends {field: "text"} for every weighted field.
func appendWeighted(dst []byte, spec bson.Raw) ([]byte, error) {
	weights, ok := spec.Lookup("weights").DocumentOK()
	if !ok {
		return nil, errors.New("read text index: it has no weights")
	}
	elements, err := weights.Elements()
	if err != nil {
		return nil, fmt.Errorf("read text index: %w", err)
	}
	for _, e := range elements {
		dst = bsoncore.AppendStringElement(dst, e.Key(), "text")
	}
	return dst, nil
}

// ExplicitCollation returns an index that is created with the collation it has
// at the source: an index without one compares binary, yet createIndexes would
// give it the default collation of its collection, if options name one. The
// _id index always has the collection's. The result aliases spec where nothing
// changes.
func ExplicitCollation(spec, options bson.Raw) (bson.Raw, error) {
	if _, err := options.LookupErr("collation"); err != nil {
		return spec, nil
	}
	if _, err := spec.LookupErr("collation"); err == nil {
		return spec, nil
	}
	if name, _ := spec.Lookup("name").StringValueOK(); name == "_id_" {
		return spec, nil
	}
	elements, err := spec.Elements()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	start, dst := bsoncore.AppendDocumentStart(nil)
	for _, e := range elements {
		dst = append(dst, e...)
	}
	dst = bsoncore.AppendDocumentElement(dst, "collation", bsoncore.NewDocumentBuilder().AppendString("locale", "simple").Build())
	dst, err = bsoncore.AppendDocumentEnd(dst, start)
	if err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return dst, nil
}
