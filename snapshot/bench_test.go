package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// benchRow is documents of a size, as many as take a few seconds.
type benchRow struct {
	name        string
	size, count int
}

// BenchmarkLoad loads a collection on the real engines, and moves the same
// documents with a bare cursor and a bare producer, as many of each as the load
// has workers, into a topic of its own. ratio is that of the two rates,
// cpu-s/GB this process's share of the load, kafka-B/B what the load takes at the
// broker for each byte of documents.
func BenchmarkLoad(b *testing.B) {
	pair := testenv.Pair{MongoDB: testenv.RequireMongoD(b), Broker: testenv.RequireKafka(b)}
	for _, row := range []benchRow{{"100B", 100, 1_500_000}, {"1KiB", 1 << 10, 400_000}, {"10KiB", 10 << 10, 40_000}, {"1MiB", 1 << 20, 400}} {
		b.Run(row.name, func(b *testing.B) {
			pair.Pipeline = testenv.NewPipeline(b)
			r := newRig(b, pair)
			ns := event.Namespace{DB: "shop", Coll: "orders"}
			data := r.fillRow(b, ns, row)
			r.moveBare(b, ns, row.count) // neither pays for what the fill has left to do
			var bare, load, cpu time.Duration
			var stored int64
			for b.Loop() {
				r.nextPipeline(b)
				started := time.Now()
				r.moveBare(b, ns, row.count)
				bare += time.Since(started)
				r.nextPipeline(b)
				before := processorTime(b)
				load += r.timeLoad(b)
				cpu += processorTime(b) - before
				stored += r.stored(b)
			}
			all := float64(b.N) * float64(data)
			b.ReportMetric(all/1e6/bare.Seconds(), "bare-MB/s")
			b.ReportMetric(all/1e6/load.Seconds(), "MB/s")
			b.ReportMetric(float64(b.N*row.count)/load.Seconds(), "docs/s")
			b.ReportMetric(bare.Seconds()/load.Seconds(), "ratio")
			b.ReportMetric(cpu.Seconds()/(all/1e9), "cpu-s/GB")
			b.ReportMetric(float64(stored)/all, "kafka-B/B")
			b.ReportMetric(0, "ns/op") // that of all parts together says nothing
		})
	}
}

// fillRow inserts documents of which one half is hard to compress, and returns
// how many bytes they are.
func (r *rig) fillRow(b *testing.B, ns event.Namespace, row benchRow) (data int64) {
	b.Helper()
	coll := r.source.Client.Database(ns.DB).Collection(ns.Coll)
	noise := rand.NewChaCha8([32]byte{})
	batch := min(1000, max(1, 8<<20/row.size))
	random, plain := make([]byte, (row.size-48)/2), bytes.Repeat([]byte("tributary "), row.size/20+1)[:(row.size-48)/2]
	for first := 0; first < row.count; first += batch {
		docs := make([]any, min(batch, row.count-first))
		for i := range docs {
			_, _ = noise.Read(random) // never fails
			doc, err := bson.Marshal(bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "r", Value: random}, {Key: "text", Value: string(plain)}})
			if err != nil {
				b.Fatal(err)
			}
			data += int64(len(doc))
			docs[i] = bson.Raw(doc)
		}
		if _, err := coll.InsertMany(b.Context(), docs, options.InsertMany().SetOrdered(false)); err != nil {
			b.Fatal(err)
		}
	}
	return data
}

// nextPipeline goes on to topics that are empty.
func (r *rig) nextPipeline(b *testing.B) {
	b.Helper()
	r.pair.Pipeline = testenv.NewPipeline(b)
	r.topics = route.TopicsOf(r.pair.Pipeline)
	r.prepareTopics(b)
}

// processorTime is what this process has taken so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stored is what the snapshot topic takes at the broker.
func (r *rig) stored(b *testing.B) (size int64) {
	b.Helper()
	client, err := kafka.NewClient(r.kafka)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	dirs, err := kadm.NewClient(client).DescribeAllLogDirs(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	dirs.Each(func(dir kadm.DescribedLogDir) {
		for _, p := range dir.Topics[r.topics.Snapshot] {
			size += p.Size
		}
	})
	return size
}

// timeLoad runs a service with its defaults and returns the time from the
// manifest, when the chunks are planned, to the last chunk's last batch.
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
	var watch errgroup.Group
	var planned, loaded time.Time
	watch.Go(func() error {
		chunks := map[string]bool{}
		err := state.Watch(ctx, r.kafka, r.topics.State, func(key string, value []byte) error {
			var m state.Manifest
			var p state.ChunkProgress
			switch {
			case state.IsRun(key):
				if planned.IsZero() {
					planned = time.Now()
				}
				if err := json.Unmarshal(value, &m); err != nil || m.State == state.RunComplete {
					return errors.Join(err, io.EOF)
				}
			case state.IsChunk(key):
				if err := json.Unmarshal(value, &p); err != nil {
					return err
				}
				if p.Done && !chunks[key] {
					chunks[key], loaded = true, time.Now()
				}
			}
			return nil
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	if err := errors.Join(r.run(b, cfg), watch.Wait()); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return loaded.Sub(planned)
}

// moveBare is the ceiling: two cursors over half of the collection each, two
// producers, no transactions.
func (r *rig) moveBare(b *testing.B, ns event.Namespace, count int) {
	b.Helper()
	coll := r.source.Client.Database(ns.DB).Collection(ns.Coll)
	middle, err := bounds(b.Context(), coll, int64(count), 2)
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
