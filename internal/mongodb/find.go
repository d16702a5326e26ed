package mongodb

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// ListNames returns all collections and views of the deployment without their
// indexes, in no particular order. The databases admin, local, config and
// tributary are left out. It makes one round trip a database.
func ListNames(ctx context.Context, client *mongo.Client) ([]CatalogEntry, error) {
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
		found, err := listNames(ctx, client.Database(db), bson.D{})
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	return entries, nil
}

// FindCollection returns the collection or view of that UUID in db, whatever
// its name, or where the UUID is zero that of the name; nil if there is none.
// Indexes that are still being built are left out. It makes two round trips, or
// three if the name is another by now.
func FindCollection(ctx context.Context, db *mongo.Database, name string, uuid event.UUID) (*CatalogEntry, error) {
	found, err := listNames(ctx, db, bson.D{{Key: "name", Value: name}})
	if err != nil {
		return nil, err
	}
	if !uuid.IsZero() && (len(found) == 0 || found[0].UUID != uuid) {
		found, err = listNames(ctx, db, bson.D{{Key: "info.uuid", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: uuid[:]}}})
		if err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	e := &found[0]
	if e.View || e.Timeseries {
		return e, nil
	}
	var gone bool
	if e.Indexes, gone, err = readyIndexes(ctx, db, e.NS.Coll); err != nil {
		return nil, fmt.Errorf("list indexes ns=%s: %w", e.NS, err)
	}
	if gone {
		return nil, nil
	}
	return e, nil
}

func listNames(ctx context.Context, db *mongo.Database, filter bson.D) ([]CatalogEntry, error) {
	cursor, err := db.ListCollections(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list collections db=%s: %w", db.Name(), Explain(err, "the role readAnyDatabase"))
	}
	listed, err := drain(ctx, cursor)
	if err != nil {
		return nil, fmt.Errorf("list collections db=%s: %w", db.Name(), err)
	}
	entries := make([]CatalogEntry, 0, len(listed))
	for _, raw := range listed {
		e, err := readEntry(db.Name(), raw)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// readyIndexes is listIndexes without what is still being built, which the
// server lists as {spec, buildUUID} when it is asked to.
func readyIndexes(ctx context.Context, db *mongo.Database, coll string) (indexes []bson.Raw, gone bool, err error) {
	cursor, err := db.RunCommandCursor(ctx, bson.D{{Key: "listIndexes", Value: coll}, {Key: "includeBuildUUIDs", Value: true}})
	var listed []bson.Raw
	if err == nil {
		listed, err = drain(ctx, cursor)
	}
	if hasCode(err, codeNamespaceNotFound) {
		return nil, true, nil
	}
	for _, index := range listed {
		if _, building := index.LookupErr("buildUUID"); building != nil {
			indexes = append(indexes, index)
		}
	}
	return indexes, false, err
}
