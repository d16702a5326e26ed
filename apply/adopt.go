package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// clockSkew is by how much the clocks of the source and of the destination may
// differ before a start counts as lying in the future.
const clockSkew = time.Minute

// loads reports whether the group begins with a run of snapshot.
func (s *Sync) loads() bool { return s.Schema || s.Full }

// beginAlone makes the first record of a group that follows changes without a
// load; ok is false as long as capture has not begun. The destination is taken
// to hold the source as of some time between the start and now, each document as
// of its own: what lies between is history that is replayed over it.
func (s *Service) beginAlone(ctx context.Context, source string) (g groupRecord, ok bool, err error) {
	var now time.Time
	err = s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		now, err = s.store.now(ctx)
		return err
	})
	if err != nil {
		return g, false, err
	}
	if int64(s.cfg.Start.T) > now.Add(clockSkew).Unix() {
		return g, false, &stateError{fmt.Errorf("begin at cluster time %s: it lies in the future of the destination's clock, %s: hint: set start to now, or to the time of the copy that the destination holds",
			clusterTime(s.cfg.Start), now.UTC().Format(time.RFC3339))}
	}
	var (
		w       bson.Timestamp
		offsets []int64
	)
	err = s.kafkaRetry(ctx, func(ctx context.Context) error {
		w, offsets, err = s.newestMark(ctx, s.cfg.Start)
		if errors.Is(err, errNoWatermark) {
			offsets = nil
			return nil
		}
		return err
	})
	if err != nil || offsets == nil {
		return g, false, err
	}
	through := bson.Timestamp{T: uint32(now.Unix())} //nolint:gosec // A server's clock says less until 2106.
	if event.CompareTimes(w, through) > 0 {
		through = w
	}
	s.log.Info().Str(logfield.Watermark, clusterTime(w)).Str(logfield.Until, clusterTime(through)).
		Msg("changes are followed without a load: those later than this cluster time are applied, up to the second one as history over whatever is there")
	return groupRecord{
		ID: s.store.id, Phase: state.PhaseSnapshot, Source: source, Rules: s.cfg.RulesDigest,
		Watermark: w, ReadThrough: through, ChangeOffsets: offsets, SnapshotOffsets: []int64{}, Deadline: now, Created: now,
	}, true, nil
}

// adopter takes over what a destination holds that follows changes without a
// load: every collection that the rules would write becomes the pipeline's own.
type adopter struct {
	client *mongo.Client
	store  *store
	rules  rules.Destination
	// watermark is where the group begins.
	watermark bson.Timestamp
	// hold makes sure of the step's claim before each write.
	hold func(context.Context) error

	collections, unique, expiring int
	// inForce are the first of the indexes that work already.
	inForce []string
}

// adopt writes down every collection and view of the destination that the rules
// select. It may be repeated.
func (a *adopter) adopt(ctx context.Context) error {
	a.collections, a.unique, a.expiring, a.inForce = 0, 0, 0, nil
	databases, err := a.client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		return fmt.Errorf("list the destination's databases: %w", sanitize(err))
	}
	for _, db := range databases {
		specs, err := a.client.Database(db).ListCollectionSpecifications(ctx, bson.D{})
		if err != nil {
			return fmt.Errorf("list the destination's collections db=%s: %w", db, sanitize(err))
		}
		for _, spec := range specs {
			if err := a.one(ctx, db, &spec); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *adopter) one(ctx context.Context, db string, spec *mongo.CollectionSpecification) error {
	target := event.Namespace{DB: db, Coll: spec.Name}
	sources := a.rules.Sources(target)
	if len(sources) == 0 {
		return nil
	}
	ns := sources[0]
	_, found, err := a.store.collection(ctx, ns)
	if err != nil {
		return err
	}
	if !found {
		if err := a.hold(ctx); err != nil {
			return err
		}
		record := collectionRecord{ID: a.store.collectionID(ns), Target: target.String(), Watermark: a.watermark, Ready: true}
		if err := a.store.putCollection(ctx, record); err != nil {
			return err
		}
	}
	a.collections++
	if spec.Type == "view" {
		return nil
	}
	return a.look(ctx, target)
}

// look counts the indexes that work already which a load would have deferred.
func (a *adopter) look(ctx context.Context, target event.Namespace) error {
	cursor, err := a.client.Database(target.DB).Collection(target.Coll).Indexes().List(ctx)
	if err != nil {
		return fmt.Errorf("list the destination's indexes ns=%s: %w", target, sanitize(err))
	}
	for cursor.Next(ctx) {
		name := stringOf(cursor.Current, "name")
		unique, _ := cursor.Current.Lookup("unique").BooleanOK()
		_, missing := cursor.Current.LookupErr("expireAfterSeconds")
		if unique {
			a.unique++
		}
		if missing == nil {
			a.expiring++
		}
		if unique || missing == nil {
			a.inForce = append(a.inForce, target.String()+"."+name)
		}
		a.inForce = a.inForce[:min(len(a.inForce), shownNames+1)]
	}
	if err := errors.Join(cursor.Err(), cursor.Close(ctx)); err != nil {
		return fmt.Errorf("list the destination's indexes ns=%s: %w", target, sanitize(err))
	}
	return nil
}

// adopt is the step of a group without a load between its beginning and its
// changes.
func (c *coordinator) adopt(ctx context.Context, g *groupRecord) error {
	s := c.s
	a := &adopter{client: s.client, store: s.store, rules: s.cfg.Rules, watermark: g.Watermark, hold: func(ctx context.Context) error { return c.holdStep(ctx, g) }}
	if err := a.adopt(ctx); err != nil {
		return err
	}
	s.log.Info().Int("collections", a.collections).
		Msg("what the destination holds is taken for the source's, as it is: `tributary verify` compares both once it has caught up")
	if a.unique+a.expiring > 0 {
		s.log.Warn().Int("unique", a.unique).Int("expiring", a.expiring).Strs("indexes", a.inForce).
			Msg("unique and TTL indexes of the destination are in force while history is replayed over it, which can collide or expire documents early: " +
				"hint: drop them there until the destination has caught up")
	}
	return nil
}
