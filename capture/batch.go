package capture

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// batchBytes and batchEntries end a batch: small enough that the stages
	// work side by side, large enough that handing over costs nothing.
	batchBytes   = 512 << 10
	batchEntries = 1024
	// batchOperations ends a batch as well: operations of transactions, each of
	// which becomes a record.
	batchOperations = 4096
	// keptBytes is the largest buffer that is used again.
	keptBytes = 4 << 20
	// largeEntry is the size from which an entry is asked for its operations.
	largeEntry = 4 << 10
	// recordBytes is about what a record takes beside its entry's bytes: key,
	// the event's other fields, the client's structures.
	recordBytes = 512
)

// batch is a run of items, entries of an oplog or events of a change stream, and
// what becomes of them. One stage owns it at a
// time; the last acknowledgement of its records gives it back.
type batch struct {
	// raw holds the items one after another; ends are their ends.
	raw  []byte
	ends []int
	// parts are the items that are fragments of a transaction, in order.
	parts []part
	// operations is about how many records the items may become.
	operations int
	// drained says that the source had nothing more after this batch.
	drained bool
	// reached is how far the tail has come with the batch; zero: as far as its
	// last item.
	reached event.Position
	// readFrom is where reading must resume once the batch is published: the
	// first entry of the oldest open transaction; zero: where the batch ends.
	readFrom event.Position
	// open are the source's open transactions behind the batch; nil for none.
	open *state.OpenTransactions
	// partial says that more of the time of the batch's end follows in the next
	// batch: no watermark may stand between the two.
	partial bool
	// stream is what a change stream's items say beside; empty for an oplog.
	stream streamBatch
	// cost is what it takes from the budget of bytes.
	cost int64

	// last is the position after the batch, items counted that were not
	// selected; events are counted once, whatever number of records.
	last   event.Position
	events int
	// out holds keys and values of the records.
	out     []byte
	records []kgo.Record
	routes  []recordRoute
	// ddl are the DDL events, each before records[at].
	ddl []ddlMark
	err error
	// done tells the producing stage that the batch is encoded.
	done chan struct{}
	// pending counts records that the broker has not acknowledged.
	pending atomic.Int64
	// promise is called by the Kafka client for each record.
	promise func(*kgo.Record, error)
}

// part says where the operations of an item take effect that is a fragment.
type part struct {
	item   int
	effect oplog.Effect
}

// recordRoute is what a change of the key class needs.
type recordRoute struct {
	uuid event.UUID
	// prefix is the length of "db.coll|" in the record's key.
	prefix int
}

// ddlMark is a DDL event before the record at that index.
type ddlMark struct {
	at    int
	event event.Event
}

func newBatch() *batch { return &batch{done: make(chan struct{}, 1)} }

// add copies an item into the batch.
func (b *batch) add(item bson.Raw) {
	b.raw = append(b.raw, item...)
	b.ends = append(b.ends, len(b.raw))
	b.operations += operations(item)
	b.reached = event.Position{}
}

// addPart copies a fragment of a transaction into the batch.
func (b *batch) addPart(fragment bson.Raw, e oplog.Effect) {
	b.parts = append(b.parts, part{item: b.len(), effect: e})
	b.add(fragment)
}

// effect returns where the i-th item takes effect, if it is a fragment.
func (b *batch) effect(i int) (oplog.Effect, bool) {
	if len(b.parts) == 0 {
		return oplog.Effect{}, false
	}
	at, found := slices.BinarySearchFunc(b.parts, i, func(p part, i int) int { return cmp.Compare(p.item, i) })
	if !found {
		return oplog.Effect{}, false
	}
	return b.parts[at].effect, true
}

// begun reports whether there is something to hand over.
func (b *batch) begun() bool { return b.len() > 0 || !b.reached.IsZero() }

// operations is how many operations an entry holds: one, or those of a
// transaction. What cannot be read counts as one; decoding says what is wrong.
func operations(entry bson.Raw) int {
	if len(entry) < largeEntry {
		return 1
	}
	return max(int(oplog.Operations(entry)), 1)
}

func (b *batch) len() int { return len(b.ends) }
func (b *batch) full() bool {
	return len(b.raw) >= batchBytes || len(b.ends) >= batchEntries || b.operations >= batchOperations
}

// memory is about what the batch takes until it is acknowledged: its items as
// they were read and once more as records.
func (b *batch) memory() int64 { return 2*int64(cap(b.raw)) + int64(b.operations)*recordBytes }

// buffers is about what an empty batch holds for its next use.
func (b *batch) buffers() int64 {
	return int64(cap(b.raw)) + int64(cap(b.out)) + int64(cap(b.records))*recordBytes
}

// entry returns the i-th item.
func (b *batch) entry(i int) bson.Raw {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return bson.Raw(b.raw[start:b.ends[i]:b.ends[i]])
}

// reset makes the batch ready to be filled again. Large buffers are let go.
func (b *batch) reset() {
	if cap(b.raw) > keptBytes {
		b.raw = nil
	}
	if cap(b.out) > keptBytes {
		b.out = nil
	}
	clear(b.records)
	clear(b.ddl)
	b.raw, b.ends, b.parts, b.out, b.operations = b.raw[:0], b.ends[:0], b.parts[:0], b.out[:0], 0
	b.records, b.routes, b.ddl = b.records[:0], b.routes[:0], b.ddl[:0]
	b.drained, b.cost, b.last, b.events, b.err = false, 0, event.Position{}, 0, nil
	b.reached, b.readFrom, b.partial, b.open = event.Position{}, event.Position{}, false, nil
	b.promise = nil
	b.stream.reset()
}

// finish notes that every item is encoded: the batch counts as far as its tail
// has come.
func (b *batch) finish() {
	b.last = cmp.Or(b.reached, b.last)
	b.stream.finish(b)
}
