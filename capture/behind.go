package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// errNoEntry says that a majority has no entry at or after the position. Right
// after an election the majority point may be behind for a moment; a deployment
// restored from a backup stays behind.
var errNoEntry = &transientError{errors.New("open oplog: the source has no entry at or after the position")}

// behind tells a source that has gone back in time from one that is about to
// come. The position is majority-committed, so every later primary holds it
// (Raft's leader completeness): a primary whose whole oplog ends before it,
// although it is of the position's term or a later one, is of another history.
// It returns errNoEntry where that is not certain.
func (s *mongoSource) behind(ctx context.Context, from event.Position) error {
	if from.Term == 0 {
		return errNoEntry
	}
	oplog := s.client.Database("local").Collection("oplog.rs",
		options.Collection().SetReadConcern(readconcern.Local()).SetReadPreference(readpref.Primary()))
	raw, err := oplog.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Raw()
	if err != nil {
		return &sourceError{fmt.Errorf("read newest oplog entry: %w", err)}
	}
	newest, err := entryPosition(raw)
	if err != nil {
		return err
	}
	if event.CompareTimes(newest.Time, from.Time) >= 0 || newest.Term < from.Term {
		return errNoEntry
	}
	return historyLost(from, fmt.Sprintf("the source's oplog ends at %s, before it: the source was restored from a backup or made anew", newest))
}

// anotherHistory says what it means that an oplog which reaches back to the
// position does not hold it.
const anotherHistory = "it reaches back far enough, so the source was restored from a backup, or its members were"
