package apply

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tributarydb/tributary/internal/logfield"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// buildInterval is how often the destination is asked how far index builds have
// come.
const buildInterval = 5 * time.Second

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

// tellBuilds logs how far index builds of the load have come until ctx ends. A
// destination that does not say so is not asked again: the builds go on.
func (s *Service) tellBuilds(ctx context.Context) {
	for s.sleep(ctx, buildInterval) {
		list, err := indexBuilds(ctx, s.client)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Info().Err(sanitize(err)).Msg("the destination does not say how far index builds have come")
			}
			return
		}
		for _, b := range list {
			s.log.Info().Str(logfield.Target, b.NS).Str("step", b.Message).Int64("done", b.Progress.Done).Int64("total", b.Progress.Total).
				Int64("collections", s.progress.builds.collections.Load()).Int64("built", s.progress.builds.built.Load()).
				Msg("index build goes on")
		}
	}
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
