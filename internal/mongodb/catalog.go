package mongodb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// ownDatabase is where Tributary keeps its own records in a deployment.
const ownDatabase = "tributary"

// codeNamespaceNotFound is the server's NamespaceNotFound.
const codeNamespaceNotFound = 26

// CatalogEntry is one collection or view as the server lists it. The caller
// owns the raw documents.
type CatalogEntry struct {
	NS event.Namespace
	// UUID is zero for views and where a stand-in does not say.
	UUID event.UUID
	// View tells a view, which has options and nothing else; Timeseries a
	// time-series collection.
	View, Timeseries bool
	// Options is listCollections' options document, raw; never nil.
	Options bson.Raw
	// Indexes are listIndexes' documents, raw, that of _id included.
	Indexes []bson.Raw
}

// Capped reports whether the collection is capped.
func (e CatalogEntry) Capped() bool {
	v, err := e.Options.LookupErr("capped")
	if err != nil {
		return false
	}
	if b, ok := v.BooleanOK(); ok {
		return b
	}
	n, ok := v.AsFloat64OK()
	return ok && n != 0
}

const (
	// listings is how often a listing is begun again because of an election.
	listings = 5
	// committedInterval is how often a listing asks whether a majority has it.
	committedInterval = 50 * time.Millisecond
)

// errElections passes when the source has a primary for a while.
var errElections = errors.New("elections disturbed every listing of the collections")

// ListCommitted is ListCollections of what a majority of a replica set has. A
// server lists what it has itself, and an election may roll that back: creations
// and drops alike. So a listing counts once the primary says, in the term in
// which it listed, that a majority has everything up to then. Deployments that
// do not tell such times (sharded clusters, stand-ins) are listed as they are.
func ListCommitted(ctx context.Context, client *mongo.Client, keep func(db, coll string) bool) ([]CatalogEntry, error) {
	for range listings {
		before, err := sayHello(ctx, client)
		if err != nil {
			return nil, err
		}
		entries, err := ListCollections(ctx, client, keep)
		if err != nil {
			return nil, err
		}
		after, err := sayHello(ctx, client)
		if err != nil {
			return nil, err
		}
		listed := after.LastWrite.OpTime
		if listed.TS.IsZero() || after.LastWrite.MajorityOpTime.TS.IsZero() {
			return entries, nil
		}
		if listed.Term != before.LastWrite.OpTime.Term {
			continue
		}
		if committed, err := awaitCommitted(ctx, client, listed); err != nil || committed {
			return entries, err
		}
	}
	return nil, errElections
}

// awaitCommitted blocks until a majority has at, and returns false when another
// term began before.
func awaitCommitted(ctx context.Context, client *mongo.Client, at opTime) (bool, error) {
	tick := time.NewTicker(committedInterval)
	defer tick.Stop()
	for {
		h, err := sayHello(ctx, client)
		if err != nil {
			return false, err
		}
		majority := h.LastWrite.MajorityOpTime
		if h.LastWrite.OpTime.Term != at.Term || majority.Term > at.Term {
			return false, nil
		}
		if majority.Term == at.Term && event.CompareTimes(majority.TS, at.TS) >= 0 {
			return true, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, fmt.Errorf("wait until a majority has the listed collections: %w", context.Cause(ctx))
		}
	}
}

// ListCollections returns the collections and views that keep accepts, in the
// order of their namespaces. The databases admin, local, config and tributary
// and system collections are left out before keep is asked. A collection that
// is dropped meanwhile is left out as well, and so are indexes that are still
// being built: their end comes later. It makes one round trip a database
// and one a collection.
func ListCollections(ctx context.Context, client *mongo.Client, keep func(db, coll string) bool) ([]CatalogEntry, error) {
	databases, err := client.ListDatabaseNames(ctx, bson.D{}, options.ListDatabases().SetNameOnly(true))
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", Explain(err, "the role readAnyDatabase"))
	}
	var entries []CatalogEntry
	for _, db := range databases {
		switch db {
		case "admin", "local", "config", ownDatabase:
			continue
		}
		found, err := listDatabase(ctx, client.Database(db), keep)
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	slices.SortFunc(entries, func(a, b CatalogEntry) int {
		return cmp.Or(cmp.Compare(a.NS.DB, b.NS.DB), cmp.Compare(a.NS.Coll, b.NS.Coll))
	})
	return entries, nil
}

func listDatabase(ctx context.Context, db *mongo.Database, keep func(db, coll string) bool) (entries []CatalogEntry, err error) {
	cursor, err := db.ListCollections(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("list collections db=%s: %w", db.Name(), Explain(err, "the role readAnyDatabase"))
	}
	listed, err := drain(ctx, cursor)
	if err != nil {
		return nil, fmt.Errorf("list collections db=%s: %w", db.Name(), err)
	}
	for _, raw := range listed {
		e, err := readEntry(db.Name(), raw)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(e.NS.Coll, "system.") || !keep(e.NS.DB, e.NS.Coll) {
			continue
		}
		if !e.View {
			var gone bool
			if e.Indexes, gone, err = readyIndexes(ctx, db, e.NS.Coll); err != nil {
				return nil, fmt.Errorf("list indexes ns=%s: %w", e.NS, err)
			}
			if gone {
				continue
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func readEntry(db string, raw bson.Raw) (CatalogEntry, error) {
	var listed struct {
		Name    string   `bson:"name"`
		Type    string   `bson:"type"`
		Options bson.Raw `bson:"options"`
		Info    struct {
			UUID bson.Binary `bson:"uuid"`
		} `bson:"info"`
	}
	if err := bson.Unmarshal(raw, &listed); err != nil {
		return CatalogEntry{}, fmt.Errorf("read listed collection db=%s: %w", db, err)
	}
	e := CatalogEntry{
		NS: event.Namespace{DB: db, Coll: listed.Name}, View: listed.Type == "view",
		Timeseries: listed.Type == "timeseries", Options: listed.Options,
	}
	if len(e.Options) == 0 {
		e.Options = bson.Raw{5, 0, 0, 0, 0}
	}
	if len(listed.Info.UUID.Data) == len(e.UUID) {
		copy(e.UUID[:], listed.Info.UUID.Data)
	}
	return e, nil
}

// drain reads a cursor to its end and closes it.
func drain(ctx context.Context, cursor *mongo.Cursor) ([]bson.Raw, error) {
	var list []bson.Raw
	for cursor.Next(ctx) {
		list = append(list, bytes.Clone(cursor.Current))
	}
	if err := cursor.Err(); err != nil {
		return nil, err
	}
	return list, cursor.Close(ctx)
}
