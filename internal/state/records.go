package state

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Keys of the state topic.
const (
	keyIdentity = "source"
	keyPosition = "position"
	prefixRun   = "run/"
	prefixChunk = "chunk/"
	prefixGroup = "group/"
	prefixState = "status/"
)

// KeyIdentity is the key of Identity.
func KeyIdentity() string { return keyIdentity }

// KeyPosition is the key of CapturePosition.
func KeyPosition() string { return keyPosition }

// KeyRun is the key of a run's Manifest.
func KeyRun(run string) string { return prefixRun + run }

// KeyChunk is the key of a ChunkProgress.
func KeyChunk(run string, chunk int32) string { return fmt.Sprintf("%s%s/%d", prefixChunk, run, chunk) }

// ParseKeyChunk takes a ChunkProgress's key apart.
func ParseKeyChunk(key string) (run string, chunk int32, err error) {
	run, number, _ := strings.Cut(strings.TrimPrefix(key, prefixChunk), "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 || !IsChunk(key) {
		return "", 0, fmt.Errorf("parse state record key=%s: want %sRUN/NUMBER", key, prefixChunk)
	}
	return run, int32(n), nil
}

// KeyGroup is the key of a GroupRegistration.
func KeyGroup(destination, group string) string { return prefixGroup + destination + "/" + group }

// KeyStatus is the key of a Status.
func KeyStatus(service, instance string) string { return prefixState + service + "/" + instance }

// IsRun reports whether key is a Manifest's.
func IsRun(key string) bool { return strings.HasPrefix(key, prefixRun) }

// IsChunk reports whether key is a ChunkProgress's.
func IsChunk(key string) bool { return strings.HasPrefix(key, prefixChunk) }

// IsGroup reports whether key is a GroupRegistration's.
func IsGroup(key string) bool { return strings.HasPrefix(key, prefixGroup) }

// IsStatus reports whether key is a Status's.
func IsStatus(key string) bool { return strings.HasPrefix(key, prefixState) }

// Identity binds a pipeline to one source for good.
type Identity struct {
	// Deployment is the replica set id (hex ObjectId), or a stand-in's
	// substitute.
	Deployment string `json:"deployment"`
	// Mode is how the source is followed, oplog or change_stream, for good.
	Mode    string    `json:"mode"`
	Created time.Time `json:"created"`
}

// CapturePosition is capture's two-part position, written in the same Kafka
// transaction as the events up to PublishedThrough.
type CapturePosition struct {
	// ReadFrom is where reading must resume: the first entry of the oldest
	// open transaction, else PublishedThrough.
	ReadFrom event.Position `json:"read_from"`
	// PublishedThrough is the last position whose events, if any were
	// selected, are on the topic.
	PublishedThrough event.Position `json:"published_through"`
	// Watermark is the cluster time of the last watermark.
	Watermark bson.Timestamp `json:"watermark"`
	// Partitions is the partition count over which events were placed; another
	// count would break the order of documents.
	Partitions int32 `json:"partitions"`
	// ByNamespace are the collections whose events are keyed by namespace
	// alone.
	ByNamespace []event.UUID `json:"by_namespace,omitempty"`
	// EnforcedSince are the destinations at which unique indexes have been
	// enforced since the pipeline began.
	EnforcedSince []string `json:"enforced_since,omitempty"`
	// Select is the selection of what is published up to here; nil where a
	// version before it was stored wrote this.
	Select *rules.Patterns `json:"select,omitempty"`
	// ResumeToken is the change stream's resume token at PublishedThrough, raw
	// BSON; empty for an oplog, and before the stream has given the first one.
	ResumeToken []byte `json:"resume_token,omitempty"`
}

// The life of a run.
const (
	RunLoading  = "loading"
	RunComplete = "complete"
	RunFailed   = "failed"
)

