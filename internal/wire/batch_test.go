package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/schemas"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func goldenBatches(t testing.TB) map[string]Batch {
	t.Helper()
	doc := raw(t, bson.D{{Key: "_id", Value: "a"}, {Key: "n", Value: int32(1)}})
	return map[string]Batch{
		"batch_documents.golden": {
			Kind: BatchDocuments, Run: "20260101T000000Z", Chunk: 3, Sequence: 12,
			NS: event.Namespace{DB: "shop", Coll: "orders"}, UUID: event.UUID{1, 2, 3},
			Count: 2, Documents: append(bytes.Clone(doc), doc...),
		},
		"batch_run_end.golden": {Kind: BatchRunEnd, Run: "20260101T000000Z", Chunk: -1, Documents: []byte{}},
	}
}

func TestGoldenBatches(t *testing.T) {
	c := testCodec(t)
	slow := testCodec(t, schemas.SnapshotBatch)
	slow.batchHeader = [headerBytes]byte{}
	reference := goavroCodec(t, schemas.SnapshotBatch)
	for name, b := range goldenBatches(t) {
		t.Run(name, func(t *testing.T) {
			got, err := c.AppendBatch(nil, &b)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
			want, err := reference.SingleFromNative(nil, nativeBatch(&b))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("goavro encodes otherwise:\ngot  %x\nwant %x", got, want)
			}
			for name, codec := range map[string]*Codec{"fast": c, "goavro": slow} {
				back, err := codec.DecodeBatch(got)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(b, back); d != "" {
					t.Errorf("%s: decoded batch (-want +got):\n%s", name, d)
				}
			}
			for n := range got {
				if _, err := c.DecodeBatch(got[:n]); err == nil {
					t.Errorf("cut after %d bytes: no error", n)
				}
			}
		})
	}
}

func TestBatchAndEventAreToldApart(t *testing.T) {
	c := testCodec(t)
	b := goldenBatches(t)["batch_run_end.golden"]
	record, err := c.AppendBatch(nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DecodeEvent(record); !errors.Is(err, ErrUnknownSchema) {
		t.Errorf("decode a batch as event: %v, want ErrUnknownSchema", err)
	}
	b.Kind = "other"
	if got, err := c.AppendBatch([]byte("kept"), &b); err == nil || string(got) != "kept" {
		t.Errorf("got %q, %v; want the buffer as it was and an error", got, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	c := testCodec(f)
	reference := goavroCodec(f, schemas.SnapshotBatch)
	for _, b := range goldenBatches(f) {
		record, err := c.AppendBatch(nil, &b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		b, err := c.DecodeBatch(record)
		if err != nil {
			return
		}
		again, err := c.AppendBatch(nil, &b)
		if err != nil {
			t.Fatalf("decoded batch is not encodable: %v", err)
		}
		want, err := reference.SingleFromNative(nil, nativeBatch(&b))
		if err != nil {
			t.Fatalf("goavro refuses the decoded batch: %v", err)
		}
		if !bytes.Equal(again, want) {
			t.Fatalf("goavro encodes the decoded batch otherwise:\ngot  %x\nwant %x", again, want)
		}
	})
}
