package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// kind is the recipe of one collection.
type kind struct {
	db, coll string
	// share is the part of the data set's documents, in percent.
	share int
	// id returns the _id of the numbered document.
	id func(number uint64) any
	// fields returns the rest of its first image.
	fields func(r *rand.Rand, number uint64) bson.D
	// indexes beside that of _id.
	indexes []mongo.IndexModel
	// updates are the shapes of updates that it gets; without any it is
	// written once and deleted.
	updates []update
	// weight is how often a writer picks it, relative to the others.
	weight int
	// late says that nothing of it is there at first: a writer makes it.
	late bool
	// capped makes it a capped collection, from which nothing is deleted.
	capped bool
}

// update changes one document that a filter selects.
type update func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error

// epoch is the time around which the data set's dates lie.
func epoch() time.Time { return time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC) }

// kinds returns the recipes for the source at hand.
func (c Config) kinds() []kind {
	if c.Standin {
		return standinKinds()
	}
	return append(standinKindsOnRealServers(), realKinds()...)
}

// standinKinds are those that every server takes.
func standinKinds() []kind {
	simple := simpleUpdates()
	return []kind{
		{
			db: "shop", coll: "customers", share: 20, weight: 4, id: objectID(1), fields: customer, updates: simple,
			indexes: []mongo.IndexModel{
				{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)},
				{Keys: bson.D{{Key: "address.city", Value: 1}, {Key: "created", Value: -1}}},
			},
		},
		{
			db: "shop", coll: "products", share: 10, weight: 2, id: textID("sku-%06d"), fields: product, updates: simple,
			indexes: []mongo.IndexModel{{Keys: bson.D{{Key: "name", Value: 1}}}},
		},
		{
			db: "shop", coll: "orders", share: 40, weight: 6, id: objectID(2), fields: order, updates: simple,
			indexes: []mongo.IndexModel{
				{Keys: bson.D{{Key: "customer", Value: 1}, {Key: "placed", Value: -1}}},
				{Keys: bson.D{{Key: "status", Value: 1}}},
			},
		},
		{db: "stats", coll: "pageviews", share: 28, weight: 3, id: objectID(3), fields: pageview},
		{db: "stats", coll: "days", share: 2, weight: 2, id: textID("day-%05d"), fields: day, updates: counterUpdates()},
		{db: "stats", coll: "searches", weight: 1, late: true, id: objectID(4), fields: pageview, updates: simple},
	}
}

// standinKindsOnRealServers are the same with what a real server adds.
func standinKindsOnRealServers() []kind {
	kinds := standinKinds()
	for i := range kinds {
		k := &kinds[i]
		if k.updates != nil {
			k.updates = append(k.updates, realUpdates()...)
		}
		switch k.coll {
		case "customers":
			k.indexes = append(k.indexes, mongo.IndexModel{
				Keys: bson.D{{Key: "tags", Value: 1}}, Options: options.Index().SetSparse(true),
			})
		case "products":
			k.indexes = append(k.indexes, mongo.IndexModel{
				Keys: bson.D{{Key: "description", Value: "text"}, {Key: "name", Value: "text"}},
			})
		case "orders":
			k.indexes = append(k.indexes, mongo.IndexModel{
				Keys: bson.D{{Key: "total", Value: -1}},
				Options: options.Index().SetPartialFilterExpression(bson.D{
					{Key: "status", Value: "open"},
				}),
			})
		case "pageviews":
			k.indexes = append(k.indexes, mongo.IndexModel{
				Keys: bson.D{{Key: "at", Value: 1}}, Options: options.Index().SetExpireAfterSeconds(50 * 365 * 24 * 3600),
			})
		}
	}
	return kinds
}

// realKinds need a real server.
func realKinds() []kind {
	return []kind{
		{
			db: "archive", coll: "everything", share: 3, weight: 2, id: mixedID, fields: everything,
			updates: append(simpleUpdates(), realUpdates()...),
		},
		{db: "archive", coll: "log", share: 1, weight: 1, capped: true, id: objectID(5), fields: pageview},
	}
}

// objectID returns ObjectIds that follow from a number; family keeps those of
// two kinds apart.
func objectID(family byte) func(uint64) any {
	return func(number uint64) any {
		var id bson.ObjectID
		binary.BigEndian.PutUint32(id[:4], uint32(epoch().Unix()))
		binary.BigEndian.PutUint64(id[4:], number)
		id[4] ^= family
		return id
	}
}

func textID(format string) func(uint64) any {
	return func(number uint64) any { return fmt.Sprintf(format, number) }
}

// mixedID returns _ids of many types, by turns.
func mixedID(number uint64) any {
	switch number % 9 {
	case 0:
		return int32(number)
	case 1:
		return int64(number) << 33
	case 2:
		return float64(number) + 0.5
	case 3:
		return bson.NewDecimal128(0x3040000000000000, number<<20)
	case 4:
		return bson.NewDateTimeFromTime(epoch().Add(time.Duration(number) * time.Second))
	case 5:
		return bson.D{{Key: "region", Value: "eu"}, {Key: "n", Value: int64(number)}}
	case 6:
		return bson.Binary{Subtype: bson.TypeBinaryUUID, Data: binary.BigEndian.AppendUint64(make([]byte, 8), number)}
	case 7:
		return bson.Timestamp{T: 1, I: uint32(number)}
	}
	return fmt.Sprintf("id %d", number)
}
