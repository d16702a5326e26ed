package apply

import (
	"errors"
	"slices"
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// maxCommandBytes bounds a command's memory; a single document may pass it,
	// alone, up to the server's limit of 16 MiB + 16 KiB.
	maxCommandBytes = 4 << 20
	// maxCommandWrites is below the server's limit of 100 000.
	maxCommandWrites = 50_000
)

var (
	errNoPipelines = errors.New("the document has a top-level Timestamp(0, 0), and this destination has no pipeline updates to store it as it is: hint: use a MongoDB server, 4.2 or later")
	errIDFirst     = errors.New("the document does not begin with _id, and this destination stores _id first whatever it is told: hint: use a destination of the source's version")
	errInexact     = errors.New("the document combines names that begin with $ with an _id that is not first, or with a top-level Timestamp(0, 0) in a field whose name no path can say, which this destination's version cannot store exactly: hint: use a destination of MongoDB 5.0 or later")
	errNotAtomic   = errors.New("the document has names that begin with $, and this destination, without transactions and before MongoDB 5.0, cannot replace it in one step: hint: use a replica set, or MongoDB 5.0 or later")
)

// abilities are what a destination can do, found out when the service starts.
type abilities struct {
	// transactions work: batches are atomic.
	transactions bool
	// pipelines says that an update may be an aggregation pipeline, which
	// leaves zero timestamps alone.
	pipelines bool
	// idAnywhere says that such an update leaves _id where it stands.
	idAnywhere bool
	// nestedDollar says that updates may leave names with $ below the top
	// level (5.0).
	nestedDollar bool
	// collectionUUID says that DDL commands fail if the collection is another
	// one than they say (6.0).
	collectionUUID bool
	// sharded says that the destination is a sharded cluster.
	sharded bool
}

// command is one write command.
type command struct {
	raw bson.Raw
	// matches is how many documents an update must match; -1 for others.
	matches int
}

// commandBuilder packs the writes of one collection into as few commands as
// their limits allow, keeping all bytes of the documents. It is pure. The
// documents' order is free, the steps of one document keep theirs: deletes come
// before inserts, inserts before updates.
type commandBuilder struct {
	coll string
	able abilities
	// key is the collection's shard key; nil where there is none but _id.
	key     *shardKey
	deletes listCommand
	inserts listCommand
	updates listCommand
}

func newBuilder(coll string, able abilities) commandBuilder {
	return commandBuilder{
		coll: coll, able: able,
		deletes: listCommand{name: "delete", list: "deletes"},
		inserts: listCommand{name: "insert", list: "documents"},
		updates: listCommand{name: "update", list: "updates"},
	}
}

// full reports whether the builder should be drained before a document of that
// size is added.
func (b *commandBuilder) full(size int) bool {
	n := b.deletes.n + b.inserts.n + b.updates.n
	bytes := len(b.deletes.buf) + len(b.inserts.buf) + len(b.updates.buf)
	return n > 0 && (bytes+size > maxCommandBytes || n >= maxCommandWrites)
}

// add takes over one write. It copies the documents.
func (b *commandBuilder) add(w write) error {
	switch w.kind {
	case writeNothing:
	case writeDelete:
		b.delete(w.id, w.key)
	case writeInsert:
		return b.insert(w.doc)
	case writeReplace:
		return b.replace(w)
	case writeRespell:
		if w.fromDeltas && !b.able.transactions {
			return errNotAtomic
		}
		b.delete(w.id, w.key)
		return b.insert(w.doc)
	}
	return nil
}

func (b *commandBuilder) insert(doc bson.Raw) error {
	s, err := shapeOf(doc)
	if err != nil {
		return err
	}
	if s.plain() {
		b.inserts.next(b.coll)
		b.inserts.buf = append(b.inserts.buf, doc...)
		return nil
	}
	dollar, err := b.refused(doc, &s)
	switch {
	case err != nil:
		return err
	case dollar:
		return b.insertHidden(doc, &s)
	}
	if err := b.settable(&s); err != nil {
		return err
	}
	// A stub with the _id, then the image: a pipeline update writes it as it
	// is.
	if err := b.stub(s.id, doc); err != nil {
		return err
	}
	return b.set(s.id, doc)
}

