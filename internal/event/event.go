package event

import (
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Op names what a change event does. The strings are those on the wire
// (schemas/change_event.avsc).
type Op string

// The operations. Those for which IsDDL reports true are barriers: a copy goes
// to every partition.
const (
	OpInsert        Op = "insert"
	OpUpdate        Op = "update"
	OpReplace       Op = "replace"
	OpDelete        Op = "delete"
	OpRefresh       Op = "refresh"
	OpCreate        Op = "create"
	OpCreateIndexes Op = "create_indexes"
	OpDropIndexes   Op = "drop_indexes"
	OpModify        Op = "modify"
	OpRename        Op = "rename"
	OpDrop          Op = "drop"
	OpReload        Op = "reload"
	OpReloadEnd     Op = "reload_end"
	OpWatermark     Op = "watermark"
)

// IsDDL reports whether op is a barrier: it waits for every earlier event of
// every partition and holds back every later one.
func (op Op) IsDDL() bool {
	switch op {
	case OpCreate, OpCreateIndexes, OpDropIndexes, OpModify, OpRename, OpDrop, OpReload, OpReloadEnd:
		return true
	case OpInsert, OpUpdate, OpReplace, OpDelete, OpRefresh, OpWatermark:
		return false
	}
	return false
}

// IsData reports whether op changes exactly one document.
func (op Op) IsData() bool {
	switch op {
	case OpInsert, OpUpdate, OpReplace, OpDelete, OpRefresh:
		return true
	case OpCreate, OpCreateIndexes, OpDropIndexes, OpModify, OpRename, OpDrop, OpReload, OpReloadEnd, OpWatermark:
		return false
	}
	return false
}

// Valid reports whether op is one of the operations above.
func (op Op) Valid() bool { return op.IsDDL() || op.IsData() || op == OpWatermark }

// Event is one change of the source. Raw fields alias the buffers that they
// were decoded from; whoever keeps an event keeps those alive.
type Event struct {
	Op Op
	// NS is the source's namespace at the event's time; empty for watermarks.
	NS Namespace
	// UUID is the source collection's, where the source says it.
	UUID UUID
	// DocumentKey is {_id: …} and, where known, the shard key. Nil for DDL
	// and watermarks.
	DocumentKey bson.Raw
	// Document is the whole image after the change (insert, replace, refresh
	// of a present document), else nil. A refresh without a document says
	// that the document does not exist.
	Document bson.Raw
	// Delta is the canonical update (see Delta); nil unless Op is OpUpdate.
	Delta Delta
	// DDL is the command in the canonical form that package capture/oplog
	// documents per Op; nil for data and watermarks.
	DDL         bson.Raw
	Position    Position
	WallTime    time.Time
	Transaction *Transaction
	Source      Source
	// AsOf, for a refresh, is the cluster time of Document's state where that
	// is later than Position: until the stream has passed it, the document
	// counts as catching up. Zero: the image is the state at Position.
	AsOf bson.Timestamp
}

// Transaction identifies the source transaction that an event belongs to.
type Transaction struct {
	// LSID is the logical session id document, raw.
	LSID   bson.Raw
	Number int64
	// Index is the operation's place inside the transaction, from 0.
	Index int32
}

// Source says where an event was captured.
type Source struct {
	// Deployment is the replica set id (hex ObjectId) of the source, or the
	// stand-in's substitute.
	Deployment    string
	Mode          string
	ServerVersion string
}

// ID returns the _id of the event's document key, or a zero value for events
// without one.
func (e *Event) ID() bson.RawValue {
	if e.DocumentKey == nil {
		return bson.RawValue{}
	}
	v, err := e.DocumentKey.LookupErr("_id")
	if err != nil {
		return bson.RawValue{}
	}
	return v
}

// String names the event for messages: operation, namespace and position,
// never any content.
func (e *Event) String() string {
	return fmt.Sprintf("%s ns=%s position=%s", e.Op, e.NS, e.Position)
}
