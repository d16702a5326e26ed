package capture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

// smallEntries makes the server spread transactions over entries of few
// operations, and lets clients prepare them.
func smallEntries(operations int) testenv.Option {
	return testenv.Args("--setParameter", fmt.Sprintf("maxNumberOfTransactionOperationsInSingleOplogEntry=%d", operations),
		"--setParameter", "enableTestCommands=1")
}

// serverTransaction is one of a real server, with what it writes.
type serverTransaction struct {
	session *mongo.Session
	coll    *mongo.Collection
	// prepared is the time of the prepare; zero before.
	prepared bson.Timestamp
}

func begin(t testing.TB, source *testenv.Mongo) *serverTransaction {
	t.Helper()
	session, err := source.Client.StartSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.StartTransaction(options.Transaction().SetWriteConcern(writeconcern.Majority())); err != nil {
		t.Fatal(err)
	}
	return &serverTransaction{session: session, coll: source.Client.Database("shop").Collection("orders")}
}

// write inserts documents first to first+count-1 and updates each of them.
func (x *serverTransaction) write(ctx context.Context, first, count int) error {
	ctx = mongo.NewSessionContext(ctx, x.session)
	for i := first; i < first+count; i++ {
		id := bson.D{{Key: "_id", Value: int64(i)}}
		if _, err := x.coll.InsertOne(ctx, append(id, bson.E{Key: "n", Value: int64(i)})); err != nil {
			return err
		}
		if _, err := x.coll.UpdateOne(ctx, id, bson.D{{Key: "$set", Value: bson.D{{Key: "u", Value: 1}}}}); err != nil {
			return err
		}
	}
	return nil
}

func (x *serverTransaction) admin(ctx context.Context, command bson.D) *mongo.SingleResult {
	return x.coll.Database().Client().Database("admin").RunCommand(mongo.NewSessionContext(ctx, x.session), command)
}

func (x *serverTransaction) prepare(ctx context.Context) error {
	var reply struct {
		Time bson.Timestamp `bson:"prepareTimestamp"`
	}
	err := x.admin(ctx, bson.D{{Key: "prepareTransaction", Value: 1}, {Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}}}).Decode(&reply)
	x.prepared = reply.Time
	return err
}

// end commits or aborts. The driver knows nothing of a prepared one, so that its
// session is left to the server.
func (x *serverTransaction) end(ctx context.Context, commit bool) error {
	switch {
	case x.prepared.IsZero() && commit:
		defer x.session.EndSession(ctx)
		return x.session.CommitTransaction(ctx)
	case x.prepared.IsZero():
		defer x.session.EndSession(ctx)
		return x.session.AbortTransaction(ctx)
	case commit:
		return x.admin(ctx, bson.D{{Key: "commitTransaction", Value: 1}, {Key: "commitTimestamp", Value: x.prepared}}).Err()
	}
	return x.admin(ctx, bson.D{{Key: "abortTransaction", Value: 1}}).Err()
}

func (h history) addTransaction(first, count int) {
	for i := first; i < first+count; i++ {
		h.add(i, "insert", i)
		h.add(i, "update", 0)
	}
}

