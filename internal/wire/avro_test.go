package wire

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/schemas"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func testCodec(t testing.TB, earlier ...string) *Codec {
	t.Helper()
	c, err := newCodec(earlier...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func raw(t testing.TB, v any) bson.Raw {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nativeEvent is e in the form that goavro encodes: the reference for the
// hand-written encoder.
func nativeEvent(e *event.Event) map[string]any {
	optional := func(b []byte) any {
		if b == nil {
			return nil
		}
		return goavro.Union("bytes", b)
	}
	var uuid, transaction, asOf any
	if !e.AsOf.IsZero() {
		asOf = goavro.Union("io.tributary.ClusterTime", map[string]any{"t": int64(e.AsOf.T), "i": int64(e.AsOf.I)})
	}
	if !e.UUID.IsZero() {
		uuid = goavro.Union("bytes", e.UUID[:])
	}
	if t := e.Transaction; t != nil {
		transaction = goavro.Union("io.tributary.Transaction", map[string]any{
			"lsid": []byte(t.LSID), "number": t.Number, "index": t.Index,
		})
	}
	return map[string]any{
		"op":              string(e.Op),
		"db":              e.NS.DB,
		"coll":            e.NS.Coll,
		"collection_uuid": uuid,
		"document_key":    optional(e.DocumentKey),
		"document":        optional(e.Document),
		"delta":           optional(e.Delta),
		"ddl":             optional(e.DDL),
		"position": map[string]any{
			"t": int64(e.Position.Time.T), "i": int64(e.Position.Time.I),
			"term": e.Position.Term, "index": e.Position.Index,
		},
		"wall_time":   wallMillis(e.WallTime),
		"transaction": transaction,
		"source": map[string]any{
			"deployment": e.Source.Deployment, "mode": e.Source.Mode, "server_version": e.Source.ServerVersion,
		},
		"as_of": asOf,
	}
}

func nativeBatch(b *Batch) map[string]any {
	var uuid any
	if !b.UUID.IsZero() {
		uuid = goavro.Union("bytes", b.UUID[:])
	}
	return map[string]any{
		"kind": string(b.Kind), "run": b.Run, "chunk": b.Chunk, "sequence": b.Sequence,
		"db": b.NS.DB, "coll": b.NS.Coll, "collection_uuid": uuid, "count": b.Count, "documents": b.Documents,
	}
}

func goavroCodec(t testing.TB, schema string) *goavro.Codec {
	t.Helper()
	c, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// allOps are the operations of the schema that may be written.
func allOps(c *Codec) []event.Op {
	var ops []event.Op
	for _, op := range c.ops {
		if op.Valid() {
			ops = append(ops, op)
		}
	}
	return ops
}

// randomEvent draws every field on its own, so that also combinations that
// capture never makes are covered.
func randomEvent(r *rand.Rand, ops []event.Op) event.Event {
	text := func() string { return strings.Repeat("ä", r.IntN(5)) + string(rune('a'+r.IntN(26))) }
	blob := func(most int) []byte {
		if r.IntN(3) == 0 {
			return nil
		}
		b := make([]byte, r.IntN(most))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	e := event.Event{
		Op:          ops[r.IntN(len(ops))],
		NS:          event.Namespace{DB: text(), Coll: text()},
		DocumentKey: blob(40),
		Document:    blob(3_000),
		Delta:       blob(200),
		DDL:         blob(200),
		Position: event.Position{
			Time: bson.Timestamp{T: r.Uint32(), I: r.Uint32()}, Term: int64(r.Uint64()), Index: r.Int32(),
		},
		WallTime: time.UnixMilli(r.Int64N(1 << 42)).UTC(),
		Source:   event.Source{Deployment: text(), Mode: text(), ServerVersion: text()},
	}
	if r.IntN(2) == 0 {
		copy(e.UUID[:], text()+"0123456789abcdef")
	}
	if r.IntN(2) == 0 {
		e.AsOf = bson.Timestamp{T: r.Uint32(), I: r.Uint32()}
	}
	if r.IntN(2) == 0 {
		e.Transaction = &event.Transaction{LSID: blob(50), Number: int64(r.Uint64()), Index: -r.Int32()}
		if e.Transaction.LSID == nil {
			e.Transaction.LSID = bson.Raw{}
		}
	}
	return e
}

func TestSymbolsAreTheOperations(t *testing.T) {
	c := testCodec(t)
	want := []event.Op{
		event.OpInsert, event.OpUpdate, event.OpReplace, event.OpDelete, event.OpRefresh, event.OpCreate,
		event.OpCreateIndexes, event.OpDropIndexes, event.OpModify, event.OpRename, event.OpDrop,
		event.OpReload, event.OpReloadEnd, event.OpWatermark,
	}
	for _, op := range want {
		if _, ok := c.opCodes[op]; !ok {
			t.Errorf("operation %q is not in the schema", op)
		}
	}
	if got := len(allOps(c)); got != len(want) {
		t.Errorf("schema has %d operations, event has %d", got, len(want))
	}
}

func TestHeaderIsGoavrosSingleObject(t *testing.T) {
	c := testCodec(t)
	e := event.Event{Op: event.OpWatermark}
	want, err := goavroCodec(t, schemas.ChangeEvent).SingleFromNative(nil, nativeEvent(&e))
	if err != nil {
		t.Fatal(err)
	}
	if [headerBytes]byte(want[:headerBytes]) != c.eventHeader {
		t.Errorf("header %x, goavro writes %x", c.eventHeader, want[:headerBytes])
	}
}
