package capture

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const testPartitions = 4

// testConfig is a service over a broker and a script, quick in everything.
func testConfig(t testing.TB, broker testenv.Broker, pipeline string, source entrySource) Config {
	t.Helper()
	selection, err := rules.CompileSelection([]string{"shop.*"}, []string{"shop.unselected"})
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Pipeline: pipeline,
		Instance: "test",
		Kafka:    kafka.Config{Brokers: broker.Brokers, Log: zerolog.Nop()},
		Topics: kafka.TopicSpec{
			Partitions: testPartitions, SnapshotPartitions: 1, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour,
		},
		Select:            selection,
		CommitInterval:    5 * time.Millisecond,
		CommitEvents:      100,
		WatermarkInterval: 20 * time.Millisecond,
		IdleInterval:      50 * time.Millisecond,
		SessionTimeout:    6 * time.Second,
		DrainTimeout:      5 * time.Second,
		Retry:             retry.Policy{Connection: time.Minute, Other: time.Minute, MaxBackoff: 200 * time.Millisecond},
		Log:               zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel),
		seams:             seams{source: source},
	}
}

// endPatience is how long a service may take to end, far more than it should.
const endPatience = time.Minute

// running is a service under test.
type running struct {
	t      testing.TB
	cancel context.CancelFunc
	err    chan error
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{t: t, cancel: cancel, err: make(chan error, 1)}
	go func() { r.err <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if r.err == nil {
			return
		}
		if err, _ := testenv.Receive(t, endPatience, "end of the service", r.err); err != nil && !t.Failed() {
			t.Errorf("service ended with: %v", err)
		}
	})
	return r
}

// wait returns what Run returned.
func (r *running) wait() error {
	r.t.Helper()
	err, _ := testenv.Receive(r.t, endPatience, "end of the service", r.err)
	r.err = nil
	return err
}

// kill ends the service as a killed process would: its producer's transaction is
// neither committed nor aborted. The end is asked for first, so that the client
// that is gone is no fault.
func (r *running) kill(producer *kgo.Client) {
	r.t.Helper()
	r.cancel()
	producer.Close()
	if err := r.wait(); err != nil {
		r.t.Fatalf("service ended with: %v", err)
	}
}

// stop ends the service in good order.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := r.wait(); err != nil {
		r.t.Fatalf("service ended with: %v", err)
	}
}

// until waits for the committed position to reach a cluster time. A broker that
// comes back has to load its coordinators and to abort what was open, which it
// looks for every 10 s only.
func until(t testing.TB, cfg Config, ts bson.Timestamp) {
	t.Helper()
	testenv.Eventually(t, 2*time.Minute, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		view, err := state.Load(ctx, cfg.Kafka, route.TopicsOf(cfg.Pipeline).State)
		if err != nil {
			return err
		}
		p, _ := view.Position()
		if event.CompareTimes(p.PublishedThrough.Time, ts) < 0 {
			return fmt.Errorf("position %s is before %d.%d", p.PublishedThrough, ts.T, ts.I)
		}
		return nil
	})
}

// record is a committed record of the change topic.
type record struct {
	partition int32
	offset    int64
	key       string
	event     event.Event
}

// committed reads the change topic as it is now.
func committed(t testing.TB, cfg Config) []record {
	t.Helper()
	topic := route.TopicsOf(cfg.Pipeline).Changes
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kafka.NewClient(cfg.Kafka, kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			missing[o.Partition] = o.Offset
		}
	})
	var records []record
	parts := map[int32]*wire.Assembler{}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(missing) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read change topic: %v", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= missing[r.Partition] {
				delete(missing, r.Partition)
			}
			if r.Attrs.IsControl() {
				return
			}
			if parts[r.Partition] == nil {
				parts[r.Partition] = codec.NewAssembler(wire.MaxRecordBytes)
			}
			value, err := parts[r.Partition].Add(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			if value == nil {
				return
			}
			e, err := codec.DecodeEvent(value)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, record{r.Partition, r.Offset, string(r.Key), e})
		})
	}
	return records
}

