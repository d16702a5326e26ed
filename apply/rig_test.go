package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	testPartitions = 3
	testRun        = "run-1"
	// settled bounds how long a destination may take to come through.
	settled = 60 * time.Second
)

// rig is a pipeline of one test, in which the test plays capture and snapshot.
type rig struct {
	pair   testenv.Pair
	dest   *testenv.Mongo
	topics route.Topics
	codec  *wire.Codec
	kafka  kafka.Config
	client *kgo.Client
	// clock is the time of the last event.
	clock uint32
	// byNamespace are the collections whose events keep the order of the
	// whole collection.
	byNamespace map[event.Namespace]bool
	// edit changes the configuration of services, tune the services themselves.
	edit func(*Config)
	tune func(*Service)
}

func newRig(t testing.TB, pair testenv.Pair, opts ...testenv.Option) *rig {
	t.Helper()
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		pair: pair, dest: pair.NewDestination(t, opts...), topics: route.TopicsOf(pair.Pipeline), codec: codec,
		kafka: kafka.Config{Brokers: pair.Brokers, Log: zerolog.Nop()}, clock: 1000, edit: func(*Config) {}, tune: func(*Service) {},
	}
	r.client, err = kafka.NewClient(r.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	if err := kafka.EnsureTopics(t.Context(), r.client, r.topics, testTopics()); err != nil {
		t.Fatal(err)
	}
	r.put(t, state.KeyIdentity(), state.Identity{Deployment: "0123456789abcdef01234567", Mode: "oplog"})
	return r
}

func testTopics() kafka.TopicSpec {
	return kafka.TopicSpec{Partitions: testPartitions, SnapshotPartitions: 2, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour}
}

// testLog writes to standard error where a test is debugged.
func testLog() zerolog.Logger {
	if os.Getenv("APPLY_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(os.Stderr).With().Timestamp().Logger()
}

func (r *rig) config(instance string) Config {
	cfg := Config{
		Pipeline: r.pair.Pipeline, Instance: instance, Destination: "dest", Kafka: r.kafka, Topics: testTopics(),
		Target: mongodb.Options{URI: r.dest.URI}, Rules: rules.Destination{}, BatchEvents: 50, SessionTimeout: 6 * time.Second,
		Retry: retry.Policy{Connection: 60 * time.Second, Other: 20 * time.Second, MaxBackoff: 200 * time.Millisecond},
		Log:   testLog().With().Str("instance", instance).Logger(),
	}
	r.edit(&cfg)
	return cfg
}

func (r *rig) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	if err := r.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) put(t testing.TB, key string, v any) {
	t.Helper()
	record, err := state.Record(r.topics.State, key, v)
	if err != nil {
		t.Fatal(err)
	}
	r.produce(t, record)
}

// ends returns the end offsets of a topic's partitions.
func (r *rig) ends(t testing.TB, topic string) []int64 {
	t.Helper()
	listed, err := kadm.NewClient(r.client).ListEndOffsets(t.Context(), topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]int64, len(listed[topic]))
	for p, o := range listed[topic] {
		ends[p] = o.Offset
	}
	return ends
}

// collection is what a run loads of one collection.
type collection struct {
	ns      event.Namespace
	uuid    event.UUID
	view    bool
	options bson.Raw
	indexes []bson.Raw
	docs    []bson.Raw
}

// begin writes a run's manifest: from here on, events belong behind its load.
func (r *rig) begin(t testing.TB, collections ...collection) state.Manifest {
	t.Helper()
	m := state.Manifest{
		Run: testRun, State: state.RunLoading, Started: time.Now().UTC(), Watermark: r.now(),
		ChangeOffsets: r.ends(t, r.topics.Changes), SnapshotOffsets: r.ends(t, r.topics.Snapshot),
	}
	for _, c := range collections {
		opts := c.options
		if opts == nil {
			opts = emptyDocument()
		}
		col := state.Collection{DB: c.ns.DB, Coll: c.ns.Coll, UUID: c.uuid, View: c.view, Options: opts}
		for _, ix := range c.indexes {
			col.Indexes = append(col.Indexes, ix)
		}
		m.Collections = append(m.Collections, col)
	}
	r.put(t, state.KeyRun(m.Run), m)
	return m
}

