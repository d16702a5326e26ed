package wire

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/schemas"
	"go.mongodb.org/mongo-driver/v2/bson"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// goldenEvents is one event of each operation, as capture makes them.
func goldenEvents(t testing.TB, ops []event.Op) []event.Event {
	t.Helper()
	uuid := event.UUID{0x5f, 0x1c, 1, 2, 3, 4, 0x4a, 5, 0x8b, 6, 7, 8, 9, 10, 11, 12}
	var events []event.Event
	for i, op := range ops {
		e := event.Event{
			Op:       op,
			Position: event.Position{Time: bson.Timestamp{T: 1_767_225_600, I: uint32(i + 1)}, Term: 7, Index: int32(i % 3)},
			WallTime: time.UnixMilli(1_767_225_600_123).UTC(),
			Source:   event.Source{Deployment: "65a1b2c3d4e5f60718293a4b", Mode: "oplog", ServerVersion: "8.0.4"},
		}
		if op != event.OpWatermark {
			e.NS = event.Namespace{DB: "shop", Coll: "orders.ä"}
			e.UUID = uuid
		}
		switch {
		case op.IsDDL():
			e.DDL = raw(t, bson.D{{Key: string(op), Value: "orders.ä"}, {Key: "capped", Value: true}})
		case op.IsData():
			e.DocumentKey = raw(t, bson.D{{Key: "_id", Value: int64(42)}})
		}
		switch op {
		case event.OpInsert, event.OpReplace, event.OpRefresh:
			e.Document = raw(t, bson.D{{Key: "_id", Value: int64(42)}, {Key: "n", Value: 1.5}})
		case event.OpUpdate:
			e.Delta = event.Delta(raw(t, bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(2)}}}}))
			e.Transaction = &event.Transaction{LSID: raw(t, bson.D{{Key: "id", Value: "s"}}), Number: 9, Index: 3}
		default:
		}
		if op == event.OpRefresh {
			e.AsOf = bson.Timestamp{T: 1_767_225_601, I: 4}
		}
		events = append(events, e)
	}
	return events
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: encoding has changed:\ngot  %x\nwant %x", name, got, want)
	}
}

// TestGoldenEvents fixes the framing and the encoding byte for byte. A change
// of these files is a change of the protocol.
func TestGoldenEvents(t *testing.T) {
	c := testCodec(t)
	reference := goavroCodec(t, schemas.ChangeEvent)
	for _, e := range goldenEvents(t, allOps(c)) {
		t.Run(string(e.Op), func(t *testing.T) {
			got, err := c.AppendEvent(nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "event_"+string(e.Op)+".golden", got)
			want, err := reference.SingleFromNative(nil, nativeEvent(&e))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("goavro encodes otherwise:\ngot  %x\nwant %x", got, want)
			}
			back, err := c.DecodeEvent(got)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(e, back); d != "" {
				t.Errorf("decoded event (-want +got):\n%s", d)
			}
		})
	}
}

func TestRandomEventsAgreeWithGoavro(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := testCodec(t)
	// The same schema as an earlier one goes the slow way.
	slow := testCodec(t, schemas.ChangeEvent)
	slow.eventHeader = [headerBytes]byte{}
	reference := goavroCodec(t, schemas.ChangeEvent)
	ops := allOps(c)
	for range 300 {
		e := randomEvent(r, ops)
		got, err := c.AppendEvent([]byte("kept"), &e)
		if err != nil {
			t.Fatal(err)
		}
		want, err := reference.SingleFromNative([]byte("kept"), nativeEvent(&e))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("goavro encodes %+v otherwise", e)
		}
		for name, codec := range map[string]*Codec{"fast": c, "goavro": slow} {
			back, err := codec.DecodeEvent(got[4:])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if d := cmp.Diff(e, back, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("%s: decoded event (-want +got):\n%s", name, d)
			}
			if (e.Document == nil) != (back.Document == nil) {
				t.Fatalf("%s: null and empty document are mixed up", name)
			}
		}
	}
}

// yesterdaysEvent is the schema before the transaction field.
func yesterdaysEvent(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "change_event_v0.avsc"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestYesterdaysRecordIsRead(t *testing.T) {
	schema := yesterdaysEvent(t)
	e := goldenEvents(t, []event.Op{event.OpUpdate})[0]
	e.Transaction = nil
	native := nativeEvent(&e)
	delete(native, "transaction")
	record, err := goavroCodec(t, schema).SingleFromNative(nil, native)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "event_v0.golden", record)

	got, err := testCodec(t, schema).DecodeEvent(record)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, got); d != "" {
		t.Errorf("decoded event (-want +got):\n%s", d)
	}

	_, err = testCodec(t).DecodeEvent(record)
	if !errors.Is(err, ErrUnknownSchema) {
		t.Fatalf("without the earlier schema: %v, want ErrUnknownSchema", err)
	}
	if msg := err.Error(); !strings.Contains(msg, "fingerprint ") || !strings.Contains(msg, "hint: ") {
		t.Errorf("message %q names no fingerprint or remedy", msg)
	}
}