// insertHidden inserts a document that no update may set as a whole: with other
// timestamps in the places of the zero ones, which updates of their fields then
// write. Servers look at the fields that an update names alone.
func (b *commandBuilder) insertHidden(doc bson.Raw, s *shape) error {
	if !s.idFirst || slices.ContainsFunc(s.zeroTimes, func(name string) bool { return !sayable([]byte(name)) }) {
		return errInexact
	}
	b.inserts.next(b.coll)
	at := len(b.inserts.buf)
	b.inserts.buf = append(b.inserts.buf, doc...)
	if _, err := b.key.appendRoots(nil, doc); err != nil {
		return err
	}
	key, err := b.key.appendFilter(nil, doc)
	if err != nil {
		return err
	}
	o := operators{key: key}
	for _, name := range s.zeroTimes {
		e, _, err := rawbson.Lookup(b.inserts.buf[at:], name)
		if err != nil {
			return err
		}
		if e.Type != bson.TypeTimestamp || !isZero(e.Value) {
			return errInexact // a duplicate name, of which updates see the first
		}
		e.Value[0] = 1
		zero := bson.RawValue{Type: bson.TypeTimestamp, Value: make([]byte, 8)}
		o.sets = append(o.sets, setting{path: name, value: zero, exists: true})
	}
	b.operate(s.id, &o)
	return nil
}

func (b *commandBuilder) replace(w write) error {
	s, err := shapeOf(w.doc)
	if err != nil {
		return err
	}
	dollar, err := b.refused(w.doc, &s)
	switch {
	case err != nil:
		return err
	case dollar && w.fromDeltas && !b.able.transactions:
		return errNotAtomic
	case dollar:
		b.delete(w.id, w.key)
		return b.insert(w.doc)
	case s.plain():
		return b.update(w.id, w.doc)
	}
	if err := b.settable(&s); err != nil {
		return err
	}
	return b.set(w.id, w.doc)
}

// settable checks that set stores a document as it is.
func (b *commandBuilder) settable(s *shape) error {
	switch {
	case !s.idFirst && !b.able.idAnywhere:
		return errIDFirst
	case !b.able.pipelines:
		return errNoPipelines
	}
	return nil
}

// refused reports whether the server refuses the document as the result of an
// update because of its names.
func (b *commandBuilder) refused(doc bson.Raw, s *shape) (bool, error) {
	if s.topDollar || b.able.nestedDollar {
		return s.topDollar, nil
	}
	return hasDollar(doc)
}

// stub inserts what stands in a document's place until it is set: its _id, and
// what decides about its shard.
func (b *commandBuilder) stub(id bson.RawValue, doc bson.Raw) error {
	roots, err := b.key.appendRoots(nil, doc)
	if err != nil {
		return err
	}
	b.inserts.next(b.coll)
	dst, at := rawbson.Begin(b.inserts.buf)
	dst = rawbson.AppendValue(dst, id.Type, "_id", id.Value)
	b.inserts.buf = rawbson.End(append(dst, roots...), at)
	return nil
}

// delete deletes a document; key are the conditions of its shard key.
func (b *commandBuilder) delete(id bson.RawValue, key []byte) {
	b.deletes.next(b.coll)
	dst, at := rawbson.Begin(b.deletes.buf)
	dst = appendIDFilter(dst, "q", id, key...)
	dst = rawbson.AppendInt32(dst, "limit", 1)
	b.deletes.buf = rawbson.End(dst, at)
}

// update replaces a document by one of the same shard key.
func (b *commandBuilder) update(id bson.RawValue, doc bson.Raw) error {
	key, err := b.key.appendFilter(nil, doc)
	if err != nil {
		return err
	}
	b.updates.next(b.coll)
	dst, at := rawbson.Begin(b.updates.buf)
	dst = appendIDFilter(dst, "q", id, key...)
	dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "u", doc)
	b.updates.buf = rawbson.End(dst, at)
	return nil
}