// checkExactlyOnce holds the topic to the script: every selected entry after
// the start once, in order, in its partition; DDL once in each; nothing at or
// before a watermark after it.
func checkExactlyOnce(t testing.TB, cfg Config, s *script, start bson.Timestamp) {
	t.Helper()
	records := committed(t, cfg)
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	var want [testPartitions][]event.Event
	e := encoder{codec: codec, topic: "t", partitions: testPartitions}
	history, err := testDecoder(cfg, s).DecodeHistory(s.entries)
	if err != nil {
		t.Fatal(err)
	}
	for i := range history {
		if event.CompareTimes(history[i].Position.Time, start) <= 0 {
			continue
		}
		b := newBatch()
		if err := e.append(b, &history[i]); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.records {
			ev, err := codec.DecodeEvent(bytes.Clone(r.Value))
			if err != nil {
				t.Fatal(err)
			}
			want[r.Partition] = append(want[r.Partition], ev)
		}
	}
	var got [testPartitions][]record
	var watermark, last [testPartitions]bson.Timestamp
	for _, r := range records {
		if r.event.Op == event.OpWatermark {
			if event.CompareTimes(r.event.Position.Time, last[r.partition]) < 0 {
				t.Errorf("partition %d offset %d: watermark %v follows a change of %v", r.partition, r.offset, r.event.Position.Time, last[r.partition])
			}
			if event.CompareTimes(r.event.Position.Time, watermark[r.partition]) < 0 {
				t.Errorf("partition %d offset %d: watermark goes back", r.partition, r.offset)
			}
			watermark[r.partition] = r.event.Position.Time
			continue
		}
		if event.CompareTimes(r.event.Position.Time, watermark[r.partition]) <= 0 {
			t.Errorf("partition %d offset %d: %s follows watermark %v", r.partition, r.offset, &r.event, watermark[r.partition])
		}
		last[r.partition] = r.event.Position.Time
		got[r.partition] = append(got[r.partition], r)
	}
	for p := range want {
		if len(got[p]) != len(want[p]) {
			t.Errorf("partition %d has %d events, want %d; its log holds:\n%s", p, len(got[p]), len(want[p]), logOf(t, cfg, int32(p)))
		}
		for i := range min(len(got[p]), len(want[p])) {
			g, w := &got[p][i].event, &want[p][i]
			if g.Position != w.Position || g.Op != w.Op || !bytes.Equal(g.DocumentKey, w.DocumentKey) || !bytes.Equal(g.Document, w.Document) || !bytes.Equal(g.Delta, w.Delta) {
				t.Fatalf("partition %d event %d: %s, want %s", p, i, g, w)
			}
		}
	}
}

func addPartitions(t testing.TB, cfg Config) {
	t.Helper()
	client, err := kafka.NewClient(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	resp, err := kadm.NewClient(client).CreatePartitions(t.Context(), 1, route.TopicsOf(cfg.Pipeline).Changes)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func deleteTopic(t testing.TB, cfg Config, topic string) {
	t.Helper()
	client, err := kafka.NewClient(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
}

// abortRecord leaves a record in every partition of the change topic that no
// transaction has committed.
func abortRecord(t testing.TB, cfg Config) {
	t.Helper()
	topics := route.TopicsOf(cfg.Pipeline)
	client, err := kafka.NewClient(cfg.Kafka, kgo.TransactionalID(route.CaptureTransactionalID(cfg.Pipeline)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := kafka.EnsureTopics(t.Context(), client, topics, cfg.Topics); err != nil {
		t.Fatal(err)
	}
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for partition := range cfg.Topics.Partitions {
		record := &kgo.Record{Topic: topics.Changes, Partition: partition, Value: []byte("never committed")}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

func loadPosition(t testing.TB, cfg Config) event.Position {
	t.Helper()
	view, err := state.Load(t.Context(), cfg.Kafka, route.TopicsOf(cfg.Pipeline).State)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := view.Position()
	if !ok {
		t.Fatal("pipeline has no position")
	}
	return p.PublishedThrough
}
