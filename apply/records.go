package apply

import (
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// The collections of the destination's database "tributary".
const (
	ownDatabase           = "tributary"
	groupsCollection      = "groups"
	offsetsCollection     = "offsets"
	barriersCollection    = "barriers"
	collectionsCollection = "collections"
	deferredCollection    = "deferred"
	finalizedCollection   = "finalized"
)

// groupID names a group in the destination.
type groupID struct {
	Pipeline string `bson:"pipeline"`
	// Group is "<destination>" or "<destination>.<group>".
	Group string `bson:"group"`
}

// groupRecord is what all members of a group agree on.
type groupRecord struct {
	ID    groupID `bson:"_id"`
	Phase string  `bson:"phase"`
	// Source is the deployment whose changes are applied.
	Source string `bson:"source"`
	// Rules is the digest of the destination's rules.
	Rules string `bson:"rules"`
	// Select is the selection among them, Fixed the digest of the others; empty
	// in records of earlier versions.
	Select rules.Layers `bson:"select,omitempty"`
	Fixed  string       `bson:"fixed,omitempty"`
	// Change is what Select was changed from, until that holds.
	Change *state.SelectChange `bson:"change,omitempty"`
	// Run is the run of snapshot that the group loads.
	Run string `bson:"run"`
	// Prepared says that the run's collections exist.
	Prepared bool `bson:"prepared"`
	// Watermark and ReadThrough bound what the run read (see
	// state.Manifest).
	Watermark   bson.Timestamp `bson:"watermark"`
	ReadThrough bson.Timestamp `bson:"read_through,omitempty"`
	// ChangeOffsets and SnapshotOffsets are where the partitions start.
	ChangeOffsets   []int64 `bson:"change_offsets"`
	SnapshotOffsets []int64 `bson:"snapshot_offsets"`
	// Owner has the group's next step in hand until Deadline, by the
	// destination's clock.
	Owner    string    `bson:"owner"`
	Deadline time.Time `bson:"deadline"`
	Created  time.Time `bson:"created"`
	// Writes are those to the source during a one-off copy.
	Writes *writesRecord `bson:"writes,omitempty"`
}

// partitionID names one partition of one group.
type partitionID struct {
	Pipeline  string `bson:"pipeline"`
	Group     string `bson:"group"`
	Topic     string `bson:"topic"`
	Partition int32  `bson:"partition"`
}

// placeRecord is a position.
type placeRecord struct {
	Time  bson.Timestamp `bson:"time"`
	Term  int64          `bson:"term"`
	Index int32          `bson:"index"`
}

func placeOf(p event.Position) placeRecord {
	return placeRecord{Time: p.Time, Term: p.Term, Index: p.Index}
}

func (p placeRecord) position() event.Position {
	return event.Position{Time: p.Time, Term: p.Term, Index: p.Index}
}

// offsetRecord is where a partition stands, and who may move it.
type offsetRecord struct {
	ID partitionID `bson:"_id"`
	// Epoch is raised by every new owner.
	Epoch int64  `bson:"epoch"`
	Owner string `bson:"owner"`
	// Session is that of the owner's transactions, {id: …} as BSON; empty
	// where it has none. The next owner ends it.
	Session []byte `bson:"session"`
	// Offset is the next one to apply.
	Offset int64 `bson:"offset"`
	// Position is the last one that the partition has passed.
	Position placeRecord `bson:"position"`
	// Watermark is the last one that the partition has passed: it holds
	// nothing at or before it that was not applied. Wall is the source's clock
	// then.
	Watermark bson.Timestamp `bson:"watermark"`
	Wall      time.Time      `bson:"wall"`
	// CatchingUp says that history is being replayed over a later state.
	CatchingUp bool `bson:"catching_up"`
	// Redelivered is the offset up to which events may have been applied
	// already; zero where each takes effect exactly once.
	Redelivered int64 `bson:"redelivered"`
	// Exact says that the last writer moved the offset in transactions.
	Exact bool `bson:"exact"`
	// Loaded is the run whose end this partition of the snapshot topic has
	// met.
	Loaded string `bson:"loaded"`
	// Load is how far this partition of the snapshot topic was loaded.
	Load loadRecord `bson:"load,omitempty"`
	// Updated is the writer's clock, for operators.
	Updated time.Time `bson:"updated"`
}

// mode is how an event at that offset is applied: leniently where it may meet a
// later state.
func (o *offsetRecord) mode(offset int64) event.ApplyMode {
	if o.CatchingUp || offset < o.Redelivered {
		return event.Lenient
	}
	return event.Strict
}

// The states of a barrier.
const (
	barrierWaiting = "waiting"
	barrierClaimed = "claimed"
	barrierDone    = "done"
)

// barrierID names a barrier of a destination by its position.
type barrierID struct {
	Pipeline    string         `bson:"pipeline"`
	Destination string         `bson:"destination"`
	Time        bson.Timestamp `bson:"time"`
	Index       int32          `bson:"index"`
}

// participant is a partition that must meet a barrier.
type participant struct {
	Group     string `bson:"group"`
	Partition int32  `bson:"partition"`
}

// barrierRecord is one DDL event: who must arrive, who has, who executes.
type barrierRecord struct {
	ID           barrierID     `bson:"_id"`
	Op           event.Op      `bson:"op"`
	NS           string        `bson:"ns"`
	Participants []participant `bson:"participants"`
	Arrived      []participant `bson:"arrived"`
	State        string        `bson:"state"`
	Owner        string        `bson:"owner"`
	// Deadline is when a claim ends, by the destination's clock.
	Deadline time.Time `bson:"deadline"`
	// Outcome says in a few words what the execution did.
	Outcome string    `bson:"outcome"`
	Done    time.Time `bson:"done"`
}

// collectionID names a source collection that a group writes.
type collectionID struct {
	Pipeline string `bson:"pipeline"`
	Group    string `bson:"group"`
	// NS is the source's namespace.
	NS string `bson:"ns"`
}

// collectionRecord is a collection that this pipeline made in the destination.
type collectionRecord struct {
	ID     collectionID `bson:"_id"`
	Target string       `bson:"target"`
	// Run is the run that loaded it; empty for one that DDL created.
	Run string `bson:"run"`
	// Watermark is its load's, none for one that DDL created: servers put their
	// own time in the place of an empty one.
	Watermark  bson.Timestamp `bson:"watermark,omitempty"`
	SourceUUID string         `bson:"source_uuid"`
	// Ready says that it exists with its options.
	Ready bool `bson:"ready"`
	// Awaiting says that the destination does not have it until its reload.
	Awaiting bool `bson:"awaiting"`
	// Renaming is what a rename is about to make of it: the target that it gets,
	// and its UUID in the destination, which a rename keeps.
	Renaming string `bson:"renaming,omitempty"`
	// Reload is its last reload; nil before the first.
	Reload *reloadRecord `bson:"reload,omitempty"`
}

// deferredID names an index of the destination.
type deferredID struct {
	Pipeline string `bson:"pipeline"`
	// NS is the target's namespace.
	NS    string `bson:"ns"`
	Index string `bson:"index"`
}

// The reasons why an index waits for the operator.
const (
	deferredUnique = "unique"
	deferredTTL    = "ttl"
	deferredFailed = "failed"
)

// deferredRecord is an index that was built in a weaker form, or not at all.
type deferredRecord struct {
	ID deferredID `bson:"_id"`
	// Spec is the index as the source has it, in creatable form: as bytes,
	// since no server stores every index's field names ("a.b", "$gt").
	Spec   []byte `bson:"spec"`
	Reason string `bson:"reason"`
	Error  string `bson:"error"`
	// Builder has its conversion in hand until Deadline, by the destination's
	// clock.
	Builder  string    `bson:"builder,omitempty"`
	Deadline time.Time `bson:"deadline,omitempty"`
}
