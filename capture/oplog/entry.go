package oplog

import (
	"encoding/binary"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// operation is an entry, or an element of applyOps, taken apart. Its fields
// alias the entry.
type operation struct {
	kind []byte
	ns   []byte
	uuid event.UUID
	o    []byte
	o2   []byte

	// The rest is the entry's; elements of applyOps inherit it.
	at       event.Position
	wall     time.Time
	lsid     []byte
	number   int64
	hasTxn   bool
	prev     bson.Timestamp
	multi    int64
	fragment Fragment
	// command is the first name of o in commands.
	command string
}

// readOperation takes a document apart. It reads every field once and ignores
// those that it does not need.
func readOperation(doc []byte, op *operation) error {
	body, err := rawbson.Body(doc)
	if err != nil {
		return op.fail(err, "")
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return op.fail(err, "")
		}
		body = rest
		if !op.setField(&e) {
			return op.malformed("type of field " + string(e.Name))
		}
	}
	if len(op.kind) == 0 {
		return op.malformed("no op")
	}
	return nil
}

// setField takes over one field; false says that it has a wrong type.
func (op *operation) setField(e *rawbson.Element) bool {
	ok := true
	switch string(e.Name) {
	case "op":
		op.kind, ok = e.Text()
	case "ns":
		op.ns, ok = e.Text()
	case "o":
		op.o, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
	case "o2":
		op.o2, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
	case "ui":
		op.uuid, ok = readUUID(e)
	case "ts":
		op.at.Time, ok = e.Timestamp()
	case "t":
		op.at.Term, ok = e.Int64()
	case "wall":
		if ok = e.Type == bson.TypeDateTime; ok {
			op.wall = time.UnixMilli(int64(binary.LittleEndian.Uint64(e.Value))).UTC()
		}
	case "lsid":
		op.lsid, ok = e.Value, e.Type == bson.TypeEmbeddedDocument
	case "txnNumber":
		op.number, ok = e.Int64()
		op.hasTxn = true
	case "prevOpTime":
		op.prev, ok = readOpTime(e)
	case "multiOpType":
		op.multi, ok = e.Int64()
	}
	return ok
}

func readUUID(e *rawbson.Element) (event.UUID, bool) {
	const head = 5 // length and subtype
	var id event.UUID
	if e.Type != bson.TypeBinary || len(e.Value) != head+len(id) {
		return id, false
	}
	copy(id[:], e.Value[head:])
	return id, true
}

// readOpTime returns the time of {ts, t}; zero for none.
func readOpTime(e *rawbson.Element) (bson.Timestamp, bool) {
	if e.Type != bson.TypeEmbeddedDocument {
		return bson.Timestamp{}, false
	}
	ts, found, err := rawbson.Lookup(e.Value, "ts")
	if err != nil || !found {
		return bson.Timestamp{}, false
	}
	return ts.Timestamp()
}

// readEntry takes a whole entry apart and classifies it.
func readEntry(entry []byte) (operation, error) {
	var op operation
	if err := readOperation(entry, &op); err != nil {
		return op, err
	}
	if op.at.Time == (bson.Timestamp{}) {
		return op, op.malformed("no ts")
	}
	if len(op.kind) == 1 && op.kind[0] == kindCommand {
		if err := op.readCommand(); err != nil {
			return op, err
		}
	}
	return op, nil
}

// readCommand finds the command's name and what fragment it is.
func (op *operation) readCommand() error {
	body, err := rawbson.Body(op.o)
	if err != nil {
		return op.fail(err, "")
	}
	if len(body) == 0 {
		return op.malformed("no command")
	}
	first, _, err := rawbson.Next(body)
	if err != nil {
		return op.fail(err, "")
	}
	op.command = string(first.Name)
	op.fragment, err = op.findFragment()
	return err
}
