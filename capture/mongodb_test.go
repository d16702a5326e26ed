package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// mongoConfig is a service over real engines.
func mongoConfig(t testing.TB, broker testenv.Broker, pipeline string, source *testenv.Mongo) Config {
	t.Helper()
	cfg := testConfig(t, broker, pipeline, nil)
	cfg.Source = mongodb.Options{URI: source.URI}
	return cfg
}

// untilNow waits until capture has passed what the source has written.
func untilNow(t testing.TB, cfg Config, source *testenv.Mongo) {
	t.Helper()
	now, err := mongodb.LatestTime(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	until(t, cfg, now)
}

// history is what happened to each document, in order: "op n".
type history map[string][]string

func (h history) add(id any, what string, n int) {
	key := fmt.Sprint(id)
	h[key] = append(h[key], fmt.Sprintf("%s %d", what, n))
}

// captured is the history that the topic tells of shop.orders.
func captured(t testing.TB, cfg Config) history {
	t.Helper()
	h := history{}
	for _, r := range committed(t, cfg) {
		h.take(t, &r.event)
	}
	return h
}

// take takes down what an event does to a document of shop.orders.
func (h history) take(t testing.TB, e *event.Event) {
	t.Helper()
	if !e.Op.IsData() || e.NS.String() != "shop.orders" {
		return
	}
	id, ok := e.ID().AsInt64OK()
	if !ok {
		t.Fatalf("%s has another _id than was written", e)
	}
	switch e.Op {
	case event.OpInsert:
		n, _ := e.Document.Lookup("n").AsInt64OK()
		h.add(id, "insert", int(n))
	case event.OpUpdate, event.OpReplace: // a stand-in logs whole images
		h.add(id, "update", 0)
	case event.OpDelete:
		h.add(id, "delete", 0)
	default:
	}
}

// work writes the life of documents first to first+count-1, one after another:
// insert, two updates, and a delete of every third.
func work(ctx context.Context, coll *mongo.Collection, first, count int) error {
	for i := first; i < first+count; i++ {
		id := bson.D{{Key: "_id", Value: int64(i)}}
		if _, err := coll.InsertOne(ctx, append(id, bson.E{Key: "n", Value: int64(i)})); err != nil {
			return err
		}
		for u := range 2 {
			set := bson.D{{Key: "$set", Value: bson.D{{Key: "u", Value: int64(u + 1)}}}}
			if _, err := coll.UpdateOne(ctx, id, set); err != nil {
				return err
			}
		}
		if i%3 == 0 {
			if _, err := coll.DeleteOne(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// expected is what work leaves in the history.
func expected(first, count int) history {
	h := history{}
	for i := first; i < first+count; i++ {
		h.add(i, "insert", i)
		h.add(i, "update", 0)
		h.add(i, "update", 0)
		if i%3 == 0 {
			h.add(i, "delete", 0)
		}
	}
	return h
}

func compareHistories(t testing.TB, got, want history) {
	t.Helper()
	for id, w := range want {
		if g := got[id]; !slices.Equal(g, w) {
			t.Errorf("document %s: %v, want %v", id, g, w)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			t.Errorf("document %s was never written", id)
		}
	}
}

func TestSourceIsCapturedUnderKills(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRand(t)
		source := e.NewSource(t)
		cfg := mongoConfig(t, e.Broker, e.Pipeline, source)
		var client atomic.Pointer[kgo.Client]
		cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
		coll := source.Client.Database("shop").Collection("orders")
		if err := source.Client.Database("shop").CreateCollection(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		service := start(t, cfg)
		untilNow(t, cfg, source)
		const writers, perWriter = 3, 60
		var g errgroup.Group
		for w := range writers {
			g.Go(func() error { return work(t.Context(), coll, w*1000, perWriter) })
		}
		for range 3 {
			timer := time.NewTimer(time.Duration(100+r.IntN(400)) * time.Millisecond)
			<-timer.C
			service.kill(client.Load())
			service = start(t, cfg)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		untilNow(t, cfg, source)
		service.stop()
		want := history{}
		for w := range writers {
			for id, what := range expected(w*1000, perWriter) {
				want[id] = what
			}
		}
		compareHistories(t, captured(t, cfg), want)
	})
}

// TestOtherDeploymentIsRefused: a second source under the same name ends in one
// message, before anything is published.
func TestOtherDeploymentIsRefused(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		first, second := e.NewSource(t), e.NewSource(t)
		cfg := mongoConfig(t, e.Broker, e.Pipeline, first)
		service := start(t, cfg)
		untilNow(t, cfg, first)
		service.stop()
		cfg.Source.URI = second.URI
		if err := start(t, cfg).wait(); !errors.Is(err, ErrOtherSource) {
			t.Fatalf("error %v, want ErrOtherSource", err)
		}
	})
}

// TestSourceRestarts: the source goes away for a while; capture says so and goes
// on where it was.
func TestSourceRestarts(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	source := mongod.NewSource(t)
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	service := start(t, cfg)
	coll := source.Client.Database("shop").Collection("orders")
	untilNow(t, cfg, source)
	if err := work(t.Context(), coll, 0, 20); err != nil {
		t.Fatal(err)
	}
	untilNow(t, cfg, source)
	for _, server := range source.Servers() {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, 30*time.Second, func() error { return work(t.Context(), coll, 1000, 0) })
	testenv.Eventually(t, 30*time.Second, func() error {
		_, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: int64(5000)}, {Key: "n", Value: int64(5000)}})
		return err
	})
	untilNow(t, cfg, source)
	service.stop()
	want := expected(0, 20)
	want.add(5000, "insert", 5000)
	compareHistories(t, captured(t, cfg), want)
}

