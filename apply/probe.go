package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// probeCollection is where apply tries out how a destination stores documents.
const probeCollection = "probe"

// probeExact finds out, by trying, whether pipeline updates store a document as
// it is: with a top-level Timestamp(0, 0), and with _id elsewhere than first
// (which servers before 5.0 put right).
func probeExact(ctx context.Context, client *mongo.Client, able *abilities) (err error) {
	ns := event.Namespace{DB: ownDatabase, Coll: probeCollection}
	coll := client.Database(ns.DB).Collection(ns.Coll)
	id := bson.NewObjectID()
	idElement := rawbson.AppendValue(nil, bson.TypeObjectID, "_id", id[:])
	zeroElement := rawbson.AppendValue(nil, bson.TypeTimestamp, "t", make([]byte, 8))
	document := func(elements ...[]byte) bson.Raw {
		dst, at := rawbson.Begin(nil)
		return rawbson.End(append(dst, bytes.Join(elements, nil)...), at)
	}
	wanted := document(zeroElement, idElement)
	defer func() {
		_, gone := coll.DeleteOne(context.WithoutCancel(ctx), bson.D{{Key: "_id", Value: id}})
		if gone != nil && err == nil {
			err = fmt.Errorf("clean up after probe of updates: %w", gone)
		}
	}()
	b := newBuilder(ns.Coll, abilities{})
	key := bson.RawValue{Type: bson.TypeObjectID, Value: id[:]}
	if err := errors.Join(b.stub(key, wanted), b.set(key, wanted)); err != nil {
		return fmt.Errorf("probe updates: %w", err)
	}
	for _, c := range b.drain() {
		err := run(ctx, coll.Database(), ns, c)
		if err != nil && mongodb.Classify(err) != retry.Stop {
			return fmt.Errorf("probe updates: %w", err)
		}
		if err != nil {
			return nil // a refusal is an answer
		}
	}
	held, err := coll.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("probe updates: %w", err)
	}
	able.idAnywhere = bytes.Equal(held, wanted)
	able.pipelines = able.idAnywhere || bytes.Equal(held, document(idElement, zeroElement))
	return nil
}

// probeCollectionUUID finds out, by trying, whether a server refuses a DDL
// command whose collectionUUID is not the collection's. One that does not know
// the field says that there is no such collection, or that there is no such
// field.
func probeCollectionUUID(ctx context.Context, client *mongo.Client, able *abilities) error {
	id := bson.NewObjectID()
	uuid := bson.Binary{Subtype: bson.TypeBinaryUUID, Data: append(make([]byte, 4), id[:]...)}
	err := client.Database(ownDatabase).RunCommand(ctx, bson.D{
		{Key: "drop", Value: probeCollection + id.Hex()}, {Key: "collectionUUID", Value: uuid},
	}).Err()
	able.collectionUUID = hasCode(err, codeCollectionUUIDMismatch)
	var answer mongo.CommandError
	if err != nil && !errors.As(err, &answer) {
		return fmt.Errorf("probe collectionUUID: %w", err)
	}
	return nil
}