// TestRecordsOfTheFirstSchemaAreRead reads what every version before as_of
// wrote, with the codec that the services use.
func TestRecordsOfTheFirstSchemaAreRead(t *testing.T) {
	c, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range goldenEvents(t, allOps(c)) {
		record, err := os.ReadFile(filepath.Join("testdata", "v1", "event_"+string(e.Op)+".golden"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.DecodeEvent(record)
		if err != nil {
			t.Fatal(err)
		}
		e.AsOf = bson.Timestamp{}
		if d := cmp.Diff(e, got); d != "" {
			t.Errorf("decoded event (-want +got):\n%s", d)
		}
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	c := testCodec(t)
	e := goldenEvents(t, []event.Op{event.OpUpdate})[0]
	good, err := c.AppendEvent(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	unknownOp := bytes.Clone(good)
	unknownOp[headerBytes] = 0
	tests := map[string][]byte{
		"empty":           nil,
		"not framed":      []byte("{\"op\": \"insert\"}"),
		"header alone":    good[:headerBytes],
		"trailing byte":   append(bytes.Clone(good), 0),
		"unknown op":      unknownOp,
		"op out of range": append(bytes.Clone(good[:headerBytes]), 0x7e),
		"huge length":     append(bytes.Clone(good[:headerBytes]), 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"negative length": append(bytes.Clone(good[:headerBytes]), 2, 1),
	}
	for n := headerBytes + 1; n < len(good); n++ {
		tests[fmt.Sprintf("cut after %d bytes", n)] = good[:n]
	}
	for name, b := range tests {
		if _, err := c.DecodeEvent(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAppendEventRefusesUnknownOperation(t *testing.T) {
	dst := []byte("kept")
	got, err := testCodec(t).AppendEvent(dst, &event.Event{Op: "unknown"})
	if err == nil || string(got) != "kept" {
		t.Errorf("got %q, %v; want the buffer as it was and an error", got, err)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	c := testCodec(f)
	reference := goavroCodec(f, schemas.ChangeEvent)
	for _, e := range goldenEvents(f, allOps(c)) {
		b, err := c.AppendEvent(nil, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := c.DecodeEvent(b)
		if err != nil {
			return
		}
		again, err := c.AppendEvent(nil, &e)
		if err != nil {
			t.Fatalf("decoded event is not encodable: %v", err)
		}
		want, err := reference.SingleFromNative(nil, nativeEvent(&e))
		if err != nil {
			t.Fatalf("goavro refuses the decoded event: %v", err)
		}
		if !bytes.Equal(again, want) {
			t.Fatalf("goavro encodes the decoded event otherwise:\ngot  %x\nwant %x", again, want)
		}
	})
}

func benchmarkEvent(b *testing.B) (*Codec, event.Event) {
	e := goldenEvents(b, []event.Op{event.OpInsert})[0]
	e.Document = raw(b, bson.D{{Key: "_id", Value: int64(42)}, {Key: "text", Value: strings.Repeat("x", 1000)}})
	return testCodec(b), e
}

func BenchmarkAppendEvent(b *testing.B) {
	c, e := benchmarkEvent(b)
	var buf []byte
	var err error
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = c.AppendEvent(buf[:0], &e); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeEvent(b *testing.B) {
	c, e := benchmarkEvent(b)
	buf, err := c.AppendEvent(nil, &e)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.DecodeEvent(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGoavroAppendEvent(b *testing.B) {
	_, e := benchmarkEvent(b)
	reference := goavroCodec(b, schemas.ChangeEvent)
	var buf []byte
	var err error
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = reference.SingleFromNative(buf[:0], nativeEvent(&e)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGoavroDecodeEvent(b *testing.B) {
	c, e := benchmarkEvent(b)
	buf, err := c.AppendEvent(nil, &e)
	if err != nil {
		b.Fatal(err)
	}
	reference := goavroCodec(b, schemas.ChangeEvent)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := eventFromNative(reference, buf[headerBytes:]); err != nil {
			b.Fatal(err)
		}
	}
}
