package snapshot

import (
	"context"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// benchDocuments of about 1 KiB are loaded.
const benchDocuments = 200_000

// BenchmarkLoad loads a collection on the real engines, and moves the same
// documents with a bare cursor and a bare producer, as many of each as the load
// has workers. The metric is the ratio of the two rates.
func BenchmarkLoad(b *testing.B) {
	pair := testenv.Pair{MongoDB: testenv.RequireMongoD(b), Broker: testenv.RequireKafka(b), Pipeline: testenv.NewPipeline(b)}
	r := newRig(b, pair)
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	fill(b, r.source, ns, objectIDs(benchDocuments), 950)
	var bare, load time.Duration
	for b.Loop() {
		r.pair.Pipeline = testenv.NewPipeline(b)
		r.topics = route.TopicsOf(r.pair.Pipeline)
		r.prepareTopics(b)
		started := time.Now()
		r.moveBare(b, ns)
		bare += time.Since(started)
		load += r.timeLoad(b)
	}
	rate := func(d time.Duration) float64 { return float64(b.N) * benchDocuments / d.Seconds() }
	b.ReportMetric(rate(bare), "bare-docs/s")
	b.ReportMetric(rate(load), "docs/s")
	b.ReportMetric(bare.Seconds()/load.Seconds(), "ratio")
}

// timeLoad runs a service with its defaults and returns the time from the run's
// beginning to its end.
func (r *rig) timeLoad(b *testing.B) time.Duration {
	b.Helper()
	if err := r.publish(b.Context(), watermark(r.now(b))); err != nil {
		b.Fatal(err)
	}
	c := r.config("bench")
	cfg := Config{
		Pipeline: c.Pipeline, Instance: c.Instance, Kafka: c.Kafka, Topics: c.Topics, Source: c.Source,
		Workers: 2, ChunkBytes: 16 << 20, SessionTimeout: c.SessionTimeout, Retry: c.Retry, Log: c.Log,
	}
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	g.Go(func() error { return r.keepPublishing(ctx) })
	if err := r.run(b, cfg); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	m, _ := r.state(b).LatestRun()
	return m.Ended.Sub(m.Started)
}

// moveBare is the ceiling: two cursors over half of the collection each, two
// producers, no transactions.
func (r *rig) moveBare(b *testing.B, ns event.Namespace) {
	b.Helper()
	coll := r.source.Client.Database(ns.DB).Collection(ns.Coll)
	middle, err := bounds(b.Context(), coll, benchDocuments, 2)
	if err != nil {
		b.Fatal(err)
	}
	src := &source{client: r.source.Client}
	g, ctx := errgroup.WithContext(b.Context())
	for i, c := range assemble("", []outline{{bounded: true, bounds: middle}}).chunks {
		c.DB, c.Coll = ns.DB, ns.Coll
		client, err := kafka.NewClient(r.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		cursor, err := src.collection(&c).Find(ctx, bson.D{}, findOptions(&c, nil))
		if err != nil {
			b.Fatal(err)
		}
		g.Go(func() error {
			p := newPacker(DefaultBatchBytes)
			send := func() {
				client.Produce(ctx, &kgo.Record{Topic: r.topics.Snapshot, Partition: int32(i), Value: p.buf}, nil)
				p.buf = nil
				p.reset()
			}
			for cursor.Next(ctx) {
				if !p.fits(cursor.Current) {
					send()
				}
				p.add(cursor.Current)
			}
			send()
			if err := cursor.Err(); err != nil {
				return err
			}
			return client.Flush(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
