package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Sync says which types of synchronisation a group does.
type Sync struct {
	// Schema brings collections with their options, views and indexes; Full
	// the documents that are there; Incremental follows the changes, DDL among
	// them, for ever. Without Incremental, Run ends by itself.
	Schema, Full, Incremental bool
}

// errDone is returned at the end of a one-off copy.
var errDone = errors.New("the one-off copy is complete")

// endOf reports whether the group's record needs no more steps, and the error
// that ends the coordinator for it.
func endOf(g *groupRecord) (err error, ended bool) { //nolint:revive // The error is no failure.
	switch g.Phase {
	case state.PhaseChanges:
		return nil, true
	case state.PhaseDone:
		return errDone, true
	}
	return nil, false
}

// Outcome is how a one-off copy has ended.
type Outcome struct {
	// Consistent says that nothing wrote to the source's selected collections
	// while they were copied: the copy is the source at one point in time.
	Consistent bool
	// Text says so in words, and what was written to if anything was.
	Text string
}

// Outcome returns how the one-off copy has ended; ok is false before that, and
// where the group follows changes. It is safe for concurrent use.
func (s *Service) Outcome() (o Outcome, ok bool) {
	g, known, _ := s.phases.current()
	if !known || g.Phase != state.PhaseDone {
		return Outcome{}, false
	}
	return Outcome{Consistent: g.Writes.none(), Text: g.Writes.text()}, true
}

// verdict is what the last status says of a one-off copy.
func (s *Service) verdict() string {
	if o, ok := s.Outcome(); ok && !o.Consistent {
		return o.Text
	}
	return ""
}

// finish ends a one-off copy: its indexes, those that are enforced at once, and
// what was written to the source meanwhile. It may be repeated.
func (c *coordinator) finish(ctx context.Context, g *groupRecord, m *state.Manifest) error {
	if err := c.buildAll(ctx, m); err != nil {
		return err
	}
	if policy := c.s.cfg.Rules.Indexes; policy != (rules.IndexPolicy{}) {
		if err := (&enforcer{s: c.s, said: map[deferredID]string{}}).all(ctx, policy); err != nil {
			return err
		}
	}
	writes, err := c.s.writesDuring(ctx, g)
	if err != nil {
		return err
	}
	if !writes.none() {
		c.s.log.Warn().Str("run", g.Run).Msg(writes.text())
	}
	ok, err := c.s.store.updateGroup(ctx, g.Phase, field("writes", writes))
	if err == nil && !ok {
		err = errClaimLost
	}
	return err
}

// options are those with which the collection is made.
func (p *preparer) options(c *state.Collection) (bson.Raw, error) {
	opts, err := createOptions(c.Options)
	if err != nil || !p.plain {
		return opts, err
	}
	return plainOptions(opts)
}

// fits returns a *conflictError unless a collection that the operator has made
// can take the source's documents: it is alike in what matters to them, and
// empty where documents that are there mean a conflict. Its indexes and other
// options are the operator's.
func fits(ctx context.Context, client *mongo.Client, target event.Namespace, listed listedCollection, opts bson.Raw, conflicts string) error {
	if listed.View {
		return &conflictError{target, "it is a view"}
	}
	held, err := plainOptions(listed.Options)
	if err != nil {
		return fmt.Errorf("look at target %s: %w", target, err)
	}
	listed.Options = held
	same, err := sameOptions(listed, opts)
	if err != nil {
		return fmt.Errorf("look at target %s: %w", target, err)
	}
	if !same {
		return &conflictError{target, "it exists, and is capped, collated or clustered in another way than the source's"}
	}
	if conflicts != ConflictsFail {
		return nil
	}
	err = client.Database(target.DB).Collection(target.Coll).FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
	switch {
	case err == nil:
		return &conflictError{target, "it exists and holds documents that this pipeline did not load"}
	case errors.Is(err, mongo.ErrNoDocuments):
		return nil
	}
	return fmt.Errorf("look at target %s: %w", target, err)
}