// load publishes the documents of a run, its end and its complete manifest; the
// documents are as of the present time.
func (r *rig) load(t testing.TB, m state.Manifest, collections ...collection) {
	t.Helper()
	const perBatch = 7
	var chunk int32
	for _, c := range collections {
		for docs := range slices.Chunk(c.docs, perBatch) {
			b := wire.Batch{Kind: wire.BatchDocuments, Run: m.Run, Chunk: chunk, NS: c.ns, UUID: c.uuid, Count: int32(len(docs)), Documents: bytes.Join(rawBytes(docs), nil)}
			partition := chunk % testTopics().SnapshotPartitions
			if isCapped(c.options) {
				partition = 0
			} else {
				chunk++
			}
			r.batch(t, partition, &b)
		}
	}
	for p := range testTopics().SnapshotPartitions {
		r.batch(t, p, &wire.Batch{Kind: wire.BatchRunEnd, Run: m.Run, Chunk: -1})
	}
	m.State, m.ReadThrough = state.RunComplete, r.now()
	r.put(t, state.KeyRun(m.Run), m)
}

func isCapped(options bson.Raw) bool {
	l := listedCollection{Options: options}
	return options != nil && l.Capped()
}

func rawBytes(docs []bson.Raw) [][]byte {
	out := make([][]byte, len(docs))
	for i, d := range docs {
		out[i] = d
	}
	return out
}

