package apply

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// DuplicateKey is one key of a unique index that several documents have. Its
// texts are content of documents: for the operator's eyes, never for logs.
type DuplicateKey struct {
	// Key is the key as Extended JSON, without its field names where it has
	// several; IDs are _ids of documents that have it.
	Key string   `json:"key"`
	IDs []string `json:"ids"`
	// Documents counts them; zero where that is not known.
	Documents int64 `json:"documents,omitempty"`
}

// duplicates looks for keys that several documents share, n at most. It reads
// the whole collection, and takes an array for one key: what only its elements
// share, the build finds.
func (c *converter) duplicates(ctx context.Context, n int) ([]DuplicateKey, error) {
	paths, err := c.paths()
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	opts := options.Aggregate().SetAllowDiskUse(true)
	if collation, ok := c.wanted.Lookup("collation").DocumentOK(); ok && !simple(c.wanted.Lookup("collation")) {
		var asked options.Collation
		if err := bson.Unmarshal(collation, &asked); err != nil {
			return nil, fmt.Errorf("read collation index=%s: %w", c.name, err)
		}
		opts.SetCollation(&asked)
	}
	cursor, err := c.db().Collection(c.target.Coll).Aggregate(ctx, c.grouping(paths, n), opts)
	if err != nil {
		return nil, fmt.Errorf("look for duplicates ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	var groups []struct {
		Key   bson.Raw      `bson:"_id"`
		N     int64         `bson:"n"`
		First bson.RawValue `bson:"first"`
		Last  bson.RawValue `bson:"last"`
	}
	if err := cursor.All(ctx, &groups); err != nil {
		return nil, fmt.Errorf("look for duplicates ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	found := make([]DuplicateKey, 0, len(groups))
	for _, g := range groups {
		found = append(found, DuplicateKey{Key: keyText(g.Key), IDs: []string{idText(g.First), idText(g.Last)}, Documents: g.N})
	}
	return found, nil
}

// paths returns the fields of a unique index whose keys an aggregation can
// group; none otherwise.
func (c *converter) paths() ([]string, error) {
	key, ok := c.wanted.Lookup("key").DocumentOK()
	if !ok || !rules.UniqueIndex(c.wanted) {
		return nil, nil
	}
	elements, err := key.Elements()
	if err != nil {
		return nil, fmt.Errorf("read index=%s: %w", c.name, err)
	}
	var paths []string
	for _, e := range elements {
		if _, plain := e.Value().AsFloat64OK(); !plain {
			return nil, nil
		}
		paths = append(paths, e.Key())
	}
	return paths, nil
}

// grouping is the aggregation of duplicates.
func (c *converter) grouping(paths []string, n int) bson.A {
	pipeline := bson.A{}
	if partial, ok := c.wanted.Lookup("partialFilterExpression").DocumentOK(); ok {
		pipeline = append(pipeline, bson.D{{Key: "$match", Value: partial}})
	}
	if v, err := c.wanted.LookupErr("sparse"); err == nil && isTrue(v) {
		some := bson.A{}
		for _, path := range paths {
			some = append(some, bson.D{{Key: path, Value: bson.D{{Key: "$exists", Value: true}}}})
		}
		pipeline = append(pipeline, bson.D{{Key: "$match", Value: bson.D{{Key: "$or", Value: some}}}})
	}
	id := bson.D{}
	for i, path := range paths {
		// A field that is missing has the key null.
		id = append(id, bson.E{Key: "k" + strconv.Itoa(i), Value: bson.D{{Key: "$ifNull", Value: bson.A{"$" + path, nil}}}})
	}
	return append(pipeline,
		bson.D{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: id},
			{Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}},
			{Key: "first", Value: bson.D{{Key: "$min", Value: "$_id"}}},
			{Key: "last", Value: bson.D{{Key: "$max", Value: "$_id"}}},
		}}},
		bson.D{{Key: "$match", Value: bson.D{{Key: "n", Value: bson.D{{Key: "$gt", Value: 1}}}}}},
		bson.D{{Key: "$limit", Value: n}},
	)
}

// answered returns the duplicate that the server named when it refused a build.
func (c *converter) answered(ctx context.Context, cause error) ([]DuplicateKey, error) {
	var answer mongo.CommandError
	if !errors.As(cause, &answer) || !hasCode(cause, codeDuplicateKey) {
		return nil, nil
	}
	value, ok := answer.Raw.Lookup("keyValue").DocumentOK()
	if !ok {
		return nil, nil
	}
	opts := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetLimit(2)
	cursor, err := c.db().Collection(c.target.Coll).Find(ctx, value, opts)
	if err != nil {
		return nil, fmt.Errorf("look for duplicates ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	found := DuplicateKey{Key: keyText(value)}
	for cursor.Next(ctx) {
		found.IDs = append(found.IDs, idText(cursor.Current.Lookup("_id")))
	}
	if err := errors.Join(cursor.Err(), cursor.Close(ctx)); err != nil {
		return nil, fmt.Errorf("look for duplicates ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	return []DuplicateKey{found}, nil
}

// keyText is an index key as Extended JSON: the value alone where there is one
// field.
func keyText(key bson.Raw) string {
	elements, err := key.Elements()
	if err == nil && len(elements) == 1 {
		return idText(elements[0].Value())
	}
	return idText(bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: key})
}
