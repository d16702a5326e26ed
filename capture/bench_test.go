package capture

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const benchDocuments = 100_000

// BenchmarkCapture compares capture from a prepared oplog into Kafka with its
// ceiling, a bare tailing cursor and a bare producer, in the same run. It needs
// the real engines.
func BenchmarkCapture(b *testing.B) {
	source := testenv.RequireMongoD(b).NewSource(b, testenv.OplogMB(990))
	broker := testenv.RequireKafka(b)
	from, err := mongodb.MajorityTime(b.Context(), source.Client)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, source)
	to, err := mongodb.LatestTime(b.Context(), source.Client)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var ceiling, captured time.Duration
	for b.Loop() {
		ceiling += bare(b, broker, source, from, to)
		captured += prepared(b, broker, source, from, to)
	}
	n := float64(b.N) * benchDocuments
	b.ReportMetric(n/ceiling.Seconds(), "ceiling-events/s")
	b.ReportMetric(n/captured.Seconds(), "events/s")
	b.ReportMetric(float64(ceiling)/float64(captured), "ratio")
}

// fill writes documents of 1 KiB, half of it hard to compress.
func fill(b *testing.B, source *testenv.Mongo) {
	coll := source.Client.Database("shop").Collection("orders")
	text := strings.Repeat("tributary ", 50)
	for n := 0; n < benchDocuments; {
		docs := make([]any, 0, 1000)
		for range cap(docs) {
			var noise strings.Builder
			for noise.Len() < 480 {
				noise.WriteString(bson.NewObjectID().Hex())
			}
			docs = append(docs, bson.D{{Key: "_id", Value: int64(n)}, {Key: "noise", Value: noise.String()}, {Key: "text", Value: text}})
			n++
		}
		if _, err := coll.InsertMany(b.Context(), docs); err != nil {
			b.Fatal(err)
		}
	}
}

// bare copies raw entries, each as a record, and returns how long it took.
func bare(b *testing.B, broker testenv.Broker, source *testenv.Mongo, from, to bson.Timestamp) time.Duration {
	topic := testenv.NewPipeline(b)
	client, err := kafka.NewClient(kafka.Config{Brokers: broker.Brokers}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(b.Context(), testPartitions, 1, nil, topic); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	s := &mongoSource{client: source.Client, metrics: newMetrics(nil)}
	tail, _, err := s.open(b.Context(), state.CapturePosition{PublishedThrough: event.Position{Time: from}})
	if err != nil {
		b.Fatal(err)
	}
	defer tail.close(context.WithoutCancel(b.Context()))
	follow, ok := tail.(*oplogTail)
	if !ok {
		b.Fatalf("tail is a %T", tail)
	}
	cursor := follow.cursor
	var failed atomic.Int64
	for n := int32(0); ; n++ {
		if !cursor.Next(b.Context()) {
			b.Fatal(cursor.Err())
		}
		// The reply's buffer is new for each reply, so that nothing is copied.
		client.Produce(b.Context(), &kgo.Record{Topic: topic, Partition: n % testPartitions, Value: cursor.Current}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
		t, i, _ := cursor.Current.Lookup("ts").TimestampOK()
		if event.CompareTimes(bson.Timestamp{T: t, I: i}, to) >= 0 {
			break
		}
	}
	if err := client.Flush(b.Context()); err != nil || failed.Load() > 0 {
		b.Fatalf("produce: %v, %d records failed", err, failed.Load())
	}
	return time.Since(began)
}

// prepared runs a capture whose position is set to from, until it has committed
// to.
func prepared(b *testing.B, broker testenv.Broker, source *testenv.Mongo, from, to bson.Timestamp) time.Duration {
	cfg := testConfig(b, broker, testenv.NewPipeline(b), nil)
	cfg.Source.URI = source.URI
	cfg.CommitInterval, cfg.CommitEvents, cfg.WatermarkInterval, cfg.IdleInterval = 0, 0, 0, 0
	topics := route.TopicsOf(cfg.Pipeline)
	client, err := kafka.NewClient(cfg.Kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if err := kafka.EnsureTopics(b.Context(), client, topics, cfg.Topics); err != nil {
		b.Fatal(err)
	}
	position := state.CapturePosition{PublishedThrough: event.Position{Time: from}, Partitions: testPartitions}
	record, err := state.Record(topics.State, state.KeyPosition(), position)
	if err != nil {
		b.Fatal(err)
	}
	if err := client.ProduceSync(b.Context(), record).FirstErr(); err != nil {
		b.Fatal(err)
	}
	// The time counts from before the fence, so the state's loading is in it; the
	// election, which happens once, is not.
	var began time.Time
	cfg.seams.producer = func(*kgo.Client) { began = time.Now() }
	done := make(chan time.Duration, 1)
	cfg.seams.committed = func(p event.Position) {
		if event.CompareTimes(p.Time, to) < 0 {
			return
		}
		select {
		case done <- time.Since(began):
		default:
		}
	}
	service := start(b, cfg)
	defer service.stop()
	select {
	case took := <-done:
		return took
	case err := <-service.err:
		b.Fatal(err)
	}
	return 0
}
