package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

// lagBack is how soon capture must be back at the source's present after an
// election.
const lagBack = 60 * time.Second

// members is a set of three in the hands of an election test.
type members struct {
	t      *testing.T
	cfg    Config
	source *testenv.Mongo
	set    *engine.ReplicaSet
	coll   *mongo.Collection
	// next numbers the documents that were written.
	next int64
}

// primary waits for one among the members that are not left out.
func (m *members) primary(but ...*engine.Member) *engine.Member {
	m.t.Helper()
	var found *engine.Member
	testenv.Eventually(m.t, time.Minute, func() (err error) {
		found, err = m.set.Primary(m.t.Context(), but...)
		return err
	})
	return found
}

// write inserts n documents, each until a majority has it. An insert whose
// answer was lost is tried again: there it is a duplicate.
func (m *members) write(ctx context.Context, n int) error {
	for range n {
		doc := bson.D{{Key: "_id", Value: m.next}, {Key: "n", Value: m.next}}
		for {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := m.coll.InsertOne(try, doc)
			cancel()
			if err == nil || mongo.IsDuplicateKeyError(err) {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		m.next++
	}
	return nil
}

// during writes while something happens to the set, and wants capture at the
// source's present soon afterwards.
func (m *members) during(what string, happen func()) {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := m.write(m.t.Context(), 1); err != nil {
				return err
			}
		}
		return nil
	})
	happen()
	begin := time.Now()
	m.primary()
	stop()
	if err := g.Wait(); err != nil {
		m.t.Fatal(err)
	}
	if err := m.write(m.t.Context(), 1); err != nil {
		m.t.Fatal(err)
	}
	untilNow(m.t, m.cfg, m.source)
	took := time.Since(begin)
	m.t.Logf("%s: at the source's present after %s", what, took.Round(10*time.Millisecond))
	if took > lagBack {
		m.t.Logf("that is more than the promised %s", lagBack)
	}
}

// TestElections: stepdown (and in the long run kill and freeze) of the primary
// during writes, and writes that are rolled back. Nothing is lost, nothing comes twice, and of what
// was rolled back nothing shows.
func TestElections(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Members(3), smallEntries(3))
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	m := &members{t: t, cfg: cfg, source: source, set: source.ReplicaSet(), coll: source.Client.Database("shop").Collection("orders")}
	if err := source.Client.Database("shop").CreateCollection(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)

	const first, count = 500_000, 8
	over := m.prepared(first, count)
	m.during("stepdown", func() {
		client := direct(t, m.primary())
		// Its answer may be lost with the connection.
		_ = client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "replSetStepDown", Value: 10}, {Key: "force", Value: true}}).Err()
	})
	service.stop()
	service = start(t, cfg) // it begins again in the middle of the transaction
	m.commit(over)
	if os.Getenv("TRIBUTARY_SOAK") != "" {
		m.killAndFreeze()
	}
	m.rollBack()
	untilNow(t, cfg, source)
	service.stop()

	want := history{}
	for id := range m.next {
		want.add(id, "insert", int(id))
	}
	want.addTransaction(first, count)
	m.survivors(want)
	compareHistories(t, captured(t, cfg), want)
}

// prepared leaves a transaction over several entries prepared, and one that is not
// prepared open, which ends with the primary.
func (m *members) prepared(first, count int) *serverTransaction {
	m.t.Helper()
	ctx := m.t.Context()
	x, lost := begin(m.t, m.source), begin(m.t, m.source)
	if err := errors.Join(x.write(ctx, first, count), lost.write(ctx, first+count, 2), x.prepare(ctx)); err != nil {
		m.t.Fatal(err)
	}
	return x
}

// commit commits a prepared transaction at whoever is primary by now.
func (m *members) commit(x *serverTransaction) {
	m.t.Helper()
	testenv.Eventually(m.t, 2*time.Minute, func() error { return x.end(m.t.Context(), true) })
}

// survivors adds the doomed writes that the set holds after all: the first of
// them may stand in a frozen member's socket already.
func (m *members) survivors(want history) {
	m.t.Helper()
	cursor, err := m.coll.Find(m.t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$gte", Value: int64(1_000_000)}}}})
	if err != nil {
		m.t.Fatal(err)
	}
	var docs []struct {
		ID int64 `bson:"_id"`
	}
	if err := cursor.All(m.t.Context(), &docs); err != nil {
		m.t.Fatal(err)
	}
	for _, d := range docs {
		want.add(d.ID, "insert", 0)
	}
}

// killAndFreeze does so to the primary, one after the other.
func (m *members) killAndFreeze() {
	t := m.t
	m.during("kill", func() {
		p := m.primary()
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		m.primary(p)
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	m.during("freeze", func() {
		p := m.primary()
		if err := p.Freeze(); err != nil {
			t.Fatal(err)
		}
		m.primary(p)
		untilPassed(t, m)
		if err := p.Thaw(); err != nil {
			t.Fatal(err)
		}
	})
}

// untilPassed waits until capture has passed something of the new primary's
// while the old one is still frozen.
func untilPassed(t *testing.T, m *members) {
	t.Helper()
	before := loadPosition(t, m.cfg)
	testenv.Eventually(t, 2*lagBack, func() error {
		if p := loadPosition(t, m.cfg); p.Term <= before.Term {
			return fmt.Errorf("still in term %d", p.Term)
		}
		return nil
	})
}

// direct is a client of one member.
func direct(t *testing.T, member *engine.Member) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(member.URI).SetRetryWrites(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Log(err)
		}
	})
	return client
}

