package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// firstSpan is how far before a time its entry is looked for first, in seconds;
// each next look goes ten times as far, and finds little where the one before
// found nothing.
const firstSpan = 1

// beginning returns the time at which a new pipeline begins: the source's
// present one, or at, which must not be later than that.
func beginning(ctx context.Context, client *mongo.Client, at bson.Timestamp) (bson.Timestamp, error) {
	now, err := mongodb.MajorityTime(ctx, client)
	if err != nil {
		return bson.Timestamp{}, &sourceError{err}
	}
	if at.IsZero() {
		return now, nil
	}
	if event.CompareTimes(at, now) > 0 {
		return at, &finalError{fmt.Errorf("begin capture at cluster time %s: that is later than the source's present one, %s: hint: set the destination's start to now, or to an earlier time",
			timeText(at), timeText(now))}
	}
	return at, nil
}

// timeText shows a cluster time in both ways in which it can be configured.
func timeText(t bson.Timestamp) string {
	return fmt.Sprintf("%d.%d (%s)", t.T, t.I, time.Unix(int64(t.T), 0).UTC().Format(time.RFC3339))
}

// entryBefore returns the position of the oplog's last entry at or before t, so
// that what is read behind it is all that is later than t. It is lost history if
// the oplog begins later, unless it has been there since the source was made.
func (s *mongoSource) entryBefore(ctx context.Context, t bson.Timestamp) (event.Position, error) {
	for span := uint32(firstSpan); ; span *= 10 {
		from := bson.Timestamp{}
		if t.T > span {
			from.T = t.T - span
		}
		at, found, err := s.lastBetween(ctx, from, t)
		if err != nil || found {
			return at, err
		}
		if from.IsZero() || span > ^uint32(0)/10 {
			break
		}
	}
	raw, err := s.oplog().FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: 1}})).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return event.Position{}, errNoEntry
	}
	if err != nil {
		return event.Position{}, &sourceError{fmt.Errorf("read oldest oplog entry: %w", err)}
	}
	return oldestFor(raw, t)
}

// oldestFor judges an oplog whose oldest entry is later than the time at which
// capture shall begin: only the first entry that a replica set ever wrote has
// nothing before it.
func oldestFor(raw bson.Raw, t bson.Timestamp) (event.Position, error) {
	oldest, err := entryPosition(raw)
	if err != nil {
		return event.Position{}, err
	}
	if what, _ := raw.Lookup("o", "msg").StringValueOK(); what == "initiating set" {
		return oldest, nil
	}
	return oldest, &finalError{fmt.Errorf("begin capture at cluster time %s: %w: the source's oplog begins at %s: "+
		"hint: the changes in between are gone; begin with a later copy and its time as start, or add full to the destination's sync; a larger oplog (replSetResizeOplog) reaches further back",
		timeText(t), ErrHistoryLost, timeText(oldest.Time))}
}

// lastBetween returns the last entry from one time to another, both included.
func (s *mongoSource) lastBetween(ctx context.Context, from, through bson.Timestamp) (last event.Position, found bool, err error) {
	filter := bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: from}, {Key: "$lte", Value: through}}}}
	cursor, err := s.oplog().Find(ctx, filter, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}).
		SetProjection(bson.D{{Key: "ts", Value: 1}, {Key: "t", Value: 1}}))
	if err != nil {
		return last, false, &sourceError{fmt.Errorf("look for the oplog's entry at %s: %w", timeText(through), err)}
	}
	defer closeCursor(context.WithoutCancel(ctx), cursor)
	for cursor.Next(ctx) {
		if last, err = entryPosition(cursor.Current); err != nil {
			return last, false, err
		}
		found = true
	}
	if err := cursor.Err(); err != nil {
		return last, false, &sourceError{fmt.Errorf("look for the oplog's entry at %s: %w", timeText(through), err)}
	}
	return last, found, nil
}
