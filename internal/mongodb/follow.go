package mongodb

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// ReadOplog reads one entry of a deployment's oplog, and returns an error that
// says what is missing where that is not possible. An oplog that is still empty,
// as a stand-in's may be, is fine.
func ReadOplog(ctx context.Context, client *mongo.Client) error {
	local := client.Database("local")
	err := local.Collection("oplog.rs").FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "ts", Value: 1}})).Err()
	if err == nil {
		return nil
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return fmt.Errorf("read oplog: %w", Explain(err, "read on database local and the role clusterMonitor"))
	}
	names, err := local.ListCollectionNames(ctx, bson.D{{Key: "name", Value: "oplog.rs"}})
	if err != nil {
		return fmt.Errorf("look for oplog: %w", err)
	}
	if len(names) == 0 {
		return errors.New("read oplog: the server has none: hint: a stand-in server needs a capped collection local.oplog.rs; a mongod needs --replSet and rs.initiate()")
	}
	return nil
}

// OplogReadable reports whether a deployment can be followed by its oplog, by
// reading it: a router has none, and hosted deployments refuse it. A failure
// that says nothing about it is an error.
func OplogReadable(ctx context.Context, client *mongo.Client, d Deployment) (bool, error) {
	if d.Sharded {
		return false, nil
	}
	const codeAtlasError = 8000
	err := ReadOplog(ctx, client)
	if hasCode(err, codeUnauthorized, codeAtlasError) {
		return false, nil
	}
	return err == nil, err
}

// OpenStream opens a change stream over the whole deployment and closes it again,
// to find out whether this user may.
func OpenStream(ctx context.Context, client *mongo.Client) error {
	stream, err := client.Watch(ctx, mongo.Pipeline{})
	if err != nil {
		return fmt.Errorf("open change stream: %w", Explain(err, "the roles readAnyDatabase and clusterMonitor"))
	}
	if err := stream.Close(ctx); err != nil {
		return fmt.Errorf("close change stream: %w", err)
	}
	return nil
}