// rollBack has a primary that nobody hears take writes, which the set then rolls
// back.
func (m *members) rollBack() {
	t := m.t
	old := m.primary()
	client := direct(t, old)
	if err := client.Ping(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, member := range m.set.Members {
		if member != old {
			if err := member.Freeze(); err != nil {
				t.Fatal(err)
			}
		}
	}
	doomed := client.Database("shop").Collection("orders", options.Collection().SetWriteConcern(writeconcern.W1()))
	taken := 0
	for i := range int64(20) {
		if _, err := doomed.InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1_000_000 + i}, {Key: "n", Value: int64(0)}}); err != nil {
			break
		}
		taken++
	}
	if taken == 0 {
		t.Fatal("the isolated primary took no write")
	}
	if err := old.Freeze(); err != nil {
		t.Fatal(err)
	}
	for _, member := range m.set.Members {
		if member != old {
			if err := member.Thaw(); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.primary(old)
	if err := m.write(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	if err := old.Thaw(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		reader := client.Database("shop").Collection("orders")
		err := reader.FindOne(t.Context(), bson.D{{Key: "_id", Value: int64(1_000_000 + taken - 1)}}).Err()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return nil
		}
		return fmt.Errorf("not rolled back yet (read: %w)", err)
	})
	t.Logf("%d writes were rolled back", taken)
}

// TestPositionOfAnotherHistory puts the position where the source's oplog does
// not have it, as after a restore.
func TestPositionOfAnotherHistory(t *testing.T) {
	for name, move := range map[string]func(p *event.Position){
		"the oplog ends before it": func(p *event.Position) { p.Time.T += 3600 },
		"of another term":          func(p *event.Position) { p.Term += 2 },
		"no entry in its place":    func(p *event.Position) { p.Time.I += 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) { anotherHistoryTest(t, move) })
	}
}

func anotherHistoryTest(t *testing.T, move func(*event.Position)) {
	source := testenv.RequireMongoD(t).NewSource(t)
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	service := start(t, cfg)
	untilNow(t, cfg, source)
	service.stop()
	if err := work(t.Context(), source.Client.Database("shop").Collection("orders"), 0, 3); err != nil {
		t.Fatal(err)
	}
	p := loadPosition(t, cfg)
	move(&p)
	client, err := kafka.NewClient(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	record, err := state.Record(route.TopicsOf(cfg.Pipeline).State, state.KeyPosition(), state.CapturePosition{
		ReadFrom: p, PublishedThrough: p, Watermark: p.Time, Partitions: testPartitions,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := start(t, cfg).wait(); !errors.Is(err, ErrHistoryLost) {
		t.Fatalf("error %v, want ErrHistoryLost", err)
	} else {
		t.Log(err)
	}
}

// TestOplogRollsOverUnderAStalledCapture: Kafka takes nothing while the source's
// oplog goes on past where capture stands.
func TestOplogRollsOverUnderAStalledCapture(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Fresh(), testenv.OplogMB(20), testenv.Args("--syncdelay", "1"))
	broker := testenv.StandIn(t)
	var stalled atomic.Bool
	broker.Cluster.ControlKey(kmsg.Produce.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster.KeepControl()
		if !stalled.Load() {
			return nil, nil, false
		}
		return refuseProduce(req, kerr.NotEnoughReplicas.Code), nil, true
	})
	cfg := mongoConfig(t, broker, testenv.NewPipeline(t), source)
	cfg.QueueBytes, cfg.TransactionTimeout = minQueueBytes, 5*time.Second
	service := start(t, cfg)
	untilNow(t, cfg, source)
	stalled.Store(true)
	oplog := source.Client.Database("local").Collection("oplog.rs")
	filler := source.Client.Database("shop").Collection("filler")
	fill := func(n int) error {
		for range n {
			if _, err := filler.InsertOne(t.Context(), bson.D{{Key: "b", Value: make([]byte, 4<<20)}}); err != nil {
				return err
			}
		}
		return nil
	}
	// More than capture has room for, and what a cursor holds.
	if err := fill(20); err != nil {
		t.Fatal(err)
	}
	beyond, err := mongodb.LatestTime(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 2*time.Minute, func() error {
		if err := fill(5); err != nil {
			return err
		}
		err := oplog.FindOne(t.Context(), bson.D{{Key: "ts", Value: bson.D{{Key: "$lte", Value: beyond}}}}).Err()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return nil
		}
		return errors.New("the oplog has not rolled over yet")
	})
	stalled.Store(false)
	if err := service.wait(); !errors.Is(err, ErrHistoryLost) {
		t.Fatalf("error %v, want ErrHistoryLost", err)
	}
}
