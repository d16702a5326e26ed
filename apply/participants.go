package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Peer is another group of the same destination. Groups have disjoint
// namespaces; a DDL event that concerns several of them (a rename from one's
// into another's, the drop of all views of a database) waits for all.
type Peer struct {
	// Group is the peer's name, empty for the destination's group without one.
	Group string
	Rules rules.Destination
}

// groupRules are the rules of one group of the destination.
type groupRules struct {
	// group is its name inside the destination's records.
	group string
	rules rules.Destination
	// destination is the destination's name.
	destination string
}

// rulesOf lists the groups of the destination, this service's first.
func rulesOf(cfg *Config) []groupRules {
	list := []groupRules{{group: cfg.groupName(), rules: cfg.Rules, destination: cfg.Destination}}
	for _, p := range cfg.Peers {
		peer := Config{Destination: cfg.Destination, Group: p.Group}
		list = append(list, groupRules{group: peer.groupName(), rules: p.Rules, destination: cfg.Destination})
	}
	return list
}

// concerned are the groups that a DDL event touches.
func concerned(groups []groupRules, e *event.Event) (list []groupRules, err error) {
	for _, g := range groups {
		touched, err := concerns(g.rules, g.destination, e)
		if err != nil {
			return nil, err
		}
		if touched {
			list = append(list, g)
		}
	}
	return list, nil
}

// participantsOf are all partitions of the groups that a DDL event touches.
func participantsOf(groups []groupRules, partitions int) []participant {
	var list []participant
	for _, g := range groups {
		for p := range partitions {
			list = append(list, participant{Group: g.group, Partition: int32(p)})
		}
	}
	return list
}

// standing is where the groups of a pipeline stand in this destination.
type standing struct {
	offsets map[participant]offsetRecord
	// loads are the watermarks of the groups' loads: what is at or before them
	// was in the load.
	loads map[string]groupRecord
}

// passed reports whether a participant has left a barrier behind, as one has
// whose group was loaded at or after it. The events of a reload stand behind all
// else of their cluster time, the watermark of it too.
func (s *standing) passed(who participant, b *barrierRecord) bool {
	p := event.Position{Time: b.ID.Time, Index: b.ID.Index}
	least := 0
	if b.Op == event.OpReload || b.Op == event.OpReloadEnd {
		least = 1
	}
	if g, ok := s.loads[who.Group]; ok && event.CompareTimes(g.Watermark, p.Time) >= least {
		return true
	}
	o, ok := s.offsets[who]
	return ok && (event.CompareTimes(o.Watermark, p.Time) >= least || o.Position.position().Compare(p) >= 0)
}

// standing reads where the groups of the pipeline stand.
func (s *store) standing(ctx context.Context) (standing, error) {
	st := standing{offsets: map[participant]offsetRecord{}, loads: map[string]groupRecord{}}
	var offsets []offsetRecord
	if err := s.all(ctx, offsetsCollection, bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.topic", Value: s.topics.changes}}, &offsets); err != nil {
		return st, err
	}
	for _, o := range offsets {
		st.offsets[participant{Group: o.ID.Group, Partition: o.ID.Partition}] = o
	}
	var groups []groupRecord
	if err := s.all(ctx, groupsCollection, bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}}, &groups); err != nil {
		return st, err
	}
	for _, g := range groups {
		st.loads[g.ID.Group] = g
	}
	return st, nil
}

// all reads the records of a collection that a filter matches.
func (s *store) all(ctx context.Context, coll string, filter bson.D, list any) error {
	cursor, err := s.db.Collection(coll).Find(ctx, filter)
	if err == nil {
		err = cursor.All(ctx, list)
	}
	if err != nil {
		return fmt.Errorf("read records of %s.%s: %w", ownDatabase, coll, err)
	}
	return nil
}

// waitedFor reports whether the participant's group is one of the destination's:
// the operator may have taken it out since.
func (s *Service) waitedFor(who participant) bool {
	return slices.ContainsFunc(s.groups, func(g groupRules) bool { return g.group == who.Group })
}

// missing returns the participants that have neither arrived at a barrier nor
// passed it.
func (s *Service) missing(ctx context.Context, b *barrierRecord) ([]participant, standing, error) {
	var missing []participant
	for _, who := range b.Participants {
		if s.waitedFor(who) && !slices.Contains(b.Arrived, who) {
			missing = append(missing, who)
		}
	}
	st, err := s.store.standing(ctx)
	if err != nil {
		return nil, st, err
	}
	return slices.DeleteFunc(missing, func(who participant) bool { return st.passed(who, b) }), st, nil
}

// waitText says who a barrier waits for.
func waitText(e *event.Event, missing []participant, st *standing) string {
	text := fmt.Sprintf("waits at the barrier of %s", e)
	if len(missing) == 0 {
		return text + " for its execution by another process"
	}
	byGroup := map[string][]string{}
	var order []string
	for _, who := range missing {
		if byGroup[who.Group] == nil {
			order = append(order, who.Group)
		}
		byGroup[who.Group] = append(byGroup[who.Group], fmt.Sprint(who.Partition))
	}
	for i, group := range order {
		order[i] = fmt.Sprintf("partitions %s of group %s", strings.Join(byGroup[group], ", "), group)
		if _, begun := st.loads[group]; !begun {
			order[i] = fmt.Sprintf("group %s, which has not begun: hint: start it", group)
		}
	}
	return text + " for " + strings.Join(order, "; ")
}

// lenientFor reports whether a DDL event is history for one of the groups that
// it touches: see executor.lenient.
func (s *standing) lenientFor(groups []groupRules, e *event.Event) bool {
	return slices.ContainsFunc(groups, func(g groupRules) bool {
		held, ok := s.loads[g.group]
		return ok && event.CompareTimes(e.Position.Time, held.ReadThrough) <= 0
	})
}

// pruneBarriers removes the records of barriers that every participant has
// left behind for good: its committed offset is behind the barrier, so nobody
// meets it again.
func (s *Service) pruneBarriers(ctx context.Context) error {
	st, err := s.store.standing(ctx)
	if err != nil {
		return err
	}
	var list []barrierRecord
	filter := bson.D{
		{Key: "_id.pipeline", Value: s.cfg.Pipeline},
		{Key: "_id.destination", Value: s.cfg.Destination},
		{Key: "state", Value: bson.D{{Key: "$ne", Value: barrierClaimed}}},
	}
	if err := s.store.all(ctx, barriersCollection, filter, &list); err != nil {
		return err
	}
	ids := bson.A{}
	for i := range list {
		b := &list[i]
		stands := func(who participant) bool { return s.waitedFor(who) && !st.passed(who, b) }
		if !slices.ContainsFunc(b.Participants, stands) {
			ids = append(ids, b.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err = s.store.db.Collection(barriersCollection).DeleteMany(ctx, append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}))
	if err != nil {
		return fmt.Errorf("remove barrier records: %w", sanitize(err))
	}
	return nil
}

// barrierGone reports that a barrier's record is no longer there: everybody has
// passed it.
func barrierGone(err error) bool { return errors.Is(err, mongo.ErrNoDocuments) }
