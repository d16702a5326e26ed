package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// buildsCollection holds the index builds that go on behind their barriers.
const buildsCollection = "builds"

// buildRecord is an index build that goes on behind its barrier. It is written
// once the destination lists the indexes, before the barrier is done, and taken
// away when the destination has said that they are complete, or that they cannot
// be. Whoever holds its claim, and nobody else, asks for the indexes.
type buildRecord struct {
	// ID is the barrier's.
	ID barrierID `bson:"_id"`
	// NS is the target's namespace; UUID the collection's there, empty where it
	// has none.
	NS      string       `bson:"ns"`
	UUID    string       `bson:"uuid"`
	Indexes []buildIndex `bson:"indexes"`
	// Lenient is as in executor.
	Lenient bool      `bson:"lenient"`
	Started time.Time `bson:"started"`
	// Cancel says that later DDL takes the indexes away: they shall not be built
	// any more.
	Cancel bool `bson:"cancel"`
	// Owner has the build in hand until Deadline, by the destination's clock.
	Owner    string    `bson:"owner"`
	Deadline time.Time `bson:"deadline"`
}

// buildIndex is an index as in the struct index: as bytes, since no server
// stores every index's field names.
type buildIndex struct {
	Name   string `bson:"name"`
	Spec   []byte `bson:"spec"`
	Built  []byte `bson:"built"`
	Reason string `bson:"reason"`
}

func (r *buildRecord) put(indexes []index) {
	for _, ix := range indexes {
		r.Indexes = append(r.Indexes, buildIndex{Name: ix.name, Spec: ix.spec, Built: ix.built, Reason: ix.reason})
	}
}

func (r *buildRecord) indexes() []index {
	list := make([]index, len(r.Indexes))
	for i, ix := range r.Indexes {
		list[i] = index{name: ix.Name, spec: ix.Spec, built: ix.Built, reason: ix.Reason}
	}
	return list
}

// names are the indexes' names.
func (r *buildRecord) names() []string {
	names := make([]string, len(r.Indexes))
	for i, ix := range r.Indexes {
		names[i] = ix.Name
	}
	return names
}

// target is the collection in which the indexes are built.
func (r *buildRecord) target() (event.Namespace, error) {
	ns, err := event.ParseNamespace(r.NS)
	if err != nil {
		return ns, &stateError{fmt.Errorf("read index build: %w", err)}
	}
	return ns, nil
}

// hasBuild reports whether the indexes of a barrier are being built behind it.
func (s *store) hasBuild(ctx context.Context, id barrierID) (bool, error) {
	err := s.db.Collection(buildsCollection).FindOne(ctx, byID(id)).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read index builds: %w", err)
	}
	return true, nil
}

// buildsOf reads the builds in any of the targets; of all for none.
func (s *store) buildsOf(ctx context.Context, targets ...event.Namespace) ([]buildRecord, error) {
	filter := bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}}
	if len(targets) > 0 {
		names := make(bson.A, len(targets))
		for i, target := range targets {
			names[i] = target.String()
		}
		filter = append(filter, bson.E{Key: "ns", Value: bson.D{{Key: "$in", Value: names}}})
	}
	var list []buildRecord
	return list, s.all(ctx, buildsCollection, filter, &list)
}

// putBuild writes a build down, in the hands of its owner for leaseTime.
func (s *store) putBuild(ctx context.Context, r buildRecord) error {
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	r.Started, r.Deadline = now, now.Add(leaseTime)
	if _, err := s.db.Collection(buildsCollection).InsertOne(ctx, r); err != nil {
		return fmt.Errorf("record index build ns=%s: %w", r.NS, sanitize(err))
	}
	return nil
}

// renewBuild prolongs an owner's claim of a build; held is false where it has
// none, cancel is as in the record.
func (s *store) renewBuild(ctx context.Context, id barrierID, owner string) (held, cancel bool, err error) {
	now, err := s.now(ctx)
	if err != nil {
		return false, false, err
	}
	var r buildRecord
	filter := bson.D{{Key: "_id", Value: id}, {Key: "owner", Value: owner}}
	after := options.FindOneAndUpdate().SetReturnDocument(options.After)
	err = s.db.Collection(buildsCollection).FindOneAndUpdate(ctx, filter, set(field("deadline", now.Add(leaseTime))), after).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("claim index build: %w", sanitize(err))
	}
	return true, r.Cancel, nil
}

