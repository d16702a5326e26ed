package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Which form an index has in the destination. While history is replayed over a
// later state, every index is plain: replay may bring a unique value to a second
// document for a while, and expiry would take documents that later events still
// change. Afterwards the destination's policy decides; what the operator has
// finalised is complete whatever the policy says, through every later DDL.

// finalizedRecord says that an index is no longer deferred.
type finalizedRecord struct {
	ID deferredID `bson:"_id"`
	// Since is the writer's clock, for operators.
	Since time.Time `bson:"since"`
}

// enforceAll is the policy of a finalised index.
func enforceAll() rules.IndexPolicy { return rules.IndexPolicy{Unique: true, TTL: true} }

// policyOf returns how an index of a target is built by an event.
func (x *executor) policyOf(ctx context.Context, target event.Namespace, name string) (rules.IndexPolicy, error) {
	if x.lenient {
		return rules.IndexPolicy{}, nil
	}
	finalized, err := x.store.isFinalized(ctx, target, name)
	if err != nil || !finalized {
		return x.rules.Indexes, err
	}
	return enforceAll(), nil
}

// targetsOf are the targets whose indexes an event may touch.
func targetsOf(r rules.Destination, e *event.Event) []event.Namespace {
	targets := []event.Namespace{r.Rename.Namespace(e.NS)}
	if e.Op != event.OpRename {
		return targets
	}
	if to, _, err := renameOf(e); err == nil {
		targets = append(targets, r.Rename.Namespace(to))
	}
	return targets
}

// settle gives an index of a DDL event the form that it has in the destination.
func (x *executor) settle(ctx context.Context, target event.Namespace, ix index) (index, error) {
	if ix.reason == "" {
		return ix, nil
	}
	policy, err := x.policyOf(ctx, target, ix.name)
	if err != nil || policy == (rules.IndexPolicy{}) {
		return ix, err
	}
	settled, _, err := indexOfSpec(ix.spec, policy)
	return settled, err
}

// modifiesDirectly reports whether a collMod's index takes uniqueness and expiry
// as they come: it is finalised, or enforced and waits for nothing.
func (x *executor) modifiesDirectly(ctx context.Context, target event.Namespace, spec bson.Raw) (bool, error) {
	held, err := x.heldIndex(ctx, target, spec)
	if err != nil || held == nil {
		return false, err
	}
	name, _ := held.Lookup("name").StringValueOK()
	policy, err := x.policyOf(ctx, target, name)
	if err != nil {
		return false, err
	}
	for own, enforced := range map[string]bool{"expireAfterSeconds": policy.TTL, "unique": policy.Unique, "prepareUnique": policy.Unique} {
		if _, err := spec.LookupErr(own); err == nil && !enforced {
			return false, nil
		}
	}
	_, waits, err := x.store.deferredIndex(ctx, target, name)
	return !waits, err
}

func (s *store) deferredID(target event.Namespace, index string) deferredID {
	return deferredID{Pipeline: s.id.Pipeline, NS: target.String(), Index: index}
}

// isFinalized reports whether the operator has finalised an index.
func (s *store) isFinalized(ctx context.Context, target event.Namespace, index string) (bool, error) {
	err := s.db.Collection(finalizedCollection).FindOne(ctx, byID(s.deferredID(target, index))).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read finalized index ns=%s index=%s: %w", target, index, err)
	}
	return true, nil
}

// putFinalized records that an index is finalised. It may be repeated.
func (s *store) putFinalized(ctx context.Context, id deferredID) error {
	record := finalizedRecord{ID: id, Since: time.Now().UTC()}
	_, err := s.db.Collection(finalizedCollection).ReplaceOne(ctx, byID(id), record, options.Replace().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("record finalized index ns=%s index=%s: %w", id.NS, id.Index, sanitize(err))
	}
	return nil
}

// forgetFinalized takes all finalised indexes of a target off the record.
func (s *store) forgetFinalized(ctx context.Context, target event.Namespace) error {
	if _, err := s.db.Collection(finalizedCollection).DeleteMany(ctx, s.indexesOf(target)); err != nil {
		return fmt.Errorf("forget finalized indexes ns=%s: %w", target, sanitize(err))
	}
	return nil
}

// moveFinalized renames the target of finalised indexes. It may be repeated.
func (s *store) moveFinalized(ctx context.Context, from, to event.Namespace) error {
	cursor, err := s.db.Collection(finalizedCollection).Find(ctx, s.indexesOf(from))
	if err != nil {
		return fmt.Errorf("read finalized indexes ns=%s: %w", from, err)
	}
	var list []finalizedRecord
	if err := cursor.All(ctx, &list); err != nil {
		return fmt.Errorf("read finalized indexes ns=%s: %w", from, err)
	}
	for _, f := range list {
		if err := s.putFinalized(ctx, s.deferredID(to, f.ID.Index)); err != nil {
			return err
		}
	}
	return s.forgetFinalized(ctx, from)
}

// indexesOf selects the records about indexes of a target.
func (s *store) indexesOf(target event.Namespace) bson.D {
	return bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.ns", Value: target.String()}}
}
