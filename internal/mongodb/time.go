package mongodb

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// MajorityTime returns the cluster time up to which the deployment's writes are
// majority-committed, as its primary knows it. A stand-in does not say; there
// it is the time of the newest oplog entry, or the earliest time there is
// ({1, 0}) while the oplog is empty. A sharded cluster has no such time; there it
// is the cluster's time, which is not earlier than what any shard has committed.
func MajorityTime(ctx context.Context, client *mongo.Client) (bson.Timestamp, error) {
	h, err := sayHello(ctx, client)
	if err != nil {
		return bson.Timestamp{}, err
	}
	if ts := h.LastWrite.MajorityOpTime.TS; !ts.IsZero() {
		return ts, nil
	}
	if h.Msg == routerMessage {
		return h.clusterTime()
	}
	return newestEntry(ctx, client)
}

// LatestTime returns the cluster time of the deployment's last write, committed
// by a majority or not; for a stand-in and a sharded cluster as MajorityTime.
func LatestTime(ctx context.Context, client *mongo.Client) (bson.Timestamp, error) {
	h, err := sayHello(ctx, client)
	if err != nil {
		return bson.Timestamp{}, err
	}
	if ts := h.LastWrite.OpTime.TS; !ts.IsZero() {
		return ts, nil
	}
	if h.Msg == routerMessage {
		return h.clusterTime()
	}
	return newestEntry(ctx, client)
}

// clusterTime returns the time that a router says it knows.
func (h *hello) clusterTime() (bson.Timestamp, error) {
	if h.ClusterTime.ClusterTime.IsZero() {
		return bson.Timestamp{}, errors.New("ask MongoDB for its cluster time: the router says none")
	}
	return h.ClusterTime.ClusterTime, nil
}

// newestEntry returns the time of the oplog's last entry.
func newestEntry(ctx context.Context, client *mongo.Client) (bson.Timestamp, error) {
	var last opTime
	err := client.Database("local").Collection("oplog.rs").
		FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Decode(&last)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return bson.Timestamp{T: 1}, nil
	}
	if err != nil {
		return bson.Timestamp{}, fmt.Errorf("read newest oplog entry: %w", Explain(err, "read on database local"))
	}
	return last.TS, nil
}
