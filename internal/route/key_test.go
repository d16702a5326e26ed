package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestMurmur2 holds the hash to the vectors of Kafka's own test
// (org.apache.kafka.common.utils.UtilsTest).
func TestMurmur2(t *testing.T) {
	tests := map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	}
	for in, want := range tests {
		if got := int32(murmur2([]byte(in))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", in, got, want)
		}
	}
}

// TestPartitionIsTheClientsDefault compares with franz-go's default, which is
// Kafka's.
func TestPartitionIsTheClientsDefault(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	theirs := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for range 2000 {
		key := make([]byte, 1+r.IntN(70))
		for i := range key {
			key[i] = byte(r.Uint32())
		}
		n := 1 + r.Int32N(300)
		got, want := Partition(key, n), theirs.Partition(&kgo.Record{Key: key}, int(n))
		if int(got) != want {
			t.Fatalf("Partition(%x, %d) = %d, the client's is %d", key, n, got, want)
		}
	}
}

func rawValue(t *testing.T, v any) bson.RawValue {
	t.Helper()
	typ, b, err := bson.MarshalValue(v)
	if err != nil {
		t.Fatal(err)
	}
	return bson.RawValue{Type: typ, Value: b}
}

func TestAppendKey(t *testing.T) {
	ns := event.Namespace{DB: "shop", Coll: "a.b"}
	id := rawValue(t, "x")
	text, err := event.AppendIDKey(nil, id)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		class KeyClass
		want  string
	}{
		{"by document", ByDocument, "shop.a.b|" + string(text)},
		{"by namespace", ByNamespace, "shop.a.b|"},
	}
	for _, tt := range tests {
		got, err := AppendKey([]byte("kept"), ns, id, tt.class)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != "kept"+tt.want {
			t.Errorf("%s: key %q, want %q behind what was there", tt.name, got, tt.want)
		}
	}
}

func TestAppendKeyHashesLongKeys(t *testing.T) {
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	empty, err := AppendKey(nil, ns, rawValue(t, ""), ByDocument)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{maxKeyBytes - 1, maxKeyBytes, maxKeyBytes + 1, 10 * maxKeyBytes} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			id := rawValue(t, strings.Repeat("x", length-len(empty)))
			text, err := event.AppendIDKey([]byte("shop.orders|"), id)
			if err != nil {
				t.Fatal(err)
			}
			want := string(text)
			if len(text) != length {
				t.Fatalf("key text has %d bytes, want %d", len(text), length)
			}
			if length > maxKeyBytes {
				sum := sha256.Sum256(text)
				want = "shop.orders|#" + hex.EncodeToString(sum[:])
			}
			got, err := AppendKey([]byte("kept"), ns, id, ByDocument)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != "kept"+want {
				t.Errorf("key %.80q…, want %.80q…", got[4:], want)
			}
		})
	}
}

func BenchmarkAppendKeyAndPartition(b *testing.B) {
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	typ, value, err := bson.MarshalValue(bson.NewObjectID())
	if err != nil {
		b.Fatal(err)
	}
	id := bson.RawValue{Type: typ, Value: value}
	var key []byte
	b.ReportAllocs()
	for b.Loop() {
		if key, err = AppendKey(key[:0], ns, id, ByDocument); err != nil {
			b.Fatal(err)
		}
		_ = Partition(key, 12)
	}
}
