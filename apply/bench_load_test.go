package apply

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

// loadSizes are the rows of BenchmarkApplyLoad: documents of a size, as many as
// take a few seconds.
func loadSizes() []struct {
	name        string
	size, count int
} {
	return []struct {
		name        string
		size, count int
	}{{"100B", 100, 600_000}, {"1KiB", 1 << 10, 250_000}, {"10KiB", 10 << 10, 30_000}, {"1MiB", 1 << 20, 300}}
}

// BenchmarkApplyLoad compares the load of a prepared snapshot topic, in batches
// as snapshot packs them, with its ceiling in the same run: a bare consumer and
// bare unordered raw insertMany, one for each partition, a command for each
// record. Both are measured between their twentieth and nineteen twentieths, so
// that the forming of the group is not in it. It needs the real engines.
func BenchmarkApplyLoad(b *testing.B) {
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		for _, row := range loadSizes() {
			b.Run(delivery+"/"+row.name, func(b *testing.B) { benchLoad(b, delivery, row.size, row.count) })
		}
	}
}

func benchLoad(b *testing.B, delivery string, size, count int) {
	m, broker := testenv.RequireMongoD(b), testenv.RequireKafka(b)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
	var ceiling, ours float64
	for b.Loop() {
		r := newRig(b, testenv.Pair{Broker: broker, MongoDB: m, Pipeline: testenv.NewPipeline(b)})
		r.edit = func(cfg *Config) { cfg.BatchEvents, cfg.ExactlyOnce = 0, delivery }
		manifest := r.begin(b, c)
		from := r.ends(b, r.topics.Snapshot)
		r.fillLoad(b, c.ns, size, count)
		to := r.ends(b, r.topics.Snapshot)
		bare := r.bareLoad(b, from, to, int64(count))
		r.load(b, manifest)
		loaded := r.timeLoad(b, int64(count))
		ceiling, ours = ceiling+bare, ours+loaded
		if err := r.dest.Client.Database("ceiling").Drop(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(ceiling/float64(b.N), "ceiling-docs/s")
	b.ReportMetric(ours/float64(b.N), "docs/s")
	b.ReportMetric(ours/float64(b.N)*float64(size)/1e6, "MB/s")
	b.ReportMetric(ours/ceiling, "ratio")
}

// fillLoad publishes documents as batches of 1 MiB, spread over the partitions.
func (r *rig) fillLoad(b *testing.B, ns event.Namespace, size, count int) {
	b.Helper()
	pad := string(bytes.Repeat([]byte{'x'}, size))
	batch := wire.Batch{Kind: wire.BatchDocuments, Run: testRun, NS: ns}
	var sent int32
	flush := func() {
		r.batch(b, sent%testTopics().SnapshotPartitions, &batch)
		sent++
		batch.Chunk, batch.Count, batch.Documents = sent, 0, nil
	}
	for i := range count {
		doc := raw(b, bson.D{{Key: "_id", Value: fmt.Sprintf("%08d", i)}, {Key: "n", Value: int32(i)}, {Key: "pad", Value: pad[:size-50]}})
		if len(batch.Documents)+len(doc) > 1<<20 && batch.Count > 0 {
			flush()
		}
		batch.Documents = append(batch.Documents, doc...)
		batch.Count++
	}
	flush()
}

// timeLoad runs a service until it has loaded count documents and returns how
// many a second it did between the twentieth and nineteen twentieths.
func (r *rig) timeLoad(b *testing.B, count int64) float64 {
	b.Helper()
	s := r.start(b, "a")
	reach := func(n int64) (at time.Time, done int64) {
		testenv.Eventually(b, 10*settled, func() error {
			if done = s.service.progress.documents.Load(); done < n {
				return fmt.Errorf("%d of %d documents", done, n)
			}
			return nil
		})
		return time.Now(), done
	}
	began, first := reach(count / 20)
	ended, last := reach(count * 19 / 20)
	reach(count)
	s.stop(b)
	return float64(last-first) / ended.Sub(began).Seconds()
}

// bareLoad is the ceiling of a load, in documents a second.
func (r *rig) bareLoad(b *testing.B, from, to []int64, count int64) float64 {
	b.Helper()
	target := r.dest.Client.Database("ceiling").Collection("orders", options.Collection().SetWriteConcern(writeconcern.Majority()))
	var (
		mu           sync.Mutex
		done, first  int64
		last         int64
		began, ended time.Time
	)
	tell := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		if began.IsZero() && done >= count/20 {
			began, first = time.Now(), done
		}
		if ended.IsZero() && done >= count*19/20 {
			ended, last = time.Now(), done
		}
	}
	g, ctx := errgroup.WithContext(b.Context())
	for p := range from {
		g.Go(func() error { return r.bareLoader(ctx, target, int32(p), from[p], to[p], tell) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return float64(last-first) / ended.Sub(began).Seconds()
}

func (r *rig) bareLoader(ctx context.Context, target *mongo.Collection, partition int32, from, to int64, tell func(documents int)) error {
	client, err := kafka.NewClient(r.kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		r.topics.Snapshot: {partition: kgo.NewOffset().At(from)},
	}))
	if err != nil {
		return err
	}
	defer client.Close()
	opts := options.InsertMany().SetOrdered(false).SetBypassDocumentValidation(true)
	for next := from; next < to; {
		fetches := client.PollRecords(ctx, 8)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			next = record.Offset + 1
			batch, err := r.codec.DecodeBatch(record.Value)
			if err != nil {
				return fmt.Errorf("offset %d: %w", record.Offset, err)
			}
			docs := make([]any, 0, batch.Count)
			for rest := batch.Documents; len(rest) > 0; {
				doc, after, err := splitDocument(rest)
				if err != nil {
					return err
				}
				docs, rest = append(docs, doc), after
			}
			if _, err := target.InsertMany(ctx, docs, opts); err != nil {
				return err
			}
			tell(len(docs))
		}
	}
	return nil
}
