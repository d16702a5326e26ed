package mongodb

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

// ShardKeys returns the shard keys, {field: 1 or "hashed", …}, of a cluster's
// sharded collections; none for any other deployment. It blocks on the server
// and may be repeated.
func ShardKeys(ctx context.Context, client *mongo.Client) (map[event.Namespace]bson.Raw, error) {
	sharded, err := IsSharded(ctx, client)
	if err != nil || !sharded {
		return nil, err
	}
	config := client.Database("config", options.Database().SetReadConcern(readconcern.Majority()))
	// What is left of dropped ones says so (before 5.0).
	cursor, err := config.Collection("collections").Find(ctx, bson.D{{Key: "dropped", Value: bson.D{{Key: "$ne", Value: true}}}})
	var list []struct {
		NS  string   `bson:"_id"`
		Key bson.Raw `bson:"key"`
	}
	if err == nil {
		err = cursor.All(ctx, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("list sharded collections: %w", Explain(err, "read on database config"))
	}
	keys := make(map[event.Namespace]bson.Raw, len(list))
	for _, c := range list {
		ns, err := event.ParseNamespace(c.NS)
		if err != nil {
			return nil, fmt.Errorf("list sharded collections: %w", err)
		}
		keys[ns] = c.Key
	}
	return keys, nil
}
