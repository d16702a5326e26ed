package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// prepare waits until the server answers and gives it an oplog where asked:
// FerretDB writes oplog entries as soon as local.oplog.rs is there.
func prepare(ctx context.Context, uri string, m mongoConfig, oplogMB int) (err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetAppName("embedded"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	if err := client.Ping(ctx, nil); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if !m.oplog {
		return nil
	}
	local := client.Database("local")
	names, err := local.ListCollectionNames(ctx, bson.D{{Key: "name", Value: "oplog.rs"}})
	if err != nil {
		return fmt.Errorf("look for oplog: %w", err)
	}
	if len(names) == 0 {
		size := int64(oplogMB) << 20
		if err := local.CreateCollection(ctx, "oplog.rs", options.CreateCollection().SetCapped(true).SetSizeInBytes(size)); err != nil {
			return fmt.Errorf("create oplog: %w", err)
		}
		return nil
	}
	return waitForNextSecond(ctx, local.Collection("oplog.rs"))
}

// waitForNextSecond returns once the clock has left the second of the oplog's
// last entry. FerretDB's cluster time is {second, counter} and the counter
// starts anew with the process: within that second a new entry would sort
// before an old one.
func waitForNextSecond(ctx context.Context, oplog *mongo.Collection) error {
	var last struct {
		TS bson.Timestamp `bson:"ts"`
	}
	err := oplog.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Decode(&last)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read last oplog entry: %w", err)
	}
	wait := time.NewTimer(time.Until(time.Unix(int64(last.TS.T)+1, 0)))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
