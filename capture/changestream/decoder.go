package changestream

import (
	"errors"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Decoder decodes whole changes. It has no state, so that one may be used from
// many goroutines; its fields must not change meanwhile.
type Decoder struct {
	// Source is copied into every event.
	Source event.Source
	// Select reports whether a namespace is wanted; nil wants all. It must be
	// safe for concurrent use and must not block.
	Select func(db, coll string) bool
	// Dots says what a dot in the paths of an update can mean.
	Dots event.DotRule
}

// Decode appends the event of a change, if it has one, to dst, at the position
// that the reader of the stream gave it. It aliases the change, which must not
// change while the event is in use. A change that cannot be decoded is an
// *EventError or an *AmbiguousError, and dst is returned as it was.
func (d *Decoder) Decode(doc bson.Raw, at event.Position, dst []event.Event) ([]event.Event, error) {
	c, err := readChange(doc)
	if err != nil {
		return dst, err
	}
	c.at = at
	if c.fragment != 0 {
		return dst, c.malformed("fragment of a change")
	}
	e, err := d.event(&c)
	if err != nil || e.Op == "" {
		return dst, err
	}
	e.Position, e.WallTime, e.Source = at, c.wall, d.Source
	if e.WallTime.IsZero() { // before 6.0
		e.WallTime = timeOf(at)
	}
	if c.hasTxn && c.lsid != nil {
		e.Transaction = &event.Transaction{LSID: c.lsid, Number: c.number, Index: at.Index}
	}
	if e.Op == event.OpUpdate && e.Delta == nil {
		return dst, &AmbiguousError{Event: e, Err: event.ErrDeltaAmbiguous}
	}
	return append(dst, e), nil
}

// event builds the event of a change without what is common to all; its Op is
// empty if there is none.
func (d *Decoder) event(c *change) (event.Event, error) {
	switch kind := string(c.kind); kind {
	case "insert", "replace", "update", "delete":
		if c.ns.DB == "" || c.ns.Coll == "" {
			return event.Event{}, c.malformed("namespace")
		}
		if !d.selected(c.ns) {
			return event.Event{}, nil
		}
		return c.data(event.Op(kind), d.Dots)
	case "drop", "create", "createIndexes", "dropIndexes", "modify":
		if c.ns.DB == "" || c.ns.Coll == "" {
			return event.Event{}, c.malformed("namespace")
		}
		if !d.selected(c.ns) {
			return event.Event{}, nil
		}
		return c.ddl(kind)
	case "rename":
		if c.ns.Coll == "" || c.to.Coll == "" {
			return event.Event{}, c.malformed("namespace")
		}
		if !d.selected(c.ns) && !d.selected(c.to) {
			return event.Event{}, nil
		}
		return c.rename()
	case "dropDatabase",
		"shardCollection", "refineCollectionShardKey", "reshardCollection", "reshardBegin", "reshardBlockingWrites",
		"reshardDoneCatchUp", "migrateLastChunkFromShard", "migrateChunkToNewShard",
		"startIndexBuild", "abortIndexBuild", "endOfTransaction":
		return event.Event{}, nil
	default:
		return event.Event{}, c.unknown("operationType " + kind)
	}
}

func (d *Decoder) selected(ns event.Namespace) bool {
	return !rules.Internal(ns.DB, ns.Coll) && (d.Select == nil || d.Select(ns.DB, ns.Coll))
}

// data builds the event of a change of one document. An update without a delta
// is one that its paths do not tell.
func (c *change) data(op event.Op, dots event.DotRule) (event.Event, error) {
	e := event.Event{Op: op, NS: c.ns, UUID: c.collection(), DocumentKey: c.key}
	if _, found, err := rawbson.Lookup(c.key, "_id"); c.key == nil || err != nil || !found {
		return e, c.malformed("documentKey")
	}
	var err error
	switch op {
	case event.OpInsert, event.OpReplace:
		if c.full == nil {
			return e, c.malformed("no fullDocument")
		}
		e.Document, err = event.IDFirst(c.full)
	case event.OpUpdate:
		e.Delta, err = c.delta(dots)
		if errors.Is(err, event.ErrDeltaAmbiguous) {
			return e, nil
		}
	}
	if err != nil {
		return e, c.fail(err, "")
	}
	return e, nil
}

func (c *change) delta(dots event.DotRule) (event.Delta, error) {
	switch {
	case c.diff != nil:
		return event.DeltaFromDiff(c.diff)
	case c.description != nil:
		return event.DeltaFromUpdateDescription(c.description, dots)
	}
	return nil, c.malformed("no updateDescription")
}