func (r *rig) batch(t testing.TB, partition int32, b *wire.Batch) {
	t.Helper()
	value, err := r.codec.AppendBatch(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	r.produce(t, &kgo.Record{Topic: r.topics.Snapshot, Partition: partition, Value: value})
}

func (r *rig) now() bson.Timestamp { return bson.Timestamp{T: r.clock, I: 1} }

// tick gives the next event its position.
func (r *rig) tick() event.Position {
	r.clock++
	return event.Position{Time: r.now(), Term: 1}
}

// publish does capture's part: each event goes to its partition, DDL and
// watermarks to all. An event without a position gets the next one.
func (r *rig) publish(t testing.TB, events ...event.Event) {
	t.Helper()
	var records []*kgo.Record
	for i := range events {
		records = append(records, r.records(t, &events[i])...)
	}
	r.produce(t, records...)
}

func (r *rig) records(t testing.TB, e *event.Event) []*kgo.Record {
	t.Helper()
	if e.Position.IsZero() {
		e.Position = r.tick()
	}
	if e.WallTime.IsZero() {
		e.WallTime = time.Now()
	}
	value, err := r.codec.AppendEvent(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if e.Op.IsData() {
		class := route.ByDocument
		if r.byNamespace[e.NS] {
			class = route.ByNamespace
		}
		key, err := route.AppendKey(nil, e.NS, e.ID(), class)
		if err != nil {
			t.Fatal(err)
		}
		return []*kgo.Record{{Topic: r.topics.Changes, Partition: route.Partition(key, testPartitions), Key: key, Value: value}}
	}
	var records []*kgo.Record
	for p := range int32(testPartitions) {
		records = append(records, &kgo.Record{Topic: r.topics.Changes, Partition: p, Key: []byte("|" + string(e.Op)), Value: value})
	}
	return records
}

// watermark publishes a watermark and returns its time.
func (r *rig) watermark(t testing.TB) bson.Timestamp {
	t.Helper()
	e := event.Event{Op: event.OpWatermark, Position: r.tick()}
	r.publish(t, e)
	return e.Position.Time
}

// service is a running apply.
type service struct {
	service *Service
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
}

// start runs a service until the test ends or it is stopped.
func (r *rig) start(t testing.TB, instance string) *service {
	t.Helper()
	return r.startAt(t, instance, nil)
}

// startAt is start with a seam that hears of the steps of barriers.
func (r *rig) startAt(t testing.TB, instance string, seam func(context.Context, step)) *service {
	t.Helper()
	s, err := New(r.config(instance))
	if err != nil {
		t.Fatal(err)
	}
	s.seam = seam
	r.tune(s)
	ctx, cancel := context.WithCancel(context.Background())
	running := &service{service: s, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(running.done)
		running.err = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-running.done
	})
	return running
}

// stop ends the service in order and fails the test if it had failed.
func (s *service) stop(t testing.TB) {
	t.Helper()
	s.cancel()
	<-s.done
	if s.err != nil {
		t.Fatalf("apply: %v", s.err)
	}
}

// ended waits for the service's end for d at most.
func (s *service) ended(d time.Duration) bool {
	select {
	case <-s.done:
		return true
	case <-time.After(d):
		return false
	}
}

// fails waits until the service has ended by itself, or a partition of it has,
// and returns the error with which it ends.
func (s *service) fails(t testing.TB) error {
	t.Helper()
	testenv.Eventually(t, settled, func() error {
		if s.service.failures.count() == 0 && !s.ended(0) {
			return errors.New("apply has not failed")
		}
		return nil
	})
	s.cancel()
	<-s.done
	if s.err == nil {
		t.Fatal("apply ended without an error")
	}
	return s.err
}

// await waits until every partition has passed a watermark, and catching up is
// over.
func (r *rig) await(t testing.TB, through bson.Timestamp, services ...*service) {
	t.Helper()
	testenv.Eventually(t, settled, func() error {
		for _, s := range services {
			select {
			case <-s.done:
				t.Fatalf("apply: %v", s.err)
			default:
			}
			if err := s.service.failures.err(); err != nil {
				t.Fatalf("apply: %v", err)
			}
		}
		offsets, err := r.offsets(t)
		if err != nil {
			return err
		}
		n := 0
		for _, o := range offsets {
			if o.ID.Topic != r.topics.Changes {
				continue
			}
			n++
			if event.CompareTimes(o.Watermark, through) < 0 || o.CatchingUp {
				return fmt.Errorf("partition %d is at offset %d, watermark %v, catching up: %t", o.ID.Partition, o.Offset, o.Watermark, o.CatchingUp)
			}
		}
		if n < testPartitions {
			return fmt.Errorf("%d of %d partitions have a record", n, testPartitions)
		}
		return nil
	})
}

func (r *rig) offsets(t testing.TB) ([]offsetRecord, error) {
	t.Helper()
	cursor, err := r.dest.Client.Database(ownDatabase).Collection(offsetsCollection).Find(t.Context(), bson.D{{Key: "_id.pipeline", Value: r.pair.Pipeline}})
	if err != nil {
		return nil, err
	}
	var list []offsetRecord
	return list, cursor.All(t.Context(), &list)
}

// held returns the destination's documents of a collection, in natural order.
func (r *rig) held(t testing.TB, ns event.Namespace) []bson.Raw {
	t.Helper()
	return heldIn(t, r.dest.Client, ns)
}

func heldIn(t testing.TB, client *mongo.Client, ns event.Namespace) []bson.Raw {
	t.Helper()
	cursor, err := client.Database(ns.DB).Collection(ns.Coll).Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.Raw
	for cursor.Next(t.Context()) {
		docs = append(docs, slices.Clone(cursor.Current))
	}
	if err := errors.Join(cursor.Err(), cursor.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return docs
}

// same fails the test unless the destination holds exactly those documents,
// byte for byte.
func (r *rig) same(t testing.TB, ns event.Namespace, want []bson.Raw) {
	t.Helper()
	compare(t, ns, slices.Sorted(slices.Values(texts(want))), slices.Sorted(slices.Values(texts(r.held(t, ns)))))
}

// sameOrdered is same for a collection whose order matters.
func (r *rig) sameOrdered(t testing.TB, ns event.Namespace, want []bson.Raw) {
	t.Helper()
	compare(t, ns, texts(want), texts(r.held(t, ns)))
}

func compare(t testing.TB, ns event.Namespace, wanted, got []string) {
	t.Helper()
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("%s: documents differ (-want +got):\n%s", ns, diff)
	}
}

// texts shows documents so that any two that differ differ.
func texts(docs []bson.Raw) []string {
	out := make([]string, len(docs))
	for i, d := range docs {
		out[i] = fmt.Sprintf("%s %x", d, []byte(d))
	}
	return out
}

func raw(t testing.TB, v any) bson.Raw {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The events of a source without DDL and UUIDs, as the stand-in is one.

func keyOf(t testing.TB, id any) bson.Raw { return raw(t, bson.D{{Key: "_id", Value: id}}) }

func inserted(t testing.TB, ns event.Namespace, doc any) event.Event {
	d := raw(t, doc)
	return event.Event{Op: event.OpInsert, NS: ns, DocumentKey: raw(t, bson.D{{Key: "_id", Value: d.Lookup("_id")}}), Document: d}
}

func replaced(t testing.TB, ns event.Namespace, doc any) event.Event {
	e := inserted(t, ns, doc)
	e.Op = event.OpReplace
	return e
}

func deleted(t testing.TB, ns event.Namespace, id any) event.Event {
	return event.Event{Op: event.OpDelete, NS: ns, DocumentKey: keyOf(t, id)}
}

func updated(t testing.TB, ns event.Namespace, id, diff any) event.Event {
	t.Helper()
	delta, err := event.DeltaFromDiff(raw(t, diff))
	if err != nil {
		t.Fatal(err)
	}
	return event.Event{Op: event.OpUpdate, NS: ns, DocumentKey: keyOf(t, id), Delta: delta}
}
