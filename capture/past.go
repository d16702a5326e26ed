package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// mongoPast reads the oplog of a MongoDB deployment.
type mongoPast struct{ oplog *mongo.Collection }

func (p mongoPast) fragmentAt(ctx context.Context, at bson.Timestamp) (link, error) {
	var found struct {
		Time     bson.Timestamp `bson:"ts"`
		Term     int64          `bson:"t"`
		LSID     bson.Raw       `bson:"lsid"`
		Number   int64          `bson:"txnNumber"`
		Previous struct {
			Time bson.Timestamp `bson:"ts"`
		} `bson:"prevOpTime"`
	}
	err := p.oplog.FindOne(ctx, between(at, at), options.FindOne().SetProjection(bson.D{
		{Key: "ts", Value: 1},
		{Key: "t", Value: 1},
		{Key: "lsid", Value: 1},
		{Key: "txnNumber", Value: 1},
		{Key: "prevOpTime.ts", Value: 1},
	})).Decode(&found)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return link{}, p.missing(ctx, at)
	}
	if err != nil {
		return link{}, &sourceError{fmt.Errorf("read oplog entry position=%s: %w", event.Position{Time: at}, err)}
	}
	return link{
		position: event.Position{Time: found.Time, Term: found.Term}, previous: found.Previous.Time, lsid: found.LSID, number: found.Number,
	}, nil
}

func (p mongoPast) missing(ctx context.Context, at bson.Timestamp) error {
	oldest, err := oldestEntry(ctx, p.oplog)
	if err != nil {
		return err
	}
	if event.CompareTimes(at, oldest.Time) < 0 {
		return errRolledOver
	}
	return &transientError{fmt.Errorf("read oplog entry position=%s: it is not there, though the oplog begins at %s", event.Position{Time: at}, oldest)}
}

func (p mongoPast) commands(ctx context.Context, t *oplog.Transaction) (entryCursor, error) {
	filter := append(between(t.First.Time, t.Last.Time), bson.E{Key: "op", Value: "c"})
	if t.LSID != nil {
		filter = append(filter, bson.E{Key: "lsid", Value: t.LSID}, bson.E{Key: "txnNumber", Value: t.Number})
	}
	cursor, err := p.oplog.Find(ctx, filter, options.Find().SetNoCursorTimeout(true))
	if err != nil {
		return nil, &sourceError{fmt.Errorf("read oplog from position=%s to position=%s: %w", t.First, t.Last, err)}
	}
	return &mongoEntries{cursor: cursor}, nil
}

// between selects entries by time, in the form by which the server finds them
// without reading what comes before.
func between(first, last bson.Timestamp) bson.D {
	return bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: first}, {Key: "$lte", Value: last}}}}
}

type mongoEntries struct{ cursor *mongo.Cursor }

func (e *mongoEntries) next(ctx context.Context) (bson.Raw, error) {
	if e.cursor.Next(ctx) {
		return e.cursor.Current, nil
	}
	if err := e.cursor.Err(); err != nil {
		return nil, &sourceError{fmt.Errorf("read oplog: %w", err)}
	}
	return nil, nil
}

func (e *mongoEntries) close(ctx context.Context) { closeCursor(ctx, e.cursor) }
