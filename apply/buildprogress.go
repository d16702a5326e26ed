package apply

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// buildCount counts the collections of a load whose indexes this process builds.
type buildCount struct{ collections, built atomic.Int64 }

// indexBuild is how far the destination has come with a build, as $currentOp
// shows it. A server shows the command and its own thread, which say the same.
type indexBuild struct {
	NS string `bson:"ns"`
	// Message names the build's phase.
	Message  string `bson:"msg"`
	Progress struct {
		Done  int64 `bson:"done"`
		Total int64 `bson:"total"`
	} `bson:"progress"`
}

// indexBuilds asks a destination for the index builds that are under way.
func indexBuilds(ctx context.Context, client *mongo.Client) ([]indexBuild, error) {
	cursor, err := client.Database("admin").Aggregate(ctx, bson.A{
		bson.D{{Key: "$currentOp", Value: bson.D{{Key: "allUsers", Value: true}}}},
		bson.D{{Key: "$match", Value: bson.D{
			{Key: "progress.total", Value: bson.D{{Key: "$gt", Value: 0}}},
			{Key: "msg", Value: bson.D{{Key: "$regex", Value: "^Index Build"}}},
		}}},
		bson.D{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: bson.D{{Key: "ns", Value: "$ns"}, {Key: "msg", Value: "$msg"}}},
			{Key: "ns", Value: bson.D{{Key: "$first", Value: "$ns"}}},
			{Key: "msg", Value: bson.D{{Key: "$first", Value: "$msg"}}},
			{Key: "progress", Value: bson.D{{Key: "$first", Value: "$progress"}}},
		}}},
	})
	if err != nil {
		return nil, fmt.Errorf("look at index builds: %w", err)
	}
	var list []indexBuild
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("look at index builds: %w", err)
	}
	return list, nil
}
