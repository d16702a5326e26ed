package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// coordinateInterval is how often the group's record is read while a phase is
// not over; workers of this process shorten it by a poke.
const coordinateInterval = time.Second

// coordinator brings the group from phase to phase. Every member runs one; a
// claim in the group's record lets one of them at a time take a step.
type coordinator struct {
	s *Service
	// manifests receives the newest manifest of the group's run.
	manifests chan state.Manifest
}

// run returns nil when the group follows changes, which it does for ever, and
// errDone at the end of a one-off copy.
func (c *coordinator) run(ctx context.Context) error {
	g, err := c.begin(ctx)
	if err != nil {
		return err
	}
	c.s.phases.publish(g)
	c.s.register(ctx, &g)
	if err, ended := endOf(&g); ended {
		return err
	}
	watch, cancel := context.WithCancel(ctx)
	group, watch := errgroup.WithContext(watch)
	group.Go(func() error { return c.watch(watch, g.Run) })
	group.Go(func() error {
		defer cancel()
		return c.steps(watch, g)
	})
	err = group.Wait()
	if now, _, _ := c.s.phases.current(); now.Phase == state.PhaseDone {
		return errDone
	}
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// begin reads the group's record, or makes it from the latest run as soon as
// there is one.
func (c *coordinator) begin(ctx context.Context) (groupRecord, error) {
	s := c.s
	for {
		view, err := s.loadState(ctx)
		if err != nil {
			return groupRecord{}, err
		}
		identity, _ := view.Identity()
		g, ok, err := s.readGroup(ctx)
		if err != nil {
			return groupRecord{}, err
		}
		if ok {
			if err := s.settleSelect(ctx, &g); err != nil {
				return g, err
			}
			return g, s.checkGroup(&g, identity.Deployment)
		}
		first, ok, err := s.firstRecord(ctx, view, identity.Deployment)
		if err != nil {
			return groupRecord{}, err
		}
		if !ok {
			if !s.sleep(ctx, coordinateInterval) {
				return groupRecord{}, ctx.Err()
			}
			continue
		}
		first.Select, first.Fixed = s.cfg.Select, s.cfg.FixedDigest
		err = s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error { return s.store.insertGroup(ctx, first) })
		if err != nil {
			return groupRecord{}, err
		}
	}
}

// firstRecord is what a group begins with: the latest run, or for one without a
// load its place in the changes. Ok is false while there is nothing to begin
// with.
func (s *Service) firstRecord(ctx context.Context, view *state.View, source string) (g groupRecord, ok bool, err error) {
	if !s.cfg.Sync.loads() {
		if source != "" {
			g, ok, err = s.beginAlone(ctx, source)
		}
		if err == nil && !ok {
			s.cfg.Report.Set(state.StateStarting, "waiting for capture to begin")
		}
		return g, ok, err
	}
	m, found := view.LatestRun()
	if !found || m.State == state.RunFailed {
		s.cfg.Report.Set(state.StateStarting, "waiting for a run of snapshot")
		return g, false, nil
	}
	if err := s.late(ctx, &m); err != nil {
		return g, false, err
	}
	var now time.Time
	err = s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error {
		now, err = s.store.now(ctx)
		return err
	})
	var change *state.SelectChange
	if m.Select != nil && len(s.cfg.Select) > 0 && !m.Select.Equal(s.cfg.Select[0]) {
		if !s.cfg.Sync.Incremental {
			return g, false, &stateError{fmt.Errorf("join run %s: it was made with another select, and a copy without changes is what a run has read: hint: begin under a new pipeline name", m.Run)}
		}
		// What was selected after the run was made is not in it.
		change = &state.SelectChange{Was: append(rules.Layers{*m.Select}, s.cfg.Select[1:]...), Now: s.cfg.Select}
	}
	return groupRecord{
		ID: s.store.id, Phase: state.PhaseSnapshot, Source: source, Rules: s.cfg.RulesDigest, Change: change,
		Run: m.Run, Watermark: m.Watermark, ChangeOffsets: m.ChangeOffsets, SnapshotOffsets: m.SnapshotOffsets,
		Deadline: now, Created: now,
	}, err == nil, err
}