// TestDDLIsCaptured on a real server: in its place in every partition, and a
// capped collection keeps its order.
func TestDDLIsCaptured(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	source := mongod.NewSource(t)
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	db := source.Client.Database("shop")
	ctx := t.Context()
	if err := db.CreateCollection(ctx, "before", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20)); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)
	steps := []func() error{
		func() error { return db.CreateCollection(ctx, "orders") },
		func() error {
			return db.CreateCollection(ctx, "log", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20))
		},
		func() error { return work(ctx, db.Collection("orders"), 0, 5) },
		func() error {
			_, err := db.Collection("orders").Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}}})
			return err
		},
		func() error { return db.Collection("orders").Indexes().DropOne(ctx, "n_1") },
		func() error {
			for i := range 30 {
				for _, coll := range []string{"before", "log"} {
					if _, err := db.Collection(coll).InsertOne(ctx, bson.D{{Key: "_id", Value: i}}); err != nil {
						return err
					}
				}
			}
			return nil
		},
		func() error {
			return source.Client.Database("admin").RunCommand(ctx, bson.D{{Key: "renameCollection", Value: "shop.orders"}, {Key: "to", Value: "shop.sold"}}).Err()
		},
		func() error { return db.Collection("sold").Drop(ctx) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	untilNow(t, cfg, source)
	service.stop()

	want := []string{
		"create shop.orders", "create shop.log", "create_indexes shop.orders", "drop_indexes shop.orders",
		"rename shop.orders", "drop shop.sold",
	}
	var ddl [testPartitions][]string
	capped := map[string]map[int32]bool{"before": {}, "log": {}}
	for _, r := range committed(t, cfg) {
		if r.event.Op.IsDDL() {
			ddl[r.partition] = append(ddl[r.partition], fmt.Sprintf("%s %s", r.event.Op, r.event.NS))
		}
		if partitions, ok := capped[r.event.NS.Coll]; ok && r.event.Op == event.OpInsert {
			partitions[r.partition] = true
		}
	}
	for p := range ddl {
		if !slices.Equal(ddl[p], want) {
			t.Errorf("partition %d has %s, want %s", p, strings.Join(ddl[p], ", "), strings.Join(want, ", "))
		}
	}
	for coll, partitions := range capped {
		if len(partitions) != 1 {
			t.Errorf("capped collection %s is in %d partitions, want 1", coll, len(partitions))
		}
	}
}

// TestOplogRolledOver on a real server, in both modes: the gap is named and nothing is
// published across it.
func TestOplogRolledOver(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	// The oplog is cut off up to the last checkpoint only, so these come quickly.
	source := mongod.NewSource(t, testenv.Fresh(), testenv.OplogMB(20), testenv.Args("--syncdelay", "1"))
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	stream := streamConfig(t, testenv.StandIn(t), source)
	for _, cfg := range []Config{cfg, stream} {
		service := start(t, cfg)
		untilNow(t, cfg, source)
		service.stop()
	}
	position := loadPosition(t, stream)
	oplog := source.Client.Database("local").Collection("oplog.rs")
	blob := strings.Repeat("x", 4<<20)
	filler := source.Client.Database("shop").Collection("filler")
	for range 40 {
		if _, err := filler.InsertOne(t.Context(), bson.D{{Key: "b", Value: blob}}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		if _, err := filler.InsertOne(t.Context(), bson.D{}); err != nil {
			return err
		}
		err := oplog.FindOne(t.Context(), bson.D{{Key: "ts", Value: position.Time}}).Err()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return nil
		}
		return errors.New("the position is still in the oplog")
	})
	for _, cfg := range []Config{cfg, stream} {
		if err := start(t, cfg).wait(); !errors.Is(err, ErrHistoryLost) {
			t.Errorf("mode %q: error %v, want ErrHistoryLost", cfg.Mode, err)
		}
	}
}
