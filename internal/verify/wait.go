package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

// The destination's own record of what apply has done, which apply writes.
const (
	stateDatabase         = "tributary"
	groupsCollection      = "groups"
	offsetsCollection     = "offsets"
	collectionsCollection = "collections"
	deferredCollection    = "deferred"
	requestsCollection    = "requests"
	finalizedCollection   = "finalized"
)

// pollInterval is how often the destination's offsets are read while waiting.
const pollInterval = 200 * time.Millisecond

// offset is how far a partition has been applied.
type offset struct {
	ID struct {
		Group     string `bson:"group"`
		Topic     string `bson:"topic"`
		Partition int32  `bson:"partition"`
	} `bson:"_id"`
	Watermark  bson.Timestamp `bson:"watermark"`
	CatchingUp bool           `bson:"catching_up"`
}

// standing reads where a destination stands.
type standing struct {
	cfg *Config
	db  *mongo.Database
}

func newStanding(cfg *Config) *standing {
	majority := options.Database().SetReadConcern(readconcern.Majority())
	return &standing{cfg: cfg, db: cfg.Target.Database(stateDatabase, majority)}
}

// await waits until every partition of every group has passed through. It
// returns what it is still waiting for when the time is over, empty when it is
// done.
func (s *standing) await(ctx context.Context, through bson.Timestamp) (behind string, err error) {
	deadline := time.NewTimer(s.cfg.Wait)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		behind, err := s.behind(ctx, through)
		if err != nil || behind == "" {
			return "", err
		}
		s.cfg.Progress(Progress{Phase: "waiting", Behind: behind})
		select {
		case <-tick.C:
		case <-deadline.C:
			return behind, nil
		case <-ctx.Done():
			return "", fmt.Errorf("wait for destination %s: %w", s.cfg.Destination, context.Cause(ctx))
		}
	}
}

// behind names the first thing that has not come through yet.
func (s *standing) behind(ctx context.Context, through bson.Timestamp) (string, error) {
	groups, err := s.groups(ctx)
	if err != nil {
		return "", err
	}
	for _, group := range s.cfg.Groups {
		switch phase := groups[group].Phase; phase {
		case state.PhaseChanges, state.PhaseDone:
		case "":
			return fmt.Sprintf("group %s has not begun", group), nil
		default:
			return fmt.Sprintf("group %s is in phase %s", group, phase), nil
		}
	}
	offsets, err := s.offsets(ctx)
	if err != nil {
		return "", err
	}
	for _, group := range s.cfg.Groups {
		if groups[group].Phase == state.PhaseDone {
			continue // a one-off copy is compared as it is
		}
		known := 0
		for _, o := range offsets {
			if o.ID.Group != group {
				continue
			}
			known++
			if event.CompareTimes(o.Watermark, through) < 0 {
				return fmt.Sprintf("group %s partition %d stands at %s, the source at %s",
					group, o.ID.Partition, timeText(o.Watermark), timeText(through)), nil
			}
			if o.CatchingUp {
				return fmt.Sprintf("group %s partition %d is catching up", group, o.ID.Partition), nil
			}
		}
		if partitions := len(groups[group].ChangeOffsets); known < partitions {
			return fmt.Sprintf("group %s has recorded %d of %d partitions", group, known, partitions), nil
		}
	}
	return s.wanted(ctx)
}

// wanted names something that apply has asked the source for and that has not
// come yet.
func (s *standing) wanted(ctx context.Context) (string, error) {
	var entries []struct {
		NS    string `bson:"ns"`
		State string `bson:"state"`
	}
	if err := s.read(ctx, requestsCollection, &entries); err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.State == "wanted" || e.State == "begun" {
			return "documents of " + e.NS + " were asked for whole and have not come yet", nil
		}
	}
	return "", nil
}

// groupRecord is what a group remembers of itself.
type groupRecord struct {
	ID struct {
		Group string `bson:"group"`
	} `bson:"_id"`
	Phase string `bson:"phase"`
	// ChangeOffsets has an element for each partition of the change topic.
	ChangeOffsets []int64 `bson:"change_offsets"`
}

// groups reads the pipeline's groups.
func (s *standing) groups(ctx context.Context) (map[string]groupRecord, error) {
	var rows []groupRecord
	if err := s.read(ctx, groupsCollection, &rows); err != nil {
		return nil, err
	}
	groups := make(map[string]groupRecord, len(rows))
	for _, row := range rows {
		groups[row.ID.Group] = row
	}
	return groups, nil
}

// offsets reads the records of the change topic's partitions.
func (s *standing) offsets(ctx context.Context) ([]offset, error) {
	var rows []offset
	if err := s.read(ctx, offsetsCollection, &rows); err != nil {
		return nil, err
	}
	changes := route.TopicsOf(s.cfg.Pipeline).Changes
	return slices.DeleteFunc(rows, func(o offset) bool { return o.ID.Topic != changes }), nil
}

// deferredKey names an index of the destination.
type deferredKey struct {
	ns, index string
}

// waiting is what the destination knows of indexes that are not as the source's.
type waiting struct {
	// reasons says why an index waits for the operator.
	reasons map[deferredKey]string
	// finalized are the indexes that the operator has had restored.
	finalized map[deferredKey]bool
	policy    rules.IndexPolicy
}

// may reports whether an index may still be built without what DeferIndex takes
// off: it is recorded so, or nothing says that it should be complete by now.
func (w *waiting) may(key deferredKey, spec bson.Raw) (bool, error) {
	if _, recorded := w.reasons[key]; recorded {
		return true, nil
	}
	_, deferred, err := rules.DeferIndex(spec, w.policy)
	return deferred && !w.finalized[key], err
}

// waiting reads which indexes wait for the operator, and which do no more.
func (s *standing) waiting(ctx context.Context) (*waiting, error) {
	var rows []struct {
		ID struct {
			NS    string `bson:"ns"`
			Index string `bson:"index"`
		} `bson:"_id"`
		Reason string `bson:"reason"`
	}
	if err := s.read(ctx, deferredCollection, &rows); err != nil {
		return nil, err
	}
	w := &waiting{reasons: map[deferredKey]string{}, finalized: map[deferredKey]bool{}, policy: s.cfg.Rules.Indexes}
	for _, row := range rows {
		w.reasons[deferredKey{ns: row.ID.NS, index: row.ID.Index}] = row.Reason
	}
	rows = nil
	if err := s.read(ctx, finalizedCollection, &rows); err != nil {
		return nil, err
	}
	for _, row := range rows {
		w.finalized[deferredKey{ns: row.ID.NS, index: row.ID.Index}] = true
	}
	return w, nil
}

// read decodes the pipeline's documents of one collection into rows.
func (s *standing) read(ctx context.Context, collection string, rows any) error {
	cursor, err := s.db.Collection(collection).Find(ctx, bson.D{{Key: "_id.pipeline", Value: s.cfg.Pipeline}})
	if err == nil {
		err = cursor.All(ctx, rows)
	}
	if err != nil {
		return fmt.Errorf("read destination's record %s.%s: %w", stateDatabase, collection, err)
	}
	return nil
}

func timeText(t bson.Timestamp) string { return fmt.Sprintf("%d.%d", t.T, t.I) }