func (s *Service) readGroup(ctx context.Context) (g groupRecord, ok bool, err error) {
	err = s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error {
		g, ok, err = s.store.group(ctx)
		return err
	})
	return g, ok, err
}

// checkGroup refuses a process that would apply other rules or another source
// than its group.
func (s *Service) checkGroup(g *groupRecord, source string) error {
	switch {
	case source != "" && g.Source != source:
		return fmt.Errorf("join group %s: it applies source deployment %s, and pipeline %s now has %s: hint: use another pipeline or destination name", g.ID.Group, g.Source, s.cfg.Pipeline, source)
	case g.Rules != s.cfg.RulesDigest:
		return s.otherRules(g)
	case g.Source != "" && g.Source == s.deployment.ID:
		return fmt.Errorf("join group %s: destination %s is the source deployment itself (%s): hint: give another connection string", g.ID.Group, s.cfg.Destination, g.Source)
	}
	return nil
}

// watch follows the run's manifest, and how far its chunks have come.
func (c *coordinator) watch(ctx context.Context, run string) error {
	return c.s.kafkaRetry(ctx, func(ctx context.Context) error {
		return state.Follow(ctx, c.s.cfg.Kafka, c.s.stateTopic, func(key string, value []byte) error {
			if key != state.KeyRun(run) || value == nil {
				return c.s.loading.take(c.s.cfg.Destination, key, value)
			}
			var m state.Manifest
			if err := json.Unmarshal(value, &m); err != nil {
				return fmt.Errorf("decode manifest run=%s: %w", run, err)
			}
			select {
			case <-c.manifests: // an older one that nobody has looked at
			default:
			}
			c.s.loading.of(&m)
			c.manifests <- m
			return nil
		}, c.s.loading.isCurrent)
	})
}