// TestServersTransactions: chained, prepared and aborted ones of a real server,
// beside other writes and under kills of capture; some are open over several of
// them.
func TestServersTransactions(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	source := mongod.NewSource(t, smallEntries(3))
	r := newRand(t)
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	var client atomic.Pointer[kgo.Client]
	cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
	if err := source.Client.Database("shop").CreateCollection(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)
	want := history{}
	var g errgroup.Group
	const others, perKill = 40, 6
	g.Go(func() error { return work(t.Context(), source.Client.Database("shop").Collection("orders"), 0, others) })
	for id, what := range expected(0, others) {
		want[id] = what
	}
	w := &serverWriter{t: t, source: source, random: r, want: want, next: 10_000}
	for range 4 {
		for range perKill {
			w.step()
		}
		service.kill(client.Load())
		service = start(t, cfg)
	}
	for len(w.open) > 0 {
		w.end(0)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	untilNow(t, cfg, source)
	service.stop()
	compareHistories(t, captured(t, cfg), want)
	checkTransactions(t, cfg)
	if p := position(t, cfg); p.ReadFrom != p.PublishedThrough {
		t.Errorf("reads from %s with nothing open, published through %s", p.ReadFrom, p.PublishedThrough)
	}
}

// serverWriter runs random transactions and notes what they write.
type serverWriter struct {
	t      testing.TB
	source *testenv.Mongo
	random *rand.Rand
	want   history
	next   int
	open   []openTransaction
}

type openTransaction struct {
	*serverTransaction
	first, count int
}

func (w *serverWriter) step() {
	w.t.Helper()
	ctx := w.t.Context()
	x := openTransaction{begin(w.t, w.source), w.next, 1 + w.random.IntN(8)}
	w.next += x.count
	if err := x.write(ctx, x.first, x.count); err != nil {
		w.t.Fatal(err)
	}
	if w.random.IntN(2) == 0 {
		if err := x.prepare(ctx); err != nil {
			w.t.Fatal(err)
		}
	}
	w.open = append(w.open, x)
	if w.random.IntN(3) > 0 {
		w.end(w.random.IntN(len(w.open)))
	}
}

func (w *serverWriter) end(i int) {
	w.t.Helper()
	x := w.open[i]
	w.open = append(w.open[:i], w.open[i+1:]...)
	commit := w.random.IntN(4) > 0
	if err := x.end(w.t.Context(), commit); err != nil {
		w.t.Fatal(err)
	}
	if commit {
		w.want.addTransaction(x.first, x.count)
	}
}

// checkTransactions: the operations of each transaction have one position in
// time and are numbered without a gap.
func checkTransactions(t testing.TB, cfg Config) {
	t.Helper()
	next := map[string]map[int32]bool{}
	var watermarks, last [testPartitions]bson.Timestamp
	for _, r := range committed(t, cfg) {
		e := &r.event
		if e.Op == event.OpWatermark {
			if event.CompareTimes(e.Position.Time, last[r.partition]) < 0 {
				t.Errorf("watermark %v follows a change of %v", e.Position.Time, last[r.partition])
			}
			watermarks[r.partition] = e.Position.Time
			continue
		}
		last[r.partition] = e.Position.Time
		if event.CompareTimes(e.Position.Time, watermarks[r.partition]) <= 0 {
			t.Errorf("%s follows watermark %v", e, watermarks[r.partition])
		}
		if e.Transaction == nil {
			continue
		}
		if e.Transaction.Index != e.Position.Index {
			t.Errorf("%s is operation %d of its transaction", e, e.Transaction.Index)
		}
		key := fmt.Sprint(e.Position.Time, e.Transaction.LSID, e.Transaction.Number)
		if next[key] == nil {
			next[key] = map[int32]bool{}
		}
		next[key][e.Position.Index] = true
	}
	if len(next) == 0 {
		t.Error("no transaction arrived")
	}
	for key, seen := range next {
		for i := range int32(len(seen)) {
			if !seen[i] {
				t.Errorf("%d operations of transaction %s, number %d is missing", len(seen), key, i)
			}
		}
	}
}

// TestKilledInAHugeTransaction: one that is far larger than the queue, published
// in many Kafka transactions, with kills between them.
func TestKilledInAHugeTransaction(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	source := mongod.NewSource(t, smallEntries(200))
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	cfg.QueueBytes = minQueueBytes
	cfg.DrainTimeout = time.Nanosecond
	var client atomic.Pointer[kgo.Client]
	cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
	orders := source.Client.Database("shop").Collection("orders")
	if err := source.Client.Database("shop").CreateCollection(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)
	service.stop()

	const documents, each = 6000, 100
	session, err := source.Client.StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(t.Context())
	text := strings.Repeat("x", 1000)
	_, err = session.WithTransaction(t.Context(), func(ctx context.Context) (any, error) {
		for first := 0; first < documents; first += each {
			var docs []any
			for i := first; i < first+each; i++ {
				docs = append(docs, bson.D{{Key: "_id", Value: int64(i)}, {Key: "n", Value: int64(i)}, {Key: "text", Value: text}})
			}
			if _, err := orders.InsertMany(ctx, docs); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := history{}
	for i := range documents {
		want.add(i, "insert", i)
	}
	if err := work(t.Context(), orders, documents, 3); err != nil {
		t.Fatal(err)
	}
	for id, what := range expected(documents, 3) {
		want[id] = what
	}
	for _, index := range []int32{100, 2000, 5000} {
		killInside(t, cfg, &client, index)
	}
	service = start(t, cfg)
	untilNow(t, cfg, source)
	cfg.DrainTimeout = DefaultDrainTimeout
	service.stop()
	compareHistories(t, captured(t, cfg), want)
	checkTransactions(t, cfg)
}

// killInside runs capture until it has committed a position inside a
// transaction, at least at that index, and kills it there.
func killInside(t *testing.T, cfg Config, client *atomic.Pointer[kgo.Client], index int32) {
	t.Helper()
	inside, killed := make(chan event.Position, 1), make(chan struct{})
	cfg.seams.committed = func(p event.Position) {
		if p.Index >= index {
			select {
			case inside <- p:
			default:
			}
			<-killed
		}
	}
	service := start(t, cfg)
	at, ok := testenv.Receive(t, time.Minute, "a position inside the transaction", inside)
	if !ok {
		t.Fatal("no position inside the transaction")
	}
	service.cancel()
	client.Load().Close()
	close(killed)
	if err := service.wait(); err != nil {
		t.Fatal(err)
	}
	p := position(t, cfg)
	if p.PublishedThrough != at || p.ReadFrom.Compare(at) >= 0 || event.CompareTimes(p.Watermark, at.Time) >= 0 {
		t.Errorf("killed at %s: published through %s, reads from %s, watermark %v", at, p.PublishedThrough, p.ReadFrom, p.Watermark)
	}
}
