package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/mongodb"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// finder finds the documents of one collection that match a filter.
type finder func(ctx context.Context, filter bson.D) (*mongo.Cursor, error)

// one returns the document that matches, or nil. The caller owns it.
func (find finder) one(ctx context.Context, filter bson.D) (bson.Raw, error) {
	cursor, err := find(ctx, filter)
	if err != nil {
		return nil, err
	}
	defer closeCursor(context.WithoutCancel(ctx), cursor)
	if cursor.Next(ctx) {
		return bytes.Clone(cursor.Current), nil
	}
	return nil, cursor.Err()
}

// findPresent finds documents as they are.
func findPresent(coll *mongo.Collection) finder {
	return func(ctx context.Context, filter bson.D) (*mongo.Cursor, error) { return coll.Find(ctx, filter) }
}

// findPast finds documents as they were at a cluster time (readConcern snapshot with
// atClusterTime; outside transactions since MongoDB 5.0).
func findPast(db *mongo.Database, coll string, at bson.Timestamp) finder {
	return func(ctx context.Context, filter bson.D) (*mongo.Cursor, error) {
		return db.RunCommandCursor(ctx, bson.D{
			{Key: "find", Value: coll},
			{Key: "filter", Value: filter},
			{Key: "readConcern", Value: bson.D{{Key: "level", Value: "snapshot"}, {Key: "atClusterTime", Value: at}}},
		}, options.RunCmd().SetReadPreference(readpref.Primary()))
	}
}

// What a server answers that cannot read at a time of the past at all, and that
// cannot read at this one any more, or across a change of its catalogue.
const (
	codeIllegalOperation    = 20
	codeInvalidOptions      = 72
	codeNotImplemented      = 238
	codeSnapshotTooOld      = 239
	codeSnapshotUnavailable = 246
)

// readPast reads documents as they were at the query's after. It returns nil
// where that cannot be told, so that the present must do.
func (s *mongoImages) readPast(ctx context.Context, q *query) (*reading, error) {
	r := &reading{exact: true, through: q.after}
	err := readDocuments(ctx, findPast(s.client.Database(q.at.NS.DB), q.at.NS.Coll, q.after), q, r)
	var refused mongo.ServerError
	switch {
	case err == nil:
	case !errors.As(err, &refused):
		return nil, &sourceError{err}
	case refused.HasErrorCode(codeSnapshotTooOld), refused.HasErrorCode(codeSnapshotUnavailable):
		return nil, nil
	case refused.HasErrorCode(codeInvalidOptions), refused.HasErrorCode(codeNotImplemented), refused.HasErrorCode(codeIllegalOperation):
		s.presentOnly.Store(true)
		return nil, nil
	default:
		return nil, &sourceError{err}
	}
	for i := range r.images {
		if r.images[i].document == nil {
			return s.stillThere(ctx, q, r)
		}
	}
	return r, nil
}

// stillThere returns the reading if its collection has not been dropped since:
// of one that has, servers before 7.0 find nothing at any time.
func (s *mongoImages) stillThere(ctx context.Context, q *query, r *reading) (*reading, error) {
	var there bool
	_, err := s.inSession(ctx, q.after, func(ctx context.Context) error {
		db := s.client.Database(q.at.NS.DB, options.Database().SetReadPreference(readpref.Primary()))
		entry, err := mongodb.FindCollection(ctx, db, q.at.NS.Coll, q.at.UUID)
		if err != nil {
			return fmt.Errorf("look for collection ns=%s: %w", q.at.NS, err)
		}
		there = entry != nil && entry.NS == q.at.NS && entry.UUID == q.at.UUID
		return nil
	})
	if err != nil || !there {
		return nil, err
	}
	return r, nil
}
