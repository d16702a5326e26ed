package apply

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// randomBytes do not compress.
func randomBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// split returns an event's records cut into parts of 1 MiB.
func (r *rig) split(t testing.TB, e *event.Event) []*kgo.Record {
	t.Helper()
	var parts []*kgo.Record
	for _, record := range r.records(t, e) {
		values, err := r.codec.Split(record.Value, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			part := *record
			part.Value = v
			parts = append(parts, &part)
		}
	}
	return parts
}

// TestRecordsInParts: documents that came in several records, with a service
// that is restarted while only some parts are there, and a budget of bytes that
// is smaller than one document.
func TestRecordsInParts(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		size := 2 << 20
		if e.MongoEngine == testenv.MongoD {
			size = 16<<20 - 1<<10
		}
		r := newRig(t, e)
		r.edit = func(c *Config) { c.QueueBytes = 1 << 20; c.BatchBytes = 1 << 20 }
		ns := event.Namespace{DB: "shop", Coll: "orders"}
		manifest := r.begin(t, collection{ns: ns})
		r.load(t, manifest, collection{ns: ns})
		s := r.start(t, "a")

		for i := range byte(2) {
			id := fmt.Sprintf("d%d", i)
			first := inserted(t, ns, bson.D{{Key: "_id", Value: id}, {Key: "data", Value: randomBytes(size, i)}})
			r.produce(t, r.split(t, &first)...)
			r.await(t, r.watermark(t), s)
			second := updated(t, ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "data", Value: randomBytes(size, i+100)}}}})
			parts := r.split(t, &second)
			r.produce(t, parts[:len(parts)/2]...)
			testenv.Eventually(t, settled, func() error {
				if s.service.fetcher.queued() == 0 {
					return errors.New("no part was read yet")
				}
				return nil
			})
			s.stop(t)
			s = r.start(t, "a")
			r.produce(t, parts[len(parts)/2:]...)
			r.await(t, r.watermark(t), s)
			want, err := second.Delta.Apply(first.Document, event.Strict)
			if err != nil {
				t.Fatal(err)
			}
			if docs := r.held(t, ns); !slices.ContainsFunc(docs, func(d bson.Raw) bool { return bytes.Equal(d, want) }) {
				t.Fatalf("document %s is not as it was sent", id)
			}
			gone := deleted(t, ns, id)
			r.publish(t, gone)
		}
		large := deleted(t, ns, string(bytes.Repeat([]byte("long "), 600_000)))
		r.produce(t, r.split(t, &large)...)
		r.await(t, r.watermark(t), s)
		if docs := r.held(t, ns); len(docs) > 0 {
			t.Errorf("%d documents are left", len(docs))
		}
		s.stop(t)
	})
}
