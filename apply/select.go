package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// errChanging is returned, wrapped, while another member makes a changed
// selection hold.
var errChanging = errors.New("another process is making the changed selection hold")

// changeRules makes the selection of this process the group's, before it becomes
// a member, if that is all that differs and no member is left that has the old
// one. Whoever had partitions under the old one and has not left is found out by
// its next claim: see settleSelect and worker.claim. Other differences are left
// for checkGroup to refuse.
func (s *Service) changeRules(ctx context.Context) error {
	for waited := time.Now(); ; {
		g, ok, err := s.readGroup(ctx)
		if err != nil || !ok {
			return err
		}
		if g.Rules == s.cfg.RulesDigest {
			return s.complete(ctx, &g)
		}
		if len(s.cfg.Select) == 0 || g.Fixed == "" || g.Fixed != s.cfg.FixedDigest {
			return nil
		}
		if g.Phase != state.PhaseChanges {
			return &stateError{fmt.Errorf("change the selection of group %s: it is in phase %s, and only a group that follows changes can take another one: hint: put the old select back until its load is over, or use another destination name",
				g.ID.Group, g.Phase)}
		}
		members, err := s.members(ctx)
		if err != nil {
			return err
		}
		if members == 0 {
			if changed, err := s.changeSelect(ctx, &g); changed || err != nil {
				return err
			}
			continue // another process was first
		}
		// One that was killed is a member until its session is over.
		if time.Since(waited) > 3*s.cfg.SessionTimeout {
			return &stateError{fmt.Errorf("change the selection of group %s: %d of its processes run with the old one: hint: stop all apply processes of destination %s, then start them with the new one",
				g.ID.Group, members, s.cfg.Destination)}
		}
		s.cfg.Report.Set(state.StateStarting, fmt.Sprintf("waiting for %d processes with another selection to end", members))
		if !s.sleep(ctx, coordinateInterval) {
			return ctx.Err()
		}
	}
}

// members counts the group's members in Kafka.
func (s *Service) members(ctx context.Context) (n int, err error) {
	name := route.ApplyGroup(s.cfg.Pipeline, s.cfg.Destination, s.cfg.Group)
	err = s.kafkaRetry(ctx, func(ctx context.Context) error {
		groups, err := kadm.NewClient(s.fetcher.client).DescribeGroups(ctx, name)
		if err == nil {
			err = groups.Error()
		}
		if errors.Is(err, kerr.GroupIDNotFound) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("describe group %s: %w", name, err)
		}
		n = len(groups[name].Members)
		return nil
	})
	return n, err
}

// complete adds to the record of a group that an earlier version began what it
// takes to change its selection.
func (s *Service) complete(ctx context.Context, g *groupRecord) error {
	if g.Fixed != "" || s.cfg.FixedDigest == "" {
		return nil
	}
	return s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		_, err := s.store.changeGroup(ctx, g.Rules, field("select", s.cfg.Select), field("fixed", s.cfg.FixedDigest))
		return err
	})
}

// changeSelect writes the new selection into the group's record; false where the
// record has changed meanwhile. What is in the way of what it adds is refused
// before that.
func (s *Service) changeSelect(ctx context.Context, g *groupRecord) (changed bool, err error) {
	change := &state.SelectChange{Was: g.Select, Now: s.cfg.Select}
	if g.Change != nil {
		// Nobody has made the change before hold: what that has added is added by
		// this one, unless it is taken out again.
		change.Was = g.Change.Was.And(g.Select)
	}
	err = s.policy.Do(ctx, classifyStep, func(ctx context.Context) error {
		j := joiner{s: s, change: change}
		if err := j.compile(); err != nil {
			return err
		}
		if err := j.look(ctx); err != nil {
			return err
		}
		changed, err = s.store.changeGroup(ctx, g.Rules, field("rules", s.cfg.RulesDigest), field("select", s.cfg.Select), field("change", change))
		return err
	})
	if changed {
		s.log.Warn().Strs("include", s.cfg.Select[len(s.cfg.Select)-1].Include).Strs("exclude", s.cfg.Select[len(s.cfg.Select)-1].Exclude).
			Msg("the destination's selection was changed: what it adds is loaded beside the changes, what it leaves out stays as it is and is followed no more")
	}
	return changed, err
}

