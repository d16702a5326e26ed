package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// errLost is returned, wrapped, when a partition belongs to another owner.
var errLost = errors.New("the partition has another owner")

// store reads and writes the group's records in the destination, with majority
// concerns. It is safe for concurrent use. Every method may block and may be
// tried again.
type store struct {
	db     *mongo.Database
	id     groupID
	owner  string
	topics topicNames
}

// topicNames are the two topics that the group consumes.
type topicNames struct{ changes, snapshot string }

func newStore(client *mongo.Client, id groupID, owner string, topics topicNames) *store {
	opts := options.Database().SetReadConcern(readconcern.Majority()).SetWriteConcern(writeconcern.Majority())
	return &store{db: client.Database(ownDatabase, opts), id: id, owner: owner, topics: topics}
}

// as returns the store of another group of the pipeline.
func (s *store) as(group string) *store {
	other := *s
	other.id.Group = group
	return &other
}

func (s *store) partition(topic string, partition int32) partitionID {
	return partitionID{Pipeline: s.id.Pipeline, Group: s.id.Group, Topic: topic, Partition: partition}
}

func byID(id any) bson.D { return bson.D{{Key: "_id", Value: id}} }

func set(fields ...bson.E) bson.D { return bson.D{{Key: "$set", Value: bson.D(fields)}} }

func field(key string, value any) bson.E { return bson.E{Key: key, Value: value} }

// now is the destination's clock, which all deadlines follow.
func (s *store) now(ctx context.Context) (time.Time, error) {
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	err := s.db.RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}).Decode(&hello)
	if err != nil {
		return time.Time{}, fmt.Errorf("read destination's clock: %w", err)
	}
	return hello.LocalTime, nil
}

// ensureCollections creates the collections that transactions write to:
// they must exist before.
func (s *store) ensureCollections(ctx context.Context) error {
	for _, name := range []string{groupsCollection, offsetsCollection, barriersCollection, collectionsCollection, deferredCollection, finalizedCollection, requestsCollection, buildsCollection} {
		if err := s.db.CreateCollection(ctx, name); err != nil && !hasCode(err, codeNamespaceExists) {
			return fmt.Errorf("create collection %s.%s: %w", ownDatabase, name, sanitize(err))
		}
	}
	return nil
}

// group reads the group's record; ok is false when there is none yet.
func (s *store) group(ctx context.Context) (g groupRecord, ok bool, err error) {
	err = s.db.Collection(groupsCollection).FindOne(ctx, byID(s.id)).Decode(&g)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return groupRecord{}, false, nil
	}
	if err != nil {
		return groupRecord{}, false, fmt.Errorf("read group record: %w", err)
	}
	return g, true, nil
}

// insertGroup makes the group's record unless another member has.
func (s *store) insertGroup(ctx context.Context, g groupRecord) error {
	_, err := s.db.Collection(groupsCollection).InsertOne(ctx, g)
	if err != nil && !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("write group record: %w", sanitize(err))
	}
	return nil
}

// updateGroup changes the group's record if it is in that phase and this member
// has its next step in hand; it reports whether that was so.
func (s *store) updateGroup(ctx context.Context, phase string, fields ...bson.E) (bool, error) {
	filter := bson.D{{Key: "_id", Value: s.id}, {Key: "phase", Value: phase}, {Key: "owner", Value: s.owner}}
	res, err := s.db.Collection(groupsCollection).UpdateOne(ctx, filter, set(fields...))
	if err != nil {
		return false, fmt.Errorf("write group record: %w", sanitize(err))
	}
	return res.MatchedCount == 1, nil
}

// claimGroup takes the group's next step in hand for d, unless another member
// has it and its time is not over; a member may claim again what it has.
func (s *store) claimGroup(ctx context.Context, phase string, d time.Duration) (bool, error) {
	began := time.Now()
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	filter := bson.D{
		{Key: "_id", Value: s.id},
		{Key: "phase", Value: phase},
		{Key: "$or", Value: bson.A{
			bson.D{{Key: "owner", Value: s.owner}},
			bson.D{{Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}}},
		}},
	}
	res, err := s.db.Collection(groupsCollection).UpdateOne(ctx, filter, set(field("owner", s.owner), field("deadline", now.Add(d))))
	if err != nil {
		return false, fmt.Errorf("claim group: %w", sanitize(err))
	}
	if res.MatchedCount == 0 {
		return false, nil
	}
	return true, inTime(began)
}

// raise makes this member the owner of a partition: the epoch goes up, so that
// no transaction and no offset of a former owner can be written any more. A
// partition without a record starts as first says, and first.Session becomes
// that of the owner. The record as it is afterwards is returned.
func (s *store) raise(ctx context.Context, first offsetRecord) (offsetRecord, error) {
	coll := s.db.Collection(offsetsCollection)
	_, err := coll.InsertOne(ctx, first)
	if err != nil && !mongo.IsDuplicateKeyError(err) {
		return offsetRecord{}, fmt.Errorf("write offset record: %w", sanitize(err))
	}
	if err != nil {
		if err := s.endFormer(ctx, first); err != nil {
			return offsetRecord{}, err
		}
	}
	var o offsetRecord
	change := bson.D{
		{Key: "$inc", Value: bson.D{{Key: "epoch", Value: int64(1)}}},
		{Key: "$set", Value: bson.D{
			{Key: "owner", Value: s.owner}, {Key: "session", Value: first.Session}, {Key: "updated", Value: time.Now().UTC()},
		}},
	}
	after := options.FindOneAndUpdate().SetReturnDocument(options.After)
	if err := coll.FindOneAndUpdate(ctx, byID(first.ID), change, after).Decode(&o); err != nil {
		return offsetRecord{}, fmt.Errorf("raise epoch of partition %s/%d: %w", first.ID.Topic, first.ID.Partition, sanitize(err))
	}
	return o, nil
}

