package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

// shardKey is by what a sharded collection's documents are spread, where that is
// more than _id alone. Writes carry the values of the document that the
// destination holds, so that a router sends each to the one shard that owns the
// document: by _id alone it would ask every shard, and a copy that a migration
// has left behind would answer too.
type shardKey struct {
	// paths are the key's fields, "a.b" for one inside a document.
	paths []string
	// unsaid says that filters have the _id alone: under a collation other than
	// the binary one, routers and the _id index cannot both be told.
	unsaid bool
}

// newShardKey reads a key as {path: 1 or "hashed", …}; nil where filters by _id
// say it all.
func newShardKey(key bson.Raw) (*shardKey, error) {
	elements, err := key.Elements()
	if err != nil {
		return nil, fmt.Errorf("read shard key: %w", err)
	}
	k := &shardKey{}
	for _, e := range elements {
		k.paths = append(k.paths, e.Key())
	}
	if len(k.paths) == 0 || len(k.paths) == 1 && k.paths[0] == "_id" {
		return nil, nil
	}
	return k, nil
}

// ofID reports whether a field of the key is the _id or inside of it.
func ofID(path string) bool { return path == "_id" || strings.HasPrefix(path, "_id.") }

// value returns what a document has at a path; one that is missing is null, as
// routers take it.
func valueAt(doc bson.Raw, path string) (bson.RawValue, error) {
	for {
		name, rest, inside := strings.Cut(path, ".")
		e, found, err := rawbson.Lookup(doc, name)
		if err != nil {
			return bson.RawValue{}, fmt.Errorf("read shard key: %w", err)
		}
		if !found || inside && e.Type != bson.TypeEmbeddedDocument {
			return bson.RawValue{Type: bson.TypeNull}, nil
		}
		if !inside {
			return e.RawValue(), nil
		}
		doc, path = e.Value, rest
	}
}

// same reports whether two documents have the same key, to the byte: a server
// takes another spelling (1 and 1.0) for a change of the key, which it allows in
// transactions alone.
func (k *shardKey) same(a, b bson.Raw) (bool, error) {
	for _, path := range k.paths {
		left, err := valueAt(a, path)
		if err != nil {
			return false, err
		}
		right, err := valueAt(b, path)
		if err != nil || !sameBytes(left, right) {
			return false, err
		}
	}
	return true, nil
}

// appendFilter appends the conditions {path: {$eq: value}, …} of a document's
// key to a filter that has its _id; k may be nil. A document with a value that
// no condition can say is found by its _id alone.
func (k *shardKey) appendFilter(dst []byte, doc bson.Raw) ([]byte, error) {
	if k == nil || k.unsaid {
		return dst, nil
	}
	before := len(dst)
	for _, path := range k.paths {
		if ofID(path) {
			continue
		}
		v, err := valueAt(doc, path)
		if err != nil {
			return nil, err
		}
		switch v.Type {
		case bson.TypeUndefined, bson.TypeArray, bson.TypeRegex:
			return dst[:before], nil
		}
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, path)
		var eq int
		dst, eq = rawbson.Begin(dst)
		dst = rawbson.AppendValue(dst, v.Type, "$eq", v.Value)
		dst = rawbson.End(dst, eq)
	}
	return dst, nil
}

// appendProjection appends the key's fields to a projection that has _id; k may
// be nil.
func (k *shardKey) appendProjection(dst []byte) []byte {
	if k == nil {
		return dst
	}
	for _, path := range k.paths {
		if !ofID(path) {
			dst = rawbson.AppendInt32(dst, path, 1)
		}
	}
	return dst
}

// appendRoots appends those fields of a document, beside _id, that hold its key,
// as they are; k may be nil. Of a Timestamp(0, 0) it says errInexact: an insert
// would store another one, on another shard.
func (k *shardKey) appendRoots(dst []byte, doc bson.Raw) ([]byte, error) {
	if k == nil {
		return dst, nil
	}
	done := map[string]bool{"_id": true}
	for _, path := range k.paths {
		name, _, _ := strings.Cut(path, ".")
		if done[name] {
			continue
		}
		done[name] = true
		e, found, err := rawbson.Lookup(doc, name)
		if err != nil {
			return nil, fmt.Errorf("read shard key: %w", err)
		}
		if !found {
			continue
		}
		if e.Type == bson.TypeTimestamp && isZero(e.Value) {
			return nil, errInexact
		}
		dst = append(dst, e.Raw...)
	}
	return dst, nil
}

// heldSharding is how a destination's collection is spread.
type heldSharding struct {
	// Key is {path: 1 or "hashed", …}.
	Key bson.Raw `bson:"key"`
	// Unique says that the key is.
	Unique bool `bson:"unique"`
	// Dropped tells what is left of a collection that was dropped (before 5.0).
	Dropped bool `bson:"dropped"`
}

// shardingOf reads how a collection of a sharded cluster is spread; ok is false
// for one that is not.
func shardingOf(ctx context.Context, client *mongo.Client, ns event.Namespace) (s heldSharding, ok bool, err error) {
	config := client.Database("config", options.Database().SetReadConcern(readconcern.Majority()))
	err = config.Collection("collections").FindOne(ctx, byID(ns.String())).Decode(&s)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return heldSharding{}, false, nil
	}
	if err != nil {
		return heldSharding{}, false, fmt.Errorf("look up shard key ns=%s: %w", ns, mongodb.Explain(err, "read on database config"))
	}
	return s, !s.Dropped && len(s.Key) > 0, nil
}
