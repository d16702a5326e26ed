package capture

import (
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// decoder turns the items of a batch into events. What an item is, an entry of
// the oplog or an event of a change stream, is between a source's tail and its
// decoder. It keeps no state, so that many goroutines may use it at once.
type decoder interface {
	// decode appends the events of the batch's i-th item to dst, which may
	// alias the item, and returns the position after it, which counts what is
	// not selected as well. An error says that the item is not understood.
	decode(b *batch, i int, dst []event.Event) ([]event.Event, event.Position, error)
}

// entryDecoder decodes entries of the oplog.
type entryDecoder struct{ oplog.Decoder }

func (s *mongoSource) decoder(source event.Source, selected func(db, coll string) bool) decoder {
	return &entryDecoder{oplog.Decoder{Source: source, Select: selected}}
}

func (d *entryDecoder) decode(b *batch, i int, dst []event.Event) ([]event.Event, event.Position, error) {
	entry := b.entry(i)
	if e, ok := b.effect(i); ok {
		return d.decodePart(entry, e, dst)
	}
	position, err := oplog.EntryPosition(entry)
	if err != nil {
		return dst, position, err
	}
	if dst, err = d.Decode(entry, dst); err != nil {
		return dst, position, err
	}
	if n := len(dst); n > 0 {
		position.Index = max(position.Index, dst[n-1].Position.Index)
	}
	return dst, position, nil
}

// decodePart decodes a fragment of a transaction. The position after it counts
// all of its operations, so that those after it are known by their index.
func (d *entryDecoder) decodePart(entry bson.Raw, e oplog.Effect, dst []event.Event) ([]event.Event, event.Position, error) {
	position := e.Position
	position.Index = max(position.Index+oplog.Operations(entry)-1, 0)
	dst, err := d.DecodeFragment(entry, e, dst)
	return dst, position, err
}

// entryPosition returns the position of an oplog entry.
func entryPosition(entry bson.Raw) (event.Position, error) {
	p, err := oplog.EntryPosition(entry)
	if err != nil {
		return event.Position{}, &finalError{err}
	}
	return p, nil
}
