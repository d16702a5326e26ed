package wire

import (
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// AppendEvent appends the framed record of e to dst. The wall time is carried
// to the millisecond. On an error dst is returned as it was.
func (c *Codec) AppendEvent(dst []byte, e *event.Event) ([]byte, error) {
	op, ok := c.opCodes[e.Op]
	if !ok {
		return dst, fmt.Errorf("encode change event ns=%s position=%s: operation %q is not in the schema", e.NS, e.Position, e.Op)
	}
	dst = append(dst, c.eventHeader[:]...)
	dst = appendLong(dst, op)
	dst = appendBytes(dst, e.NS.DB)
	dst = appendBytes(dst, e.NS.Coll)
	dst = appendUUID(dst, &e.UUID)
	dst = appendOptional(dst, e.DocumentKey)
	dst = appendOptional(dst, e.Document)
	dst = appendOptional(dst, []byte(e.Delta))
	dst = appendOptional(dst, e.DDL)
	dst = appendLong(dst, int64(e.Position.Time.T))
	dst = appendLong(dst, int64(e.Position.Time.I))
	dst = appendLong(dst, e.Position.Term)
	dst = appendLong(dst, int64(e.Position.Index))
	dst = appendLong(dst, wallMillis(e.WallTime))
	dst = appendTransaction(dst, e.Transaction)
	dst = appendBytes(dst, e.Source.Deployment)
	dst = appendBytes(dst, e.Source.Mode)
	dst = appendBytes(dst, e.Source.ServerVersion)
	return appendTime(dst, e.AsOf), nil
}

// appendTime appends the union of null and a cluster time; zero is null.
func appendTime(dst []byte, t bson.Timestamp) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	dst = appendLong(append(dst, 2), int64(t.T))
	return appendLong(dst, int64(t.I))
}

func appendUUID(dst []byte, u *event.UUID) []byte {
	if u.IsZero() {
		return append(dst, 0)
	}
	return appendBytes(append(dst, 2), u[:])
}

func appendTransaction(dst []byte, t *event.Transaction) []byte {
	if t == nil {
		return append(dst, 0)
	}
	dst = appendBytes(append(dst, 2), t.LSID)
	dst = appendLong(dst, t.Number)
	return appendLong(dst, int64(t.Index))
}

// wallMillis is the wall time on the wire; a time that is not known is 0.
func wallMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func wallTime(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

// DecodeEvent decodes one framed record. The event's raw fields alias b, which
// must not change as long as the event is in use; its strings do not.
func (c *Codec) DecodeEvent(b []byte) (event.Event, error) {
	fingerprint, body, err := split(b)
	if err != nil {
		return event.Event{}, fmt.Errorf("decode change event: %w", err)
	}
	var e event.Event
	if [headerBytes]byte(b[:headerBytes]) == c.eventHeader {
		e, err = c.decodeEvent(body)
	} else if codec, ok := c.earlierEvents[fingerprint]; ok {
		e, err = eventFromNative(codec, body)
	} else {
		err = unknownSchema(fingerprint)
	}
	if err == nil && !e.Op.Valid() {
		err = fmt.Errorf("operation %q is not known", e.Op)
	}
	if err != nil {
		return event.Event{}, fmt.Errorf("decode change event: %w", err)
	}
	return e, nil
}

func (c *Codec) decodeEvent(body []byte) (event.Event, error) {
	var e event.Event
	r := reader{b: body}
	op := r.long()
	if op < 0 || op >= int64(len(c.ops)) {
		return e, fmt.Errorf("operation code %d: %w", op, errRange)
	}
	e.Op = c.ops[op]
	e.NS = c.namespace(&r)
	if u := r.optional(); u != nil {
		if len(u) != len(e.UUID) {
			return e, fmt.Errorf("collection UUID has %d bytes, want %d", len(u), len(e.UUID))
		}
		copy(e.UUID[:], u)
	}
	e.DocumentKey = r.optional()
	e.Document = r.optional()
	e.Delta = event.Delta(r.optional())
	e.DDL = r.optional()
	e.Position.Time = bson.Timestamp{T: r.uint32(), I: r.uint32()}
	e.Position.Term = r.long()
	e.Position.Index = r.int()
	e.WallTime = wallTime(r.long())
	if r.present() {
		e.Transaction = &event.Transaction{LSID: r.bytes(), Number: r.long(), Index: r.int()}
	}
	e.Source = c.source(&r)
	if r.present() {
		e.AsOf = bson.Timestamp{T: r.uint32(), I: r.uint32()}
	}
	return e, r.end()
}

// namespace reads db and coll, which stand side by side.
func (c *Codec) namespace(r *reader) event.Namespace {
	start := r.b
	db, coll := r.bytes(), r.bytes()
	if r.err != nil {
		return event.Namespace{}
	}
	return c.namespaces.get(start[:len(start)-len(r.b)], func() event.Namespace {
		return event.Namespace{DB: string(db), Coll: string(coll)}
	})
}

// source reads the source record.
func (c *Codec) source(r *reader) event.Source {
	start := r.b
	deployment, mode, version := r.bytes(), r.bytes(), r.bytes()
	if r.err != nil {
		return event.Source{}
	}
	return c.sources.get(start[:len(start)-len(r.b)], func() event.Source {
		return event.Source{Deployment: string(deployment), Mode: string(mode), ServerVersion: string(version)}
	})
}