// lapsedBuilds are the builds of a destination that nobody has in hand.
func (s *store) lapsedBuilds(ctx context.Context, destination string) ([]buildRecord, error) {
	now, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	var list []buildRecord
	return list, s.all(ctx, buildsCollection, bson.D{
		{Key: "_id.pipeline", Value: s.id.Pipeline},
		{Key: "_id.destination", Value: destination},
		{Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}},
	}, &list)
}

// takeBuild takes a build in hand that nobody has; it reports whether that was
// so.
func (s *store) takeBuild(ctx context.Context, id barrierID, owner string) (bool, error) {
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	filter := bson.D{{Key: "_id", Value: id}, {Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}}}
	res, err := s.db.Collection(buildsCollection).UpdateOne(ctx, filter, set(field("owner", owner), field("deadline", now.Add(leaseTime))))
	if err != nil {
		return false, fmt.Errorf("claim index build: %w", sanitize(err))
	}
	return res.MatchedCount == 1, nil
}

// dropBuild takes a build that its owner has ended off the record.
func (s *store) dropBuild(ctx context.Context, id barrierID, owner string) error {
	filter := bson.D{{Key: "_id", Value: id}, {Key: "owner", Value: owner}}
	if _, err := s.db.Collection(buildsCollection).DeleteOne(ctx, filter); err != nil {
		return fmt.Errorf("remove index build: %w", sanitize(err))
	}
	return nil
}

// cancelBuild asks a build's owner to end it. A build that nobody has in hand is
// taken off the record at once: what the destination may still do of it, the DDL
// that cancels ends.
func (s *store) cancelBuild(ctx context.Context, id barrierID) (gone bool, err error) {
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	coll := s.db.Collection(buildsCollection)
	lapsed := bson.D{{Key: "_id", Value: id}, {Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}}}
	res, err := coll.DeleteOne(ctx, lapsed)
	if err == nil && res.DeletedCount == 0 {
		_, err = coll.UpdateOne(ctx, byID(id), set(field("cancel", true)))
	}
	if err != nil {
		return false, fmt.Errorf("cancel index build: %w", sanitize(err))
	}
	return res.DeletedCount == 1, nil
}

// awaitBuilds reports whether a DDL event has to wait for an index build behind
// an earlier barrier, and which. It does what the source's server has done: a
// rename or a change of the collection or of an index waits until the build is
// over; one that takes the indexes away cancels it.
func (s *Service) awaitBuilds(ctx context.Context, e *event.Event, groups []groupRules) (waits string, err error) {
	switch e.Op {
	case event.OpDrop, event.OpRename, event.OpDropIndexes, event.OpModify, event.OpReload:
	default:
		return "", nil
	}
	var targets []event.Namespace
	for _, g := range groups {
		targets = append(targets, targetsOf(g.rules, e)...)
	}
	if len(targets) == 0 {
		return "", nil
	}
	list, err := s.store.buildsOf(ctx, targets...)
	if err != nil {
		return "", err
	}
	for i := range list {
		r := &list[i]
		if cancels(e, groups, r) {
			gone, err := s.store.cancelBuild(ctx, r.ID)
			if err != nil {
				return "", err
			}
			if gone {
				continue
			}
		}
		waits = r.NS
	}
	return waits, nil
}

// cancels reports whether an event takes all indexes of a build away.
func cancels(e *event.Event, groups []groupRules, r *buildRecord) bool {
	switch e.Op {
	case event.OpDrop, event.OpReload:
		return true
	case event.OpDropIndexes:
		return slices.Equal(r.names(), []string{stringOf(e.DDL, "index")})
	case event.OpRename:
		// What stands under the new name is replaced.
		to, _, err := renameOf(e)
		return err == nil && slices.ContainsFunc(groups, func(g groupRules) bool { return g.rules.Rename.Namespace(to).String() == r.NS })
	default:
		return false
	}
}