// steps takes the group's steps until it follows changes.
func (c *coordinator) steps(ctx context.Context, g groupRecord) error {
	tick := time.NewTicker(coordinateInterval)
	defer tick.Stop()
	var m state.Manifest
	for {
		err := c.s.policy.Do(ctx, classifyStep, func(ctx context.Context) error { return c.step(ctx, &g, &m) })
		if err != nil {
			return err
		}
		if _, ended := endOf(&g); ended {
			return nil
		}
		select {
		case m = <-c.manifests:
		case <-c.s.poked:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step reads where the group is and does what is next, if this member may.
func (c *coordinator) step(ctx context.Context, g *groupRecord, m *state.Manifest) error {
	s := c.s
	now, ok, err := s.store.group(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return &stateError{fmt.Errorf("apply group %s: its record is gone from the destination", s.store.id.Group)}
	}
	if now.Phase != g.Phase || now.Prepared != g.Prepared {
		s.log.Info().Str("phase", now.Phase).Str("run", now.Run).Bool("prepared", now.Prepared).Msg("group goes on")
		s.register(ctx, &now)
	}
	*g = now
	s.phases.publish(now)
	if _, ended := endOf(g); ended || m.Run != g.Run {
		return nil
	}
	if !s.cfg.Sync.loads() {
		return c.claimed(ctx, g, func(ctx context.Context) error { return c.adopt(ctx, g) }, field("prepared", true), field("phase", state.PhaseChanges))
	}
	if m.State == state.RunFailed {
		return &stateError{fmt.Errorf("load run %s: snapshot gave it up: %s: hint: drop what was loaded in the destination, and begin under a new pipeline name", m.Run, m.Cause)}
	}
	if g.Phase == state.PhaseIndexes && !s.cfg.Sync.Incremental {
		return c.claimed(ctx, g, func(ctx context.Context) error { return c.finish(ctx, g, m) }, field("phase", state.PhaseDone))
	}
	if g.Phase == state.PhaseIndexes {
		return c.claimed(ctx, g, func(ctx context.Context) error { return c.buildAll(ctx, m) },
			field("phase", state.PhaseChanges))
	}
	if !g.Prepared {
		p := &preparer{client: s.client, store: s.store, rules: s.cfg.Rules, plain: !s.cfg.Sync.Schema, conflicts: s.cfg.Conflicts, shards: s.newSharder(), hold: func(ctx context.Context) error { return c.holdStep(ctx, g) }}
		return c.claimed(ctx, g, func(ctx context.Context) error { return p.prepare(ctx, m) }, field("prepared", true))
	}
	loaded, err := c.loaded(ctx, g)
	if err != nil || !loaded || m.State != state.RunComplete {
		return err
	}
	return c.claimed(ctx, g, func(context.Context) error { return nil },
		field("phase", state.PhaseIndexes), field("read_through", m.ReadThrough))
}

// holdStep makes sure that this member still has the group's next step in hand.
func (c *coordinator) holdStep(ctx context.Context, g *groupRecord) error {
	ok, err := c.s.store.claimGroup(ctx, g.Phase, leaseTime)
	if err != nil || !ok {
		return errors.Join(err, errClaimLost)
	}
	return nil
}

// stateError is a fault that no retry mends.
type stateError struct{ err error }

func (e *stateError) Error() string { return e.err.Error() }

func (e *stateError) Unwrap() error { return e.err }

// claimed does a step if no other member has it in hand, then writes down that
// it is done.
func (c *coordinator) claimed(ctx context.Context, g *groupRecord, work func(context.Context) error, done ...bson.E) error {
	claim := func(ctx context.Context) (bool, error) { return c.s.store.claimGroup(ctx, g.Phase, leaseTime) }
	if ok, err := claim(ctx); err != nil || !ok {
		return err
	}
	if err := keep(ctx, claim, work); err != nil {
		return sanitize(err)
	}
	ok, err := c.s.store.updateGroup(ctx, g.Phase, append(done, field("deadline", time.Unix(0, 0)), field("owner", ""))...)
	if err == nil && ok {
		c.s.poke()
	}
	return err
}

// loaded reports whether every partition of the snapshot topic has met the
// run's end.
func (c *coordinator) loaded(ctx context.Context, g *groupRecord) (bool, error) {
	if !c.s.cfg.Sync.Full {
		return true, nil
	}
	offsets, err := c.s.store.offsets(ctx, c.s.topics.snapshot)
	if err != nil {
		return false, err
	}
	for p := range g.SnapshotOffsets {
		if offsets[int32(p)].Loaded != g.Run {
			return false, nil
		}
	}
	return true, nil
}

// buildAll builds the indexes of the run's collections, some collections at a
// time.
func (c *coordinator) buildAll(ctx context.Context, m *state.Manifest) error {
	if !c.s.cfg.Sync.Schema {
		return nil
	}
	return c.buildEach(ctx, m)
}

func (c *coordinator) buildEach(ctx context.Context, m *state.Manifest) error {
	count := &c.s.progress.builds
	count.collections.Store(0)
	count.built.Store(0)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.s.cfg.IndexBuilds)
	for i := range m.Collections {
		col := &m.Collections[i]
		target, ok := c.s.cfg.Rules.Target(col.Namespace())
		if !ok || col.View {
			continue
		}
		count.collections.Add(1)
		group.Go(func() error {
			err := c.build(ctx, target, col.Indexes)
			if err == nil {
				count.built.Add(1)
			}
			return err
		})
	}
	return group.Wait()
}

func (c *coordinator) build(ctx context.Context, target event.Namespace, stored [][]byte) error {
	var indexes []index
	for _, spec := range stored {
		ix, ok, err := indexOfSpec(spec, rules.IndexPolicy{})
		if err != nil {
			return &stateError{fmt.Errorf("build indexes ns=%s: %w", target, err)}
		}
		if ok {
			indexes = append(indexes, ix)
		}
	}
	failed, err := c.s.store.buildIndexes(ctx, c.s.client, target, indexes, false)
	if failed > 0 {
		c.s.log.Warn().Str("ns", target.String()).Int("failed", failed).
			Msg("indexes could not be built; they are recorded as deferred in tributary.deferred of the destination")
	}
	return err
}
