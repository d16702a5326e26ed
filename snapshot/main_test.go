package snapshot

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	testenv.Main(m)
}

// rig is a pipeline of one test.
type rig struct {
	pair   testenv.Pair
	source *testenv.Mongo
	topics route.Topics
	codec  *wire.Codec
	kafka  kafka.Config
}

func newRig(t testing.TB, pair testenv.Pair) *rig {
	t.Helper()
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		pair: pair, source: pair.NewSource(t), topics: route.TopicsOf(pair.Pipeline), codec: codec,
		kafka: kafka.Config{Brokers: pair.Brokers, Log: zerolog.Nop()},
	}
	r.prepareTopics(t)
	return r
}

// prepareTopics makes the topics before there is a service.
func (r *rig) prepareTopics(t testing.TB) {
	t.Helper()
	client, err := kafka.NewClient(r.kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := kafka.EnsureTopics(t.Context(), client, r.topics, topicSpec()); err != nil {
		t.Fatal(err)
	}
}

func topicSpec() kafka.TopicSpec {
	return kafka.TopicSpec{Partitions: 3, SnapshotPartitions: 4, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour}
}

// config is that of a service under test.
func (r *rig) config(instance string) Config {
	return testConfig(r.pair.Pipeline, instance, r.source.URI, r.pair.Brokers)
}

// testConfig has small sizes, so that little data makes many chunks, batches and
// transactions.
func testConfig(pipeline, instance, uri string, brokers []string) Config {
	return Config{
		Pipeline: pipeline, Instance: instance, Kafka: kafka.Config{Brokers: brokers, Log: testLog()}, Topics: topicSpec(),
		Source:     mongodb.Options{URI: uri},
		BatchBytes: 4 << 10, CommitBytes: 16 << 10, CommitInterval: 50 * time.Millisecond, QueueBytes: 64 << 10,
		ChunkBytes: 64 << 10, ChunkDocuments: 200, Workers: 2, SessionTimeout: minSessionTimeout,
		Retry: retry.Policy{Connection: 30 * time.Second, Other: 10 * time.Second, MaxBackoff: 200 * time.Millisecond},
		Log:   testLog(),
	}
}

// testLog writes to standard error where a test is debugged.
func testLog() zerolog.Logger {
	if os.Getenv("SNAPSHOT_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(os.Stderr).Level(zerolog.InfoLevel).Hook(zerolog.HookFunc(stamp))
}

// now is the source's present time.
func (r *rig) now(t testing.TB) bson.Timestamp {
	t.Helper()
	ts, err := mongodb.LatestTime(t.Context(), r.source.Client)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// publish does capture's part: events in every partition of the change topic,
// in one transaction.
func (r *rig) publish(ctx context.Context, events ...event.Event) error {
	p, err := openProducer(ctx, r.kafka, route.CaptureTransactionalID(r.pair.Pipeline))
	if err != nil {
		return err
	}
	defer p.close()
	return r.publishWith(ctx, p, events...)
}

func (r *rig) publishWith(ctx context.Context, p *producer, events ...event.Event) error {
	var records []*kgo.Record
	for i := range events {
		value, err := r.codec.AppendEvent(nil, &events[i])
		if err != nil {
			return err
		}
		key := "|watermark"
		if events[i].Op != event.OpWatermark {
			key = events[i].NS.String() + "|"
		}
		for partition := range topicSpec().Partitions {
			records = append(records, &kgo.Record{Topic: r.topics.Changes, Partition: partition, Key: []byte(key), Value: value})
		}
	}
	return p.transact(ctx, records)
}

func watermark(ts bson.Timestamp) event.Event {
	return event.Event{Op: event.OpWatermark, Position: event.Position{Time: ts}, WallTime: time.Unix(int64(ts.T), 0)}
}

// followSource publishes watermarks as capture does, until the test ends.
func (r *rig) followSource(t testing.TB) {
	t.Helper()
	copied := *r // the test may go on to another pipeline
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return copied.keepPublishing(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// keepPublishing publishes watermarks until ctx ends.
func (r *rig) keepPublishing(ctx context.Context) error {
	p, err := openProducer(ctx, r.kafka, route.CaptureTransactionalID(r.pair.Pipeline))
	if err != nil {
		return err
	}
	defer p.close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ts, err := mongodb.MajorityTime(ctx, r.source.Client)
		if err == nil {
			err = r.publishWith(ctx, p, watermark(ts))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("publish watermark: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// run runs a service to its end.
func (r *rig) run(t testing.TB, cfg Config) error {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = s.Run(ctx)
	if ctx.Err() != nil {
		t.Fatalf("service did not end: %v", err)
	}
	return err
}

// loadedBatches reads what readers of committed records see.
func (r *rig) loadedBatches(t testing.TB) []wire.Batch {
	t.Helper()
	log, err := openLog(t.Context(), r.kafka, r.topics.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	var batches []wire.Batch
	parts := map[int32]*wire.Assembler{}
	for _, p := range log.partitions() {
		parts[p] = r.codec.NewAssembler(wire.MaxRecordBytes)
	}
	err = log.through(t.Context(), log.starts, func(record *kgo.Record) error {
		value, err := parts[record.Partition].Add(record.Value)
		if err != nil || value == nil {
			return err
		}
		b, err := r.codec.DecodeBatch(value)
		batches = append(batches, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return batches
}

func (r *rig) state(t testing.TB) *state.View {
	t.Helper()
	view, err := state.Load(t.Context(), r.kafka, r.topics.State)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// awaitMembers waits until n processes share the chunks.
func (r *rig) awaitMembers(t testing.TB, n int) {
	t.Helper()
	client, err := kafka.NewClient(r.kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	group := route.SnapshotGroup(r.pair.Pipeline)
	testenv.Eventually(t, time.Minute, func() error {
		groups, err := admin.DescribeGroups(t.Context(), group)
		if err != nil {
			return err
		}
		g := groups[group]
		busy := 0
		for _, m := range g.Members {
			if c, ok := m.Assigned.AsConsumer(); ok && len(c.Topics) > 0 && len(c.Topics[0].Partitions) > 0 {
				busy++
			}
		}
		if g.State != "Stable" || busy != n {
			return fmt.Errorf("group is %s with %d members at work, want %d", g.State, busy, n)
		}
		return nil
	})
}

// stamp adds the time with its fractions.
func stamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str("at", time.Now().Format("05.000"))
}
