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
	"go.mongodb.org/mongo-driver/v2/mongo"
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
			w, _, err := d.resolveHeld(held[d.id.StringValue()], event.Strict, event.Strict)
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

// BenchmarkApply compares apply of a prepared topic, inserts of 1 KiB documents
// and updates of them, with its ceiling in the same run (see bare). Apply's time
// includes joining the group and claiming the partitions. It needs the real
// engines.
func BenchmarkApply(b *testing.B) {
	m := testenv.RequireMongoD(b)
	broker := testenv.RequireKafka(b)
	pad := string(bytes.Repeat([]byte{'x'}, 1000))
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	loads := []struct {
		name  string
		event func(id string) event.Event
		write func(*event.Event) mongo.WriteModel
	}{
		{"inserts", func(id string) event.Event {
			return inserted(b, ns, bson.D{{Key: "_id", Value: id}, {Key: "pad", Value: pad}, {Key: "n", Value: int32(0)}})
		}, bareInsert},
		{"updates-by-operators", func(id string) event.Event {
			return updated(b, ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(1)}}}})
		}, bareSet("n")},
		// One more field: what it does to the order depends on the document.
		{"updates-of-held", func(id string) event.Event {
			return updated(b, ns, id, bson.D{{Key: "i", Value: bson.D{{Key: "m", Value: int32(1)}}}})
		}, bareSet("m")},
	}
	for b.Loop() {
		r := newRig(b, testenv.Pair{Broker: broker, MongoDB: m, Pipeline: testenv.NewPipeline(b)})
		r.edit = func(c *Config) { c.BatchEvents = 0 }
		c := collection{ns: ns}
		manifest := r.begin(b, c)
		r.load(b, manifest, c)
		s := r.start(b, "a")
		r.await(b, r.watermark(b), s)
		s.stop(b)
		for _, load := range loads {
			from := r.ends(b, r.topics.Changes)
			through := r.fill(b, load.event)
			to := r.ends(b, r.topics.Changes)
			ceiling := r.bare(b, from, to, "orders", load.write)
			began := time.Now()
			s := r.start(b, "b")
			r.await(b, through, s)
			applied := time.Since(began)
			s.stop(b)
			b.ReportMetric(benchEvents/ceiling.Seconds(), "ceiling-"+load.name+"/s")
			b.ReportMetric(benchEvents/applied.Seconds(), load.name+"/s")
			b.ReportMetric(float64(ceiling)/float64(applied), load.name+"-ratio")
		}
	}
}

// benchEvents is how many events each load of BenchmarkApply has.
const benchEvents = 100_000

// fill publishes one event for each of benchEvents documents and a watermark.
func (r *rig) fill(b *testing.B, make func(id string) event.Event) bson.Timestamp {
	b.Helper()
	var records []*kgo.Record
	for i := range benchEvents {
		e := make(fmt.Sprint(i))
		records = append(records, r.records(b, &e)...)
	}
	r.produce(b, records...)
	return r.watermark(b)
}