// endFormer ends the session of a partition's former owner. One that was killed
// in the middle of a transaction would hold the partition's record, and what it
// had written, until the server ends the transaction after a minute.
func (s *store) endFormer(ctx context.Context, first offsetRecord) error {
	former, err := s.offset(ctx, first.ID)
	if err != nil {
		return err
	}
	if len(former.Session) == 0 || bytes.Equal(former.Session, first.Session) {
		return nil
	}
	// Where it is refused (the former owner was another user), the server's own
	// limit does the same, later.
	_ = s.db.RunCommand(ctx, bson.D{{Key: "killSessions", Value: bson.A{bson.Raw(former.Session)}}}).Err()
	return nil
}

// offset reads a partition's record.
func (s *store) offset(ctx context.Context, id partitionID) (offsetRecord, error) {
	var o offsetRecord
	if err := s.db.Collection(offsetsCollection).FindOne(ctx, byID(id)).Decode(&o); err != nil {
		return offsetRecord{}, fmt.Errorf("read offset record of partition %s/%d: %w", id.Topic, id.Partition, err)
	}
	return o, nil
}

// offsets reads the records of a topic's partitions.
func (s *store) offsets(ctx context.Context, topic string) (map[int32]offsetRecord, error) {
	cursor, err := s.db.Collection(offsetsCollection).Find(ctx, bson.D{
		{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.group", Value: s.id.Group}, {Key: "_id.topic", Value: topic},
	})
	if err != nil {
		return nil, fmt.Errorf("read offset records: %w", err)
	}
	var list []offsetRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read offset records: %w", err)
	}
	byPartition := make(map[int32]offsetRecord, len(list))
	for _, o := range list {
		byPartition[o.ID.Partition] = o
	}
	return byPartition, nil
}

// move writes a partition's record as next says if it still is as held says
// (owner's epoch and offset); it reports whether it was. In a transaction's
// context it is part of that.
func (s *store) move(ctx context.Context, held, next *offsetRecord) (bool, error) {
	filter := bson.D{{Key: "_id", Value: held.ID}, {Key: "epoch", Value: held.Epoch}, {Key: "offset", Value: held.Offset}}
	fields := []bson.E{
		field("offset", next.Offset),
		field("position", next.Position),
		field("watermark", next.Watermark),
		field("wall", next.Wall),
		field("catching_up", next.CatchingUp),
		field("redelivered", next.Redelivered),
		field("exact", next.Exact),
		field("loaded", next.Loaded),
		field("updated", time.Now().UTC()),
	}
	if next.Load != held.Load {
		fields = append(fields, field("load", next.Load))
	}
	res, err := s.db.Collection(offsetsCollection).UpdateOne(ctx, filter, set(fields...))
	if err != nil {
		return false, fmt.Errorf("move offset of partition %s/%d: %w", held.ID.Topic, held.ID.Partition, err)
	}
	return res.MatchedCount == 1, nil
}

// owns fails with errLost if a partition belongs to another owner.
func (s *store) owns(ctx context.Context, held *offsetRecord) error {
	o, err := s.offset(ctx, held.ID)
	if err != nil || o.Epoch == held.Epoch {
		return err
	}
	return lostTo(held, o.Epoch)
}

// stands fails with errLost unless a partition belongs to the owner that held
// says and is where it says.
func (s *store) stands(ctx context.Context, held *offsetRecord) error {
	o, err := s.offset(ctx, held.ID)
	if err != nil || o.Epoch == held.Epoch && o.Offset == held.Offset {
		return err
	}
	return lostTo(held, o.Epoch)
}

func lostTo(held *offsetRecord, epoch int64) error {
	return fmt.Errorf("apply partition %s/%d: %w: epoch is %d, ours was %d", held.ID.Topic, held.ID.Partition, errLost, epoch, held.Epoch)
}

// settle finds out what became of a move whose result is not known: done says
// that it took effect. A partition of another owner is errLost.
func (s *store) settle(ctx context.Context, held, next *offsetRecord) (done bool, err error) {
	o, err := s.offset(ctx, held.ID)
	if err != nil {
		return false, err
	}
	switch {
	case o.Epoch != held.Epoch:
		return false, lostTo(held, o.Epoch)
	case o.Offset == next.Offset:
		return true, nil
	case o.Offset == held.Offset:
		return false, nil
	}
	return false, &stateError{fmt.Errorf("apply partition %s/%d: the offset record says %d where %d or %d was expected: it was changed by hand: hint: restart apply to take it over",
		held.ID.Topic, held.ID.Partition, o.Offset, held.Offset, next.Offset)}
}
