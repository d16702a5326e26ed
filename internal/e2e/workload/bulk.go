package workload

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// bulk writes several documents of a kind with one call, ordered or not.
func (w *writer) bulk(ctx context.Context, k *owned) error {
	var models []mongo.WriteModel
	for range 3 + w.random.IntN(8) {
		number, ok := w.number(k)
		if !ok {
			return nil
		}
		filter := w.filter(k, number)
		switch w.random.IntN(4) {
		case 0:
			number = k.base + k.inserted*w.writers + w.own
			k.inserted++
			doc := append(bson.D{{Key: "_id", Value: k.id(number)}}, k.fields(w.random, number)...)
			models = append(models, mongo.NewInsertOneModel().SetDocument(doc))
		case 1:
			models = append(models, mongo.NewDeleteOneModel().SetFilter(filter))
		default:
			models = append(models, mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(one("$set", "together", text(w.random, 3))))
		}
	}
	if _, err := k.coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(w.random.IntN(2) == 0)); err != nil {
		return fmt.Errorf("bulk write: %w", err)
	}
	w.live.bulks.Add(1)
	return nil
}

// errUndo ends a transaction that is to leave nothing behind.
var errUndo = errors.New("undo")

// abort changes documents in a transaction and aborts it.
func (w *writer) abort(ctx context.Context) error {
	session, err := w.live.cfg.Client.StartSession()
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	defer session.EndSession(ctx)
	k := w.pick()
	number, ok := w.number(k)
	if !ok || len(k.updates) == 0 {
		return nil
	}
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		for range 4 {
			if _, err := k.coll.UpdateOne(ctx, w.filter(k, number), one("$inc", "undone", 1)); err != nil {
				return nil, err
			}
		}
		return nil, errUndo
	})
	if !errors.Is(err, errUndo) {
		return fmt.Errorf("abort transaction: %w", err)
	}
	w.live.aborted.Add(1)
	return nil
}
