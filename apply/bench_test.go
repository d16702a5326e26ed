package apply

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// BenchmarkFold folds a batch of updates of distinct documents into commands,
// without a server.
func BenchmarkFold(b *testing.B) {
	ns := event.Namespace{DB: "db", Coll: "c"}
	pad := bytes.Repeat([]byte{'x'}, 1000)
	var changes []change
	held := map[string]bson.Raw{}
	for i := range 1000 {
		id := fmt.Sprint(i)
		e := updated(b, ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(i)}}}})
		changes = append(changes, change{Event: &e, target: ns})
		doc := raw(b, bson.D{{Key: "_id", Value: id}, {Key: "pad", Value: string(pad)}, {Key: "n", Value: int32(-1)}})
		held[id] = doc
	}
	builder := newBuilder("c", abilities{nestedDollar: true})
	b.ReportAllocs()
	for b.Loop() {
		plans, err := fold(changes, event.Strict, func(event.Namespace) bool { return false })
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range plans[0].documents {
			w, err := d.resolveHeld(held[d.id.StringValue()], event.Strict)
			if err == nil {
				err = builder.add(w)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		builder.drain()
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkApply applies a prepared topic to a real server: inserts of 1 KiB
// documents, then updates of them.
func BenchmarkApply(b *testing.B) {
	m := testenv.RequireMongoD(b)
	const documents = 50_000
	for b.Loop() {
		r := newRig(b, testenv.Pair{Broker: testenv.StandIn(b), MongoDB: m, Pipeline: testenv.NewPipeline(b)})
		r.edit = func(c *Config) { c.BatchEvents = 0 }
		c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
		manifest := r.begin(b, c)
		r.load(b, manifest, c)
		s := r.start(b, "a")
		r.await(b, r.watermark(b), s)
		s.stop(b)
		pad := string(bytes.Repeat([]byte{'x'}, 1000))
		fill := func(make func(id string) event.Event) bson.Timestamp {
			var records []*kgo.Record
			for i := range documents {
				e := make(fmt.Sprint(i))
				records = append(records, r.records(b, &e)...)
			}
			r.produce(b, records...)
			return r.watermark(b)
		}
		measure := func(what string, through bson.Timestamp) {
			started := time.Now()
			s := r.start(b, "b")
			r.await(b, through, s)
			b.ReportMetric(documents/time.Since(started).Seconds(), what+"/s")
			s.stop(b)
		}
		measure("inserts", fill(func(id string) event.Event {
			return inserted(b, c.ns, bson.D{{Key: "_id", Value: id}, {Key: "pad", Value: pad}, {Key: "n", Value: int32(0)}})
		}))
		measure("updates-by-operators", fill(func(id string) event.Event {
			return updated(b, c.ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(1)}}}})
		}))
		// One more field: what it does to the order depends on the document.
		measure("updates-of-held", fill(func(id string) event.Event {
			return updated(b, c.ns, id, bson.D{{Key: "i", Value: bson.D{{Key: "m", Value: int32(1)}}}})
		}))
	}
}
