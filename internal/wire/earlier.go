package wire

import (
	"fmt"
	"math"

	"github.com/linkedin/goavro/v2"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// native reads the fields of a record that goavro decoded with an earlier
// schema. A field that the schema lacks has its zero value, which is today's
// default of every optional field.
type native struct {
	fields map[string]any
	err    error
}

func decodeNative(codec *goavro.Codec, body []byte) (*native, error) {
	v, rest, err := codec.NativeFromBinary(body)
	if err != nil {
		return nil, fmt.Errorf("read with an earlier schema: %w", err)
	}
	if len(rest) > 0 {
		return nil, errTrailing
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, errNative
	}
	return &native{fields: fields}, nil
}

func (n *native) fail(name string, err error) {
	if n.err == nil {
		n.err = fmt.Errorf("field %s: %w", name, err)
	}
}

// field returns a field's value; ok is false where it is absent or null.
func (n *native) field(name string) (any, bool) {
	v := n.fields[name]
	if v == nil {
		return nil, false
	}
	return v, true
}

func (n *native) string(name string) string {
	v, ok := n.field(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		n.fail(name, errNative)
	}
	return s
}

func (n *native) bytes(name string) []byte {
	v, ok := n.field(name)
	if !ok {
		return nil
	}
	if union, isUnion := v.(map[string]any); isUnion {
		v = union["bytes"]
	}
	b, ok := v.([]byte)
	if !ok {
		n.fail(name, errNative)
	}
	return b
}

func (n *native) long(name string) int64 {
	v, ok := n.field(name)
	if !ok {
		return 0
	}
	switch v := v.(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	}
	n.fail(name, errNative)
	return 0
}

func (n *native) int(name string) int32 {
	v := n.long(name)
	if v < math.MinInt32 || v > math.MaxInt32 {
		n.fail(name, errRange)
	}
	return int32(v)
}

func (n *native) uint32(name string) uint32 {
	v := n.long(name)
	if v < 0 || v > math.MaxUint32 {
		n.fail(name, errRange)
	}
	return uint32(v)
}

// record returns a field that is a record, or a union of null and the record
// named branch; nil where it is absent or null.
func (n *native) record(name, branch string) *native {
	v, ok := n.field(name)
	if !ok {
		return nil
	}
	fields, ok := v.(map[string]any)
	if ok && branch != "" {
		fields, ok = fields[branch].(map[string]any)
	}
	if !ok {
		n.fail(name, errNative)
		return nil
	}
	return &native{fields: fields}
}

// adopt takes over the error of a record inside this one.
func (n *native) adopt(name string, inner *native) {
	if inner.err != nil {
		n.fail(name, inner.err)
	}
}

func (n *native) uuid(name string) event.UUID {
	var u event.UUID
	b := n.bytes(name)
	if b != nil && len(b) != len(u) {
		n.fail(name, errRange)
		return u
	}
	copy(u[:], b)
	return u
}

func eventFromNative(codec *goavro.Codec, body []byte) (event.Event, error) {
	n, err := decodeNative(codec, body)
	if err != nil {
		return event.Event{}, err
	}
	e := event.Event{
		Op:          event.Op(n.string("op")),
		NS:          event.Namespace{DB: n.string("db"), Coll: n.string("coll")},
		UUID:        n.uuid("collection_uuid"),
		DocumentKey: n.bytes("document_key"),
		Document:    n.bytes("document"),
		Delta:       event.Delta(n.bytes("delta")),
		DDL:         n.bytes("ddl"),
		WallTime:    wallTime(n.long("wall_time")),
	}
	if p := n.record("position", ""); p != nil {
		e.Position = event.Position{
			Time:  bson.Timestamp{T: p.uint32("t"), I: p.uint32("i")},
			Term:  p.long("term"),
			Index: p.int("index"),
		}
		n.adopt("position", p)
	}
	if t := n.record("transaction", "io.tributary.Transaction"); t != nil {
		e.Transaction = &event.Transaction{LSID: t.bytes("lsid"), Number: t.long("number"), Index: t.int("index")}
		n.adopt("transaction", t)
	}
	if s := n.record("source", ""); s != nil {
		e.Source = event.Source{Deployment: s.string("deployment"), Mode: s.string("mode"), ServerVersion: s.string("server_version")}
		n.adopt("source", s)
	}
	if a := n.record("as_of", "io.tributary.ClusterTime"); a != nil {
		e.AsOf = bson.Timestamp{T: a.uint32("t"), I: a.uint32("i")}
		n.adopt("as_of", a)
	}
	return e, n.err
}

func batchFromNative(codec *goavro.Codec, body []byte) (Batch, error) {
	n, err := decodeNative(codec, body)
	if err != nil {
		return Batch{}, err
	}
	b := Batch{
		Kind:      BatchKind(n.string("kind")),
		Run:       n.string("run"),
		Chunk:     n.int("chunk"),
		Sequence:  n.int("sequence"),
		NS:        event.Namespace{DB: n.string("db"), Coll: n.string("coll")},
		UUID:      n.uuid("collection_uuid"),
		Count:     n.int("count"),
		Documents: n.bytes("documents"),
	}
	return b, n.err
}