// settleSelect makes a changed selection hold before any partition is worked on
// under it, by one member at a time. It may be repeated from its beginning by
// whoever comes next.
func (s *Service) settleSelect(ctx context.Context, g *groupRecord) error {
	for {
		err := s.policy.Do(ctx, classifyStep, func(ctx context.Context) error { return s.settleOnce(ctx, g) })
		if !errors.Is(err, errChanging) {
			return err
		}
		if !s.sleep(ctx, coordinateInterval) {
			return ctx.Err()
		}
	}
}

// settleOnce returns errChanging, wrapped, where another member has it in hand.
func (s *Service) settleOnce(ctx context.Context, g *groupRecord) error {
	now, ok, err := s.store.group(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if *g = now; now.Rules != s.cfg.RulesDigest || now.Change == nil {
		return nil // other rules are checkGroup's to refuse
	}
	claim := func(ctx context.Context) (bool, error) { return s.store.claimGroup(ctx, now.Phase, leaseTime) }
	if ok, err = claim(ctx); err != nil {
		return err
	}
	if !ok {
		return &stateError{errChanging}
	}
	j := joiner{s: s, change: now.Change, hold: func(ctx context.Context) error {
		ok, err := claim(ctx)
		if err != nil || !ok {
			return errors.Join(err, errClaimLost)
		}
		return nil
	}}
	if err := keep(ctx, claim, j.join); err != nil {
		return sanitize(err)
	}
	if _, err := s.store.updateGroup(ctx, now.Phase, field("change", nil), field("owner", ""), field("deadline", time.Unix(0, 0))); err != nil {
		return err
	}
	*g, _, err = s.store.group(ctx)
	return err
}

// changeGroup changes the group's record if its rules are still those; it
// reports whether that was so.
func (s *store) changeGroup(ctx context.Context, held string, fields ...bson.E) (bool, error) {
	res, err := s.db.Collection(groupsCollection).UpdateOne(ctx, bson.D{{Key: "_id", Value: s.id}, {Key: "rules", Value: held}}, set(fields...))
	if err != nil {
		return false, fmt.Errorf("write group record: %w", sanitize(err))
	}
	return res.MatchedCount == 1, nil
}

// raiseAll takes all partitions of the group away from their owners, who have to
// claim them again before they write anything.
func (s *store) raiseAll(ctx context.Context) error {
	filter := bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.group", Value: s.id.Group}}
	if _, err := s.db.Collection(offsetsCollection).UpdateMany(ctx, filter, bson.D{{Key: "$inc", Value: bson.D{{Key: "epoch", Value: int64(1)}}}}); err != nil {
		return fmt.Errorf("take the partitions of group %s: %w", s.id.Group, sanitize(err))
	}
	return nil
}

// ruled refuses to go on with a partition under rules that are the group's no
// more. It is asked behind the partition's claim: a change of the rules takes
// all claims away after it was written, so that one of the two sees the other.
func (s *Service) ruled(ctx context.Context) error {
	g, ok, err := s.store.group(ctx)
	if err != nil || !ok || g.Rules == s.cfg.RulesDigest {
		return err
	}
	return &stateError{s.otherRules(&g)}
}

// otherRules says in what the group's rules differ from this process's.
func (s *Service) otherRules(g *groupRecord) error {
	what := "renames, indexes, sync or start"
	switch g.Fixed {
	case "":
		what = "selection, renames, indexes or sync"
	case s.cfg.FixedDigest:
		what = "selection"
	}
	return fmt.Errorf("join group %s: it has other rules for destination %s (%s): hint: put the old rules back, or use another destination name; only a changed select is taken over, once all other apply processes of the destination are stopped",
		g.ID.Group, s.cfg.Destination, what)
}
