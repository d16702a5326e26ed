package oplog

import (
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Fragment says what part of a transaction an entry is. Decode takes Whole
// entries alone; Transactions gathers the others, which DecodeFragment takes.
type Fragment int

const (
	// Whole entries stand for themselves.
	Whole Fragment = iota
	// Partial is an applyOps entry with more to come (partialTxn).
	Partial
	// Last is the applyOps entry that ends a chain and commits it.
	Last
	// Prepared is the applyOps entry that ends a chain, perhaps of itself
	// alone, without an effect yet (prepare).
	Prepared
	// Commit gives a prepared transaction its effect.
	Commit
	// Abort ends a prepared or partial transaction without effect.
	Abort
)

// String names the fragment for messages.
func (f Fragment) String() string {
	switch f {
	case Whole:
		return "whole"
	case Partial:
		return "partial"
	case Last:
		return "last"
	case Prepared:
		return "prepared"
	case Commit:
		return "commit"
	case Abort:
		return "abort"
	}
	return "invalid"
}

// Header is what an entry says about itself, without its content.
type Header struct {
	// Op is i, u, d, n, c or what else the entry says.
	Op       string
	Position event.Position
	WallTime time.Time
	// Command names the command of a c entry.
	Command  string
	Fragment Fragment
	// LSID and Number identify the session's transaction or retryable write;
	// LSID is nil without one. It aliases the entry.
	LSID   bson.Raw
	Number int64
	// Previous is the time of the same transaction's entry before this one;
	// zero when it is the first.
	Previous bson.Timestamp
	// CommitTime is the commitTimestamp of a Commit fragment: the time at
	// which a server shows the effect, before the entry's own.
	CommitTime bson.Timestamp
}

// ReadHeader reads an entry's header. It is cheap next to Decode.
func ReadHeader(entry bson.Raw) (Header, error) {
	op, err := readEntry(entry)
	if err != nil {
		return Header{}, err
	}
	h := Header{
		Op:       string(op.kind),
		Position: op.at,
		WallTime: op.wall,
		Command:  op.command,
		Fragment: op.fragment,
		LSID:     op.lsid,
		Number:   op.number,
		Previous: op.prev,
	}
	if op.fragment == Commit {
		e, _, err := rawbson.Lookup(op.o, "commitTimestamp")
		if err != nil {
			return Header{}, op.fail(err, "")
		}
		var ok bool
		if h.CommitTime, ok = e.Timestamp(); !ok {
			return Header{}, op.malformed("no commitTimestamp")
		}
	}
	return h, nil
}

// EntryPosition returns an entry's position, with index 0.
func EntryPosition(entry bson.Raw) (event.Position, error) {
	var op operation
	body, err := rawbson.Body(entry)
	if err != nil {
		return event.Position{}, op.fail(err, "")
	}
	for found := 0; len(body) > 0 && found < 2; {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return event.Position{}, op.fail(err, "")
		}
		body = rest
		if name := string(e.Name); name == "ts" || name == "t" {
			if !op.setField(&e) {
				return event.Position{}, op.malformed("type of field " + name)
			}
			found++
		}
	}
	if op.at.Time == (bson.Timestamp{}) {
		return event.Position{}, op.malformed("no ts")
	}
	return op.at, nil
}

// findFragment classifies a command.
func (op *operation) findFragment() (Fragment, error) {
	switch op.command {
	case "commitTransaction":
		return Commit, nil
	case "abortTransaction":
		return Abort, nil
	case "applyOps":
	default:
		return Whole, nil
	}
	if op.multi != multiTransaction {
		return Whole, nil
	}
	fragment := Whole
	if op.prev != (bson.Timestamp{}) {
		fragment = Last
	}
	for _, mark := range []struct {
		name string
		is   Fragment
	}{{"partialTxn", Partial}, {"prepare", Prepared}} {
		e, found, err := rawbson.Lookup(op.o, mark.name)
		if err != nil {
			return Whole, op.fail(err, "")
		}
		if found && e.True() {
			fragment = mark.is
		}
	}
	return fragment, nil
}
