package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// A conversion of an index happens beside the stream: the operator's finalize,
// or a member that enforces. It and the DDL of barriers keep out of each other's
// way by two records with majority write concern: each writes its own claim
// first and looks for the other's then, so that at least one of the two sees the
// other. The conversion gives way at once. A barrier waits for as long as the
// conversion's claim is renewed.

// claimPoll is how often a conversion looks whether barriers leave it room.
const claimPoll = 200 * time.Millisecond

// errBarrierBusy is returned, wrapped, when DDL was under way for too long.
var errBarrierBusy = errors.New("DDL of the source is being executed, or another process builds indexes of the collection: try again")

// building reports whether an index of one of the targets is being converted.
func (s *store) building(ctx context.Context, targets ...event.Namespace) (bool, error) {
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	names := make(bson.A, len(targets))
	for i, target := range targets {
		names[i] = target.String()
	}
	err = s.db.Collection(deferredCollection).FindOne(ctx, bson.D{
		{Key: "_id.pipeline", Value: s.id.Pipeline},
		{Key: "_id.ns", Value: bson.D{{Key: "$in", Value: names}}},
		{Key: "deadline", Value: bson.D{{Key: "$gt", Value: now}}},
	}).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read deferred indexes: %w", err)
	}
	return true, nil
}

// claimBuild takes the conversion of an index in hand for leaseTime, or prolongs
// that; it reports whether the token holds it now. A record that is gone cannot
// be claimed.
func (s *store) claimBuild(ctx context.Context, id deferredID, token string) (bool, error) {
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	filter := bson.D{{Key: "_id", Value: id}, {Key: "$or", Value: bson.A{
		bson.D{{Key: "builder", Value: token}},
		bson.D{{Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}}},
		bson.D{{Key: "deadline", Value: bson.D{{Key: "$exists", Value: false}}}},
	}}}
	res, err := s.db.Collection(deferredCollection).UpdateOne(ctx, filter, set(field("builder", token), field("deadline", now.Add(leaseTime))))
	if err != nil {
		return false, fmt.Errorf("claim index ns=%s index=%s: %w", id.NS, id.Index, sanitize(err))
	}
	return res.MatchedCount == 1, nil
}

// releaseBuild ends a claim and takes down the cause of a failure; empty leaves
// what is there.
func (s *store) releaseBuild(ctx context.Context, id deferredID, token, cause string) error {
	fields := []bson.E{field("builder", ""), field("deadline", time.Unix(0, 0))}
	if cause != "" {
		fields = append(fields, field("error", cause))
	}
	filter := bson.D{{Key: "_id", Value: id}, {Key: "builder", Value: token}}
	if _, err := s.db.Collection(deferredCollection).UpdateOne(ctx, filter, set(fields...)); err != nil {
		return fmt.Errorf("release index ns=%s index=%s: %w", id.NS, id.Index, sanitize(err))
	}
	return nil
}

// barrierClaimed reports whether any DDL of the pipeline is being executed.
func (s *store) barrierClaimed(ctx context.Context) (bool, error) {
	err := s.db.Collection(barriersCollection).FindOne(ctx, bson.D{
		{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "state", Value: barrierClaimed},
	}).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read barrier records: %w", err)
	}
	return true, nil
}

// beginBuild claims the conversion of an index; it waits at most as long as wait
// for DDL and other conversions. Gone says that there is nothing to convert any
// more.
func (s *store) beginBuild(ctx context.Context, id deferredID, token string, wait time.Duration) (gone bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errBarrierBusy)
	defer cancel()
	for {
		claimed, err := s.claimBuild(ctx, id, token)
		if err != nil {
			return false, busy(ctx, err)
		}
		if claimed {
			free, err := s.free(ctx, id, token)
			if free || err != nil {
				return false, busy(ctx, err)
			}
		} else if _, found, err := s.deferredRecord(ctx, id); err != nil || !found {
			return err == nil, busy(ctx, err)
		}
		timer := time.NewTimer(claimPoll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false, busy(ctx, ctx.Err())
		}
	}
}

// free reports whether a conversion that is claimed may go on; otherwise it ends
// the claim.
func (s *store) free(ctx context.Context, id deferredID, token string) (bool, error) {
	// In this order: a build behind its barrier is on record before the barrier's
	// claim ends.
	taken, err := s.barrierClaimed(ctx)
	if err == nil && !taken {
		target, parsed := event.ParseNamespace(id.NS)
		if parsed != nil {
			return false, &stateError{parsed}
		}
		var going []buildRecord
		going, err = s.buildsOf(ctx, target)
		if err == nil && len(going) == 0 {
			return true, nil
		}
	}
	return false, errors.Join(err, s.releaseBuild(context.WithoutCancel(ctx), id, token, ""))
}

// busy names the reason of a wait that was given up.
func busy(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errBarrierBusy) {
		return errBarrierBusy
	}
	return err
}

// deferredRecord reads the record of a deferred index.
func (s *store) deferredRecord(ctx context.Context, id deferredID) (d deferredRecord, ok bool, err error) {
	err = s.db.Collection(deferredCollection).FindOne(ctx, byID(id)).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return deferredRecord{}, false, nil
	}
	if err != nil {
		return deferredRecord{}, false, fmt.Errorf("read deferred index ns=%s index=%s: %w", id.NS, id.Index, err)
	}
	return d, true, nil
}

// deferredRecords reads all records of the pipeline, in their order.
func (s *store) deferredRecords(ctx context.Context) ([]deferredRecord, error) {
	cursor, err := s.db.Collection(deferredCollection).Find(ctx, bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}})
	if err != nil {
		return nil, fmt.Errorf("read deferred indexes: %w", err)
	}
	var list []deferredRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read deferred indexes: %w", err)
	}
	return list, nil
}

// endBuild takes a converted index off the record, or leaves there what still
// waits: reason is empty when nothing does.
func (s *store) endBuild(ctx context.Context, id deferredID, token, reason string) error {
	filter := bson.D{{Key: "_id", Value: id}, {Key: "builder", Value: token}}
	coll := s.db.Collection(deferredCollection)
	var err error
	if reason == "" {
		_, err = coll.DeleteOne(ctx, filter)
	} else {
		_, err = coll.UpdateOne(ctx, filter, set(field("reason", reason), field("error", ""), field("builder", ""), field("deadline", time.Unix(0, 0))))
	}
	if err != nil {
		return fmt.Errorf("record built index ns=%s index=%s: %w", id.NS, id.Index, sanitize(err))
	}
	return nil
}