// Manifest describes one run of snapshot. It is written before the first
// document is read and again when the run completes or fails.
type Manifest struct {
	Run     string    `json:"run"`
	State   string    `json:"state"`
	Cause   string    `json:"cause,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Watermark is W: every read of the run is at or after it, and everything
	// later stands behind ChangeOffsets.
	Watermark bson.Timestamp `json:"watermark"`
	// ReadThrough is R: no read of the run saw a state later than it. Zero
	// until the run is complete.
	ReadThrough bson.Timestamp `json:"read_through,omitzero"`
	// ChangeOffsets are the offsets of W's watermark record in every partition
	// of the change topic; apply starts there.
	ChangeOffsets []int64 `json:"change_offsets"`
	// SnapshotOffsets are the first offsets of the run in every partition of
	// the snapshot topic.
	SnapshotOffsets []int64 `json:"snapshot_offsets"`
	// Select is the pipeline's selection of which the run is; nil in manifests
	// of earlier versions.
	Select *rules.Patterns `json:"select,omitempty"`
	// WithoutDocuments says that no destination wanted any: there are no chunks.
	WithoutDocuments bool         `json:"without_documents,omitempty"`
	Chunks           int32        `json:"chunks"`
	Collections      []Collection `json:"collections"`
	// Parts says that the record is too small for Collections, which stand in so
	// many records before it; Digest is the SHA-256 of what they amount to.
	// Readers get it whole.
	Parts  int32  `json:"parts,omitempty"`
	Digest []byte `json:"digest,omitempty"`
}

// Collection is one collection or view of a run, as the source listed it.
type Collection struct {
	DB   string     `json:"db"`
	Coll string     `json:"coll"`
	UUID event.UUID `json:"uuid"`
	// View tells a view, which has options and nothing else.
	View bool `json:"view,omitempty"`
	// Options is listCollections' options document, raw BSON.
	Options []byte `json:"options"`
	// Indexes are listIndexes' documents, raw BSON, the _id index included.
	Indexes [][]byte `json:"indexes,omitempty"`
	// Chunks is how many chunks the collection has.
	Chunks int32 `json:"chunks"`
	// EstimatedDocuments and EstimatedBytes come from metadata, for progress
	// alone.
	EstimatedDocuments int64 `json:"estimated_documents"`
	EstimatedBytes     int64 `json:"estimated_bytes"`
}

// Namespace returns the collection's namespace at the source.
func (c *Collection) Namespace() event.Namespace { return event.Namespace{DB: c.DB, Coll: c.Coll} }

// Chunk is a work item on the chunks topic: a range of one collection's _id
// index.
type Chunk struct {
	Run   string     `json:"run"`
	Chunk int32      `json:"chunk"`
	DB    string     `json:"db"`
	Coll  string     `json:"coll"`
	UUID  event.UUID `json:"uuid"`
	// Min (inclusive) and Max (exclusive) are {_id: bound} documents for
	// min() and max(); empty where unbounded.
	Min []byte `json:"min,omitempty"`
	Max []byte `json:"max,omitempty"`
	// Whole says that the collection is one chunk read without bounds
	// (servers whose min() and max() do not work).
	Whole bool `json:"whole,omitempty"`
	// Natural says that it is read in natural order (capped collections).
	Natural bool `json:"natural,omitempty"`
}

// ChunkProgress says how far a chunk has come; it is written in the Kafka
// transaction that carries the sub-range's batches.
type ChunkProgress struct {
	Run   string `json:"run"`
	Chunk int32  `json:"chunk"`
	// Next is the {_id: bound} document after which reading resumes
	// (exclusive); empty at the start.
	Next []byte `json:"next,omitempty"`
	// Digest is the SHA-256 of the document that Next names, for chunks in
	// natural order, where an equal _id may have moved behind unread documents.
	Digest    []byte `json:"digest,omitempty"`
	Sequence  int32  `json:"sequence"`
	Documents int64  `json:"documents"`
	Bytes     int64  `json:"bytes"`
	Done      bool   `json:"done"`
	// ReadThrough is the server's operation time after the last read.
	ReadThrough bson.Timestamp `json:"read_through"`
}

// Phases of an apply group.
const (
	PhaseSnapshot = "snapshot"
	PhaseIndexes  = "indexes"
	PhaseChanges  = "changes"
	// PhaseDone is the end of a one-off copy.
	PhaseDone = "done"
)

// GroupRegistration tells the pipeline that a destination's group exists and
// where it stands; the truth is in the destination.
type GroupRegistration struct {
	Destination string    `json:"destination"`
	Group       string    `json:"group"`
	Phase       string    `json:"phase"`
	Run         string    `json:"run,omitempty"`
	Updated     time.Time `json:"updated"`
	// WithoutFull says that the group loads no documents, and so nothing of the
	// snapshot topic.
	WithoutFull bool `json:"without_full,omitempty"`
	// Select is what the group selects, the pipeline's patterns first; empty in
	// registrations of earlier versions.
	Select rules.Layers `json:"select,omitempty"`
	// ChangeOffsets are where the group begins with the changes; empty in
	// registrations of earlier versions, where they are the run's.
	ChangeOffsets []int64 `json:"change_offsets,omitempty"`
}

// The states that every service reports.
const (
	StateStarting    = "starting"
	StateRunning     = "running"
	StateCatchingUp  = "catching_up"
	StateReplaying   = "replaying"
	StatePaused      = "paused"
	StateRetrying    = "retrying"
	StateHistoryLost = "history_lost"
	StateFailed      = "failed"
	StateFinished    = "finished"
)

// Status is what a service instance says of itself.
type Status struct {
	Service     string `json:"service"`
	Instance    string `json:"instance"`
	Destination string `json:"destination,omitempty"`
	State       string `json:"state"`
	// Since says when State was entered; Until when retrying ends.
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
	Cause   string    `json:"cause,omitempty"`
	Updated time.Time `json:"updated"`
	Version string    `json:"version"`
	// Position is where the service has come in the source's order.
	Position event.Position `json:"position,omitzero"`
	// LagSeconds is how far behind the source's watermark it is; -1 when not
	// known.
	LagSeconds float64 `json:"lag_seconds"`
	// Detail holds counters by name: events, documents, bytes, chunks_done,
	// chunks_total …
	Detail map[string]int64 `json:"detail,omitempty"`
	// Phase is apply's, or snapshot's.
	Phase string `json:"phase,omitempty"`
	// Begin is the cluster time behind which an apply without a load began.
	Begin bson.Timestamp `json:"begin,omitzero"`
	// What follows is replaced as a whole, never changed: copies share it.

	// Progress is that of the load; nil of a service that has none.
	Progress *Progress `json:"progress,omitempty"`
	// Builds are index builds under way at the destination, at most MaxListed.
	Builds []IndexBuild `json:"index_builds,omitempty"`
	// Deferred is nil before the destination was asked, and where none wait.
	Deferred *DeferredIndexes `json:"deferred_indexes,omitempty"`
	// Open is nil where no transaction is open.
	Open *OpenTransactions `json:"open_transactions,omitempty"`
}
