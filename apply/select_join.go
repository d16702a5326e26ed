package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// joiner makes a changed selection hold at the destination.
type joiner struct {
	s      *Service
	change *state.SelectChange
	hold   func(context.Context) error
	added  func(db, coll string) bool
	now    *rules.Selection
}

func (j *joiner) compile() (err error) {
	if j.added, err = j.change.Added(); err != nil {
		return &stateError{err}
	}
	if j.now, err = j.change.Now.Compile(); err != nil {
		return &stateError{err}
	}
	return nil
}

// join takes the partitions away from whoever may have them still, clears the
// way for what the selection adds, forgets what was awaited of what it leaves
// out, and asks capture for what it adds.
func (j *joiner) join(ctx context.Context) error {
	if err := j.compile(); err != nil {
		return err
	}
	if err := j.look(ctx); err != nil {
		return err
	}
	if err := j.s.store.raiseAll(ctx); err != nil {
		return err
	}
	if err := j.clear(ctx); err != nil {
		return err
	}
	if err := j.leave(ctx); err != nil {
		return err
	}
	return j.ask(ctx)
}

// each calls visit for every collection of the destination that is the target of
// one that the selection adds.
func (j *joiner) each(ctx context.Context, visit func(ns, target event.Namespace, view bool) error) error {
	databases, err := j.s.client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		return fmt.Errorf("list the destination's databases: %w", sanitize(err))
	}
	for _, db := range databases {
		specs, err := j.s.client.Database(db).ListCollectionSpecifications(ctx, bson.D{})
		if err != nil {
			return fmt.Errorf("list the destination's collections db=%s: %w", db, sanitize(err))
		}
		for _, spec := range specs {
			target := event.Namespace{DB: db, Coll: spec.Name}
			sources := slices.DeleteFunc(j.s.cfg.Rules.Sources(target), func(ns event.Namespace) bool { return !j.added(ns.DB, ns.Coll) })
			if len(sources) == 0 {
				continue
			}
			if err := visit(sources[0], target, spec.Type == "view"); err != nil {
				return err
			}
		}
	}
	return nil
}

// look refuses targets that somebody else has made and that hold something.
func (j *joiner) look(ctx context.Context) error {
	var conflicts []error
	err := j.each(ctx, func(ns, target event.Namespace, view bool) error {
		_, found, err := j.s.store.collection(ctx, ns)
		if err != nil || found {
			return err
		}
		if view {
			conflicts = append(conflicts, &conflictError{target, "it exists as a view that this pipeline did not make"})
			return nil
		}
		err = j.s.client.Database(target.DB).Collection(target.Coll).FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		switch {
		case err == nil:
			conflicts = append(conflicts, &conflictError{target, "it exists and holds documents that this pipeline did not load"})
		case !errors.Is(err, mongo.ErrNoDocuments):
			return fmt.Errorf("look at target %s: %w", target, sanitize(err))
		}
		return nil
	})
	return errors.Join(append(conflicts, err)...)
}

// clear drops what was left of collections that were selected once and are
// again: changes are missing from it, and whatever comes of them before their
// reload must not meet it. Empty collections that somebody has made become the
// pipeline's.
func (j *joiner) clear(ctx context.Context) error {
	return j.each(ctx, func(ns, target event.Namespace, view bool) error {
		store := j.s.store
		_, found, err := store.collection(ctx, ns)
		if err != nil || view && !found {
			return err
		}
		if err := j.hold(ctx); err != nil {
			return err
		}
		if !found {
			return store.putCollection(ctx, collectionRecord{ID: store.collectionID(ns), Target: target.String(), Ready: true})
		}
		if err := j.s.client.Database(target.DB).Collection(target.Coll).Drop(ctx); err != nil {
			return fmt.Errorf("drop what was left of %s: %w", target, sanitize(err))
		}
		j.s.log.Info().Stringer(logfield.Target, target).Msg("selected again: what was left of it is dropped, its reload follows")
		if err := store.forgetIndexes(ctx, target, ""); err != nil {
			return err
		}
		if err := store.dropRequests(ctx, ns, event.UUID{}); err != nil {
			return err
		}
		return store.dropCollection(ctx, ns)
	})
}

// leave forgets what was wanted and awaited of collections that the selection
// leaves out. What the destination holds of them stays.
func (j *joiner) leave(ctx context.Context) error {
	store := j.s.store
	entries, err := store.requests(ctx, 0)
	if err != nil {
		return err
	}
	var gone []requestID
	for _, e := range entries {
		if ns, err := event.ParseNamespace(e.NS); err == nil && ns.DB != ownDatabase && !j.now.Match(ns.DB, ns.Coll) {
			gone = append(gone, e.ID)
		}
	}
	if err := store.writeRequests(ctx, gone, nil); err != nil {
		return err
	}
	states, err := store.collectionStates(ctx)
	if err != nil {
		return err
	}
	for ns, held := range states {
		if j.now.Match(ns.DB, ns.Coll) {
			continue
		}
		if held.awaiting {
			err = store.dropCollection(ctx, ns) // there is none
		} else {
			_, err = store.db.Collection(collectionsCollection).UpdateOne(ctx, byID(store.collectionID(ns)), bson.D{{Key: "$unset", Value: bson.D{{Key: "reload", Value: 1}}}})
		}
		if err != nil {
			return fmt.Errorf("forget reload ns=%s: %w", ns, sanitize(err))
		}
	}
	return nil
}

// ask sends the request for what the selection adds; the same again, where an
// earlier try has.
func (j *joiner) ask(ctx context.Context) error {
	s := j.s
	asked, err := j.change.Request(s.cfg.Destination, s.cfg.Group)
	if err != nil {
		return &stateError{err}
	}
	asked.Asked = time.Now().UTC()
	record, err := state.RequestRecord(s.cfg.Pipeline, asked)
	if err != nil {
		return &stateError{err}
	}
	err = s.kafkaRetry(ctx, func(ctx context.Context) error { return s.fetcher.client.ProduceSync(ctx, record).FirstErr() })
	if err != nil {
		return fmt.Errorf("send request id=%s: %w", asked.ID, err)
	}
	s.log.Info().Str(logfield.Request, asked.ID).Msg("asked the source for what the selection has added")
	return nil
}
