package apply

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// enforceInterval is how often the enforcer looks for indexes while there
	// may be some.
	enforceInterval = 2 * time.Second
	// enforceWait bounds its wait for DDL under way; it comes again.
	enforceWait = 5 * time.Second
)

// enforcer completes the indexes that the destination's policy enforces, as soon
// as the group has caught up. Every member runs one; claims keep them apart. A
// failed build is reported once for each cause and tried again.
type enforcer struct {
	s *Service
	// said are the causes that were logged.
	said map[deferredID]string
}

// run works until ctx ends. It returns at once under a policy that enforces
// nothing.
func (e *enforcer) run(ctx context.Context) error {
	policy := e.s.cfg.Rules.Indexes
	if policy == (rules.IndexPolicy{}) {
		return nil
	}
	for e.s.sleep(ctx, enforceInterval) {
		err := e.s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error { return e.step(ctx, policy) })
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// step looks once.
func (e *enforcer) step(ctx context.Context, policy rules.IndexPolicy) error {
	g, known, _ := e.s.phases.current()
	if !known || g.Phase != state.PhaseChanges {
		return nil
	}
	if caughtUp, err := e.caughtUp(ctx, &g); err != nil || !caughtUp {
		return err
	}
	return e.all(ctx, policy)
}

// all completes every deferred index as far as the policy goes.
func (e *enforcer) all(ctx context.Context, policy rules.IndexPolicy) error {
	list, err := e.s.store.deferredRecords(ctx)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].Reason == deferredFailed || list[i].Reason == deferredReload {
			continue // it is the operator's, or its collection's reload builds it
		}
		if err := e.index(ctx, &list[i], policy); err != nil {
			return err
		}
	}
	return nil
}

// caughtUp reports whether no partition replays history.
func (e *enforcer) caughtUp(ctx context.Context, g *groupRecord) (bool, error) {
	offsets, err := e.s.store.offsets(ctx, e.s.topics.changes)
	if err != nil {
		return false, err
	}
	for p := range g.ChangeOffsets {
		if o, ok := offsets[int32(p)]; !ok || o.CatchingUp || o.Offset < o.Redelivered {
			return false, nil
		}
	}
	return true, nil
}

// index completes one index as far as the policy goes.
func (e *enforcer) index(ctx context.Context, d *deferredRecord, policy rules.IndexPolicy) error {
	rest, err := policyAfter(d.Spec, policy)
	if err != nil || rest == d.Reason {
		return err
	}
	c, err := newConverter(ctx, e.s.client, d, policy)
	if err != nil {
		e.failed(d, err)
		return nil
	}
	token := e.s.store.owner + "/" + bson.NewObjectID().Hex()
	gone, err := e.s.store.beginBuild(ctx, d.ID, token, enforceWait)
	if gone || err != nil {
		return nil //nolint:nilerr // Others have it in hand; the next look tells.
	}
	err = e.s.store.convert(ctx, c, d.ID, token, func(ctx context.Context) error { return e.s.store.endBuild(ctx, d.ID, token, rest) })
	if err != nil {
		e.failed(d, err)
		return nil
	}
	e.s.log.Info().Str(logfield.Target, d.ID.NS).Str("index", d.ID.Index).Msg("index is enforced")
	return nil
}

// failed reports a build that will be tried again.
func (e *enforcer) failed(d *deferredRecord, err error) {
	text := sanitize(err).Error()
	if e.said[d.ID] == text {
		return
	}
	e.said[d.ID] = text
	e.s.log.Warn().Str(logfield.Target, d.ID.NS).Str("index", d.ID.Index).Str(logfield.Reason, text).
		Msg("index that is to be enforced could not be built; it is tried again")
}