// set replaces a document by doc as it is, by the pipeline
// [{$replaceWith: {$literal: doc}}]: _id stays where doc has it and no
// timestamp is filled in.
func (b *commandBuilder) set(id bson.RawValue, doc bson.Raw) error {
	key, err := b.key.appendFilter(nil, doc)
	if err != nil {
		return err
	}
	b.updates.next(b.coll)
	dst, at := rawbson.Begin(b.updates.buf)
	dst = appendIDFilter(dst, "q", id, key...)
	dst = rawbson.AppendHeader(dst, bson.TypeArray, "u")
	dst, stages := rawbson.Begin(dst)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "0")
	dst, stage := rawbson.Begin(dst)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "$replaceWith")
	dst, with := rawbson.Begin(dst)
	dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "$literal", doc)
	for _, open := range []int{with, stage, stages, at} {
		dst = rawbson.End(dst, open)
	}
	b.updates.buf = dst
	return nil
}

// drain returns the commands so far, in the order in which they must run, and
// empties the builder. The commands are valid until the next one is added.
func (b *commandBuilder) drain() []command {
	var out []command
	for _, l := range []*listCommand{&b.deletes, &b.inserts, &b.updates} {
		if l.n == 0 {
			continue
		}
		c := command{matches: -1}
		if l == &b.updates {
			c.matches = l.n
		}
		c.raw = l.end(!b.able.transactions)
		out = append(out, c)
	}
	return out
}

// maxKeptBytes is how much memory a builder keeps for its next command.
const maxKeptBytes = 4 << 20

// listCommand is a write command with a list of documents, written in place.
type listCommand struct {
	name, list string
	buf        []byte
	// unordered has the server go on behind an element that it refuses.
	unordered bool
	// array is where the list begins in buf.
	array int
	n     int
}

// next begins the list's next element, whose document the caller appends to
// buf.
func (l *listCommand) next(coll string) {
	if l.n == 0 {
		dst, _ := rawbson.Begin(l.buf[:0])
		dst = rawbson.AppendString(dst, l.name, coll)
		if l.unordered {
			dst = append(rawbson.AppendHeader(dst, bson.TypeBoolean, "ordered"), 0)
		} else {
			dst = appendTrue(dst, "ordered")
		}
		if l.name != "delete" {
			dst = appendTrue(dst, "bypassDocumentValidation")
		}
		dst = rawbson.AppendHeader(dst, bson.TypeArray, l.list)
		l.buf, l.array = rawbson.Begin(dst)
	}
	l.buf = append(l.buf, byte(bson.TypeEmbeddedDocument))
	l.buf = strconv.AppendInt(l.buf, int64(l.n), 10)
	l.buf = append(l.buf, 0)
	l.n++
}

// end returns the command and begins anew. Outside of a transaction, whose
// commit carries it, a write needs the write concern itself: the offset moves
// after it, perhaps on another primary that never had the write.
func (l *listCommand) end(concern bool) bson.Raw {
	dst := rawbson.End(l.buf, l.array)
	if concern {
		dst = appendMajority(dst)
	}
	raw := bson.Raw(rawbson.End(dst, 0))
	l.buf, l.n = raw[:0], 0
	if cap(raw) > maxKeptBytes {
		l.buf = nil
	}
	return raw
}

// findCommand asks for the documents with those _ids, or for their _ids and
// shard keys alone (needID); shard may be nil.
// An _id that begins with a $ name cannot stand in $in and gets a branch of its
// own.
func findCommand(coll string, ids []bson.RawValue, n need, shard *shardKey) bson.Raw {
	dst, at := rawbson.Begin(nil)
	dst = rawbson.AppendString(dst, "find", coll)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "filter")
	dst = appendIDsFilter(dst, ids)
	if n == needID {
		dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, "projection")
		var projection int
		dst, projection = rawbson.Begin(dst)
		dst = rawbson.AppendInt32(dst, "_id", 1)
		dst = shard.appendProjection(dst)
		dst = rawbson.End(dst, projection)
	}
	dst = rawbson.AppendInt32(dst, "batchSize", int32(len(ids)+1))
	return rawbson.End(dst, at)
}
