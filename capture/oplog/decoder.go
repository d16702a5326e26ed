package oplog

import (
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Kinds of entries.
const (
	kindInsert  = 'i'
	kindUpdate  = 'u'
	kindDelete  = 'd'
	kindNoop    = 'n'
	kindCommand = 'c'
)

const (
	viewsCollection = "system.views"
	bucketsPrefix   = "system.buckets."
	commandSuffix   = "$cmd"
)

// What multiOpType says of applyOps in a session: a transaction (so does its
// absence), or retryable writes that a server has put into one entry, whose
// prevOpTime is then that of the session's last write.
const (
	multiTransaction = 0
	multiSeparate    = 1
)

// maxNestedApplyOps bounds applyOps inside applyOps; a server refuses more
// than ten.
const maxNestedApplyOps = 16

// Decoder decodes entries. It has no state, so that one may be used from many
// goroutines; its fields must not change meanwhile.
type Decoder struct {
	// Source is copied into every event.
	Source event.Source
	// Select reports whether a namespace is wanted; nil wants all. It must be
	// safe for concurrent use and must not block.
	Select func(db, coll string) bool
}

// Decode appends the events of an entry to dst. They alias the entry, which
// must not change while they are in use. An entry that cannot be decoded is an
// *EntryError, and dst is returned as it was; decoding it again gives the same.
func (d *Decoder) Decode(entry bson.Raw, dst []event.Event) ([]event.Event, error) {
	op, err := readEntry(entry)
	if err != nil {
		return dst, err
	}
	r := run{d: d, events: dst}
	if err := r.operation(&op, 0); err != nil {
		return dst, err
	}
	return r.events, nil
}

// run decodes the operations of one entry.
type run struct {
	d      *Decoder
	events []event.Event
	// next is the index of the next operation; those before skip become no
	// events.
	next, skip int32
	// inTxn says that the operations belong to the transaction of the entry.
	inTxn bool
}

func (r *run) operation(op *operation, depth int) error {
	if len(op.kind) != 1 {
		return op.unknown("op " + string(op.kind))
	}
	kind := op.kind[0]
	if kind == kindCommand && op.command == "applyOps" {
		return r.applyOps(op, depth)
	}
	op.at.Index = r.next
	r.next++
	if kind == kindNoop {
		return nil
	}
	db, coll, ok := strings.Cut(string(op.ns), ".")
	if !ok || db == "" || coll == "" {
		return op.malformed("namespace")
	}
	ns := event.Namespace{DB: db, Coll: coll}
	switch kind {
	case kindCommand:
		return r.command(op, ns)
	case kindInsert, kindUpdate, kindDelete:
	default:
		return op.unknown("op " + string(op.kind))
	}
	switch {
	case internalDatabase(db):
		return nil
	case coll == viewsCollection:
		return r.view(op, ns)
	case !r.selected(ns):
		return nil
	case kind == kindInsert:
		return r.insert(op, ns)
	case kind == kindUpdate:
		return r.update(op, ns)
	default:
		return r.delete(op, ns)
	}
}

// applyOps decodes the operations inside; the command itself has no index.
func (r *run) applyOps(op *operation, depth int) error {
	if depth > maxNestedApplyOps {
		return op.malformed("applyOps nested too deep")
	}
	switch {
	case op.multi != multiTransaction && op.multi != multiSeparate:
		return op.unknown("multiOpType of applyOps")
	case op.fragment != Whole:
		return op.unsupported("part of a transaction, without the rest (" + op.fragment.String() + ")")
	case depth == 0:
		r.inTxn = op.hasTxn && op.lsid != nil && op.multi == multiTransaction
	}
	list, found, err := rawbson.Lookup(op.o, "applyOps")
	if err != nil {
		return op.fail(err, "")
	}
	if !found || list.Type != bson.TypeArray {
		return op.malformed("applyOps without a list")
	}
	body, err := rawbson.Body(list.Value)
	if err != nil {
		return op.fail(err, "")
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return op.fail(err, "")
		}
		body = rest
		if e.Type != bson.TypeEmbeddedDocument {
			return op.malformed("applyOps with an element that is no document")
		}
		if err := r.element(op, e.Value, depth); err != nil {
			return err
		}
	}
	return nil
}

// element decodes one element of applyOps. What it says of sessions and times
// itself, which only a user's command can, does not count.
func (r *run) element(parent *operation, doc []byte, depth int) error {
	inner := operation{at: parent.at}
	if err := readOperation(doc, &inner); err != nil {
		return err
	}
	inner.at, inner.wall, inner.lsid, inner.number, inner.hasTxn = parent.at, parent.wall, parent.lsid, parent.number, parent.hasTxn
	inner.prev, inner.multi = bson.Timestamp{}, 0
	if len(inner.kind) == 1 && inner.kind[0] == kindCommand {
		if err := inner.readCommand(); err != nil {
			return err
		}
	}
	return r.operation(&inner, depth+1)
}

// emit appends an event with what is common to all.
func (r *run) emit(op *operation, e event.Event) {
	if op.at.Index < r.skip {
		return
	}
	e.Position, e.WallTime, e.Source = op.at, op.wall, r.d.Source
	if r.inTxn {
		e.Transaction = &event.Transaction{LSID: op.lsid, Number: op.number, Index: op.at.Index}
	}
	r.events = append(r.events, e)
}

func (r *run) selected(ns event.Namespace) bool {
	if internalDatabase(ns.DB) || temporary(ns.Coll) {
		return false
	}
	return r.d.Select == nil || r.d.Select(ns.DB, ns.Coll)
}

// internalDatabase reports whether a database is the server's or Tributary's.
func internalDatabase(db string) bool {
	switch db {
	case "admin", "config", "local", "tributary":
		return true
	}
	return false
}

// temporary reports whether a server made the collection up for the time of a
// rename across databases or of a conversion. The name ends as the user's does.
func temporary(coll string) bool {
	first, rest, ok := strings.Cut(coll, ".")
	if !ok || !strings.HasPrefix(first, "tmp") {
		return false
	}
	return rest == "renameCollection" || strings.HasPrefix(rest, "convertToCapped.")
}
