package capture

import (
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kgo"
)

// encoder turns the items of a batch into records. It is owned by one
// goroutine at a time.
type encoder struct {
	decoder    decoder
	codec      *wire.Codec
	topic      string
	partitions int32
	// limit is how many bytes a record's key and value may have together;
	// larger records are split. 0 is no limit.
	limit int
	// one is the parts of a record that is not split.
	one    [1][]byte
	events []event.Event
}

// encode fills the batch's records from its items. An item that is not
// understood ends the batch before it and is a final error: it is never passed
// over.
func (e *encoder) encode(b *batch) error {
	for i := range b.len() {
		records, ddl := len(b.records), len(b.ddl)
		if err := e.encodeItem(b, i); err != nil {
			b.records, b.routes, b.ddl = b.records[:records], b.routes[:records], b.ddl[:ddl]
			return &finalError{err}
		}
	}
	e.forget()
	b.finish()
	return nil
}

// keptEvents is how many decoded events an encoder keeps room for.
const keptEvents = 4096

// forget lets go of the items that the last events alias.
func (e *encoder) forget() {
	if cap(e.events) > keptEvents {
		e.events = nil
	}
	clear(e.events[:cap(e.events)])
	e.one[0] = nil
}

func (e *encoder) encodeItem(b *batch, i int) error {
	var position event.Position
	var err error
	if e.events, position, err = e.decoder.decode(b, i, e.events[:0]); err != nil {
		return err
	}
	for i := range e.events {
		if err := e.append(b, &e.events[i]); err != nil {
			return err
		}
	}
	b.events += len(e.events)
	b.last = position
	return nil
}

// append adds the records of one event: one in the partition of its key, or for
// DDL one in every partition.
func (e *encoder) append(b *batch, ev *event.Event) error {
	ddl := ev.Op.IsDDL()
	start := len(b.out)
	var err error
	class := route.ByDocument
	if ddl {
		class = route.ByNamespace
	}
	if b.out, err = route.AppendKey(b.out, ev.NS, ev.ID(), class); err != nil {
		return fmt.Errorf("route %s: %w", ev, err)
	}
	middle := len(b.out)
	if b.out, err = e.codec.AppendEvent(b.out, ev); err != nil {
		return err
	}
	// The slices stay valid where out moves on to a larger array.
	key, value := b.out[start:middle:middle], b.out[middle:len(b.out):len(b.out)]
	e.one[0] = value
	parts := e.one[:]
	if e.limit > 0 && len(key)+len(value) > e.limit {
		if parts, err = e.codec.Split(value, e.limit-len(key)); err != nil {
			return fmt.Errorf("encode %s: %w", ev, err)
		}
	}
	if !ddl {
		r := recordRoute{uuid: ev.UUID, prefix: len(ev.NS.DB) + len(ev.NS.Coll) + 2}
		b.place(e.topic, route.Partition(key, e.partitions), key, parts, r)
		return nil
	}
	b.ddl = append(b.ddl, ddlMark{at: len(b.records), event: *ev})
	for partition := range e.partitions {
		b.place(e.topic, partition, key, parts, recordRoute{})
	}
	return nil
}

// place adds a record, in its parts, to a partition.
func (b *batch) place(topic string, partition int32, key []byte, parts [][]byte, r recordRoute) {
	for _, part := range parts {
		b.records = append(b.records, kgo.Record{Topic: topic, Partition: partition, Key: key, Value: part})
		b.routes = append(b.routes, r)
	}
}

// watermarkRecords returns one record for each partition.
func (e *encoder) watermarkRecords(ev *event.Event) ([]*kgo.Record, error) {
	value, err := e.codec.AppendEvent(nil, ev)
	if err != nil {
		return nil, err
	}
	records := make([]*kgo.Record, e.partitions)
	for partition := range records {
		records[partition] = &kgo.Record{
			Topic: e.topic, Partition: int32(partition), Key: []byte(watermarkKey), Value: value,
		}
	}
	return records, nil
}

// watermarkKey is the record key of watermarks: of no namespace, of no _id.
const watermarkKey = "|watermark"
