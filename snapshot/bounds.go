package snapshot

import (
	"bytes"
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// maxChunksPerCollection bounds the work items of one collection.
	maxChunksPerCollection = 4096
	// samplesPerChunk makes chunks of a collection differ by a fifth or so.
	samplesPerChunk = 20
	// steppedDocuments is the size up to which bounds are found by walking the
	// whole _id index, which takes a second or two and is exact. Random
	// documents, taken beyond it, come from a part of a small collection more
	// than from another. It also keeps all samples below 5 % of a collection,
	// above which a server would sort all of it.
	steppedDocuments = 2_000_000
)

// chunkCount is how many chunks a collection of that size should have.
func chunkCount(documents, size, chunkDocuments, chunkBytes int64) int {
	n := max(ceilDiv(documents, chunkDocuments), ceilDiv(size, chunkBytes), 1)
	return int(min(n, maxChunksPerCollection, max(documents, 1)))
}

func ceilDiv(a, b int64) int64 {
	if a <= 0 {
		return 0
	}
	return (a-1)/b + 1
}

// bounds returns up to n-1 {_id: …} documents, in the order of the _id index,
// that cut a collection of about that many documents into chunks of about the
// same number of documents.
func bounds(ctx context.Context, coll *mongo.Collection, documents int64, n int) ([]bson.Raw, error) {
	if n < 2 {
		return nil, nil
	}
	if documents > steppedDocuments {
		ids, err := sample(ctx, coll, int64(n)*samplesPerChunk)
		if err == nil {
			return quantiles(ids, n)
		}
		if !unsupported(err) {
			return nil, err
		}
	}
	return steps(ctx, coll, documents/int64(n), n)
}

// sample returns random _ids in the order of the _id index, some perhaps twice.
func sample(ctx context.Context, coll *mongo.Collection, n int64) ([]bson.Raw, error) {
	pipeline := bson.A{
		bson.D{{Key: "$sample", Value: bson.D{{Key: "size", Value: n}}}},
		bson.D{{Key: "$project", Value: onlyID()}},
		bson.D{{Key: "$sort", Value: onlyID()}},
	}
	cursor, err := coll.Aggregate(ctx, pipeline, options.Aggregate().SetAllowDiskUse(true))
	if err != nil {
		return nil, fmt.Errorf("sample _id ns=%s.%s: %w", coll.Database().Name(), coll.Name(), err)
	}
	var ids []bson.Raw
	for cursor.Next(ctx) {
		ids = append(ids, bytes.Clone(cursor.Current))
	}
	if err := cursor.Err(); err != nil {
		return nil, fmt.Errorf("sample _id ns=%s.%s: %w", coll.Database().Name(), coll.Name(), err)
	}
	return ids, cursor.Close(ctx)
}

// quantiles picks the samples that part them into n equal shares, each once: a
// bound must lie before the next one.
func quantiles(sorted []bson.Raw, n int) ([]bson.Raw, error) {
	var (
		picked []bson.Raw
		last   []byte
	)
	for i := 1; i < n; i++ {
		at := i * len(sorted) / n
		if at >= len(sorted) {
			break
		}
		key, err := idKey(sorted[at])
		if err != nil {
			return nil, err
		}
		if last != nil && bytes.Equal(key, last) || endOfIndex(sorted[at]) {
			continue
		}
		id, err := idOf(sorted[at])
		if err != nil {
			return nil, err
		}
		picked, last = append(picked, id), key
	}
	return picked, nil
}

// endOfIndex reports whether an _id is an end of every index. Those are no
// bounds: nothing lies beyond them, and a server refuses an empty range.
func endOfIndex(id bson.Raw) bool {
	return idType(id) == bson.TypeMinKey || idType(id) == bson.TypeMaxKey
}

// idType is the type of a document's _id.
func idType(id bson.Raw) bson.Type {
	e, _, err := rawbson.Lookup(id, "_id")
	if err != nil {
		return 0
	}
	return e.Type
}

// steps walks the _id index, every step documents a bound. It reads index keys
// alone, and costs a round trip a chunk.
func steps(ctx context.Context, coll *mongo.Collection, step int64, n int) ([]bson.Raw, error) {
	var picked []bson.Raw
	step = max(step, 1)
	for range n - 1 {
		opts := options.FindOne().SetHint(onlyID()).SetProjection(onlyID()).SetSkip(step)
		if len(picked) > 0 {
			opts.SetMin(picked[len(picked)-1])
		}
		raw, err := coll.FindOne(ctx, bson.D{}, opts).Raw()
		if noDocuments(err) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("step through _id index ns=%s.%s: %w", coll.Database().Name(), coll.Name(), err)
		}
		if endOfIndex(raw) {
			break // the last one; MinKey is the first and never met
		}
		id, err := idOf(raw)
		if err != nil {
			return nil, err
		}
		picked = append(picked, id)
	}
	return picked, nil
}

// hasIDIndex reports whether the indexes have one on _id alone, the index of a
// clustered collection included.
func hasIDIndex(indexes []bson.Raw) bool {
	for _, index := range indexes {
		key, ok, err := rawbson.Lookup(index, "key")
		if err != nil || !ok || key.Type != bson.TypeEmbeddedDocument {
			continue
		}
		body, err := rawbson.Body(key.Value)
		if err != nil {
			continue
		}
		first, rest, err := rawbson.Next(body)
		if err != nil || len(rest) > 0 || string(first.Name) != "_id" {
			continue
		}
		direction := first.RawValue()
		if f, ok := direction.AsFloat64OK(); ok && f == 1 {
			return true
		}
	}
	return false
}
