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

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// streamConfig follows a real deployment by a change stream.
func streamConfig(t testing.TB, broker testenv.Broker, source *testenv.Mongo) Config {
	t.Helper()
	cfg := mongoConfig(t, broker, testenv.NewPipeline(t), source)
	cfg.Mode = ModeChangeStream
	cfg.CatalogInterval = 50 * time.Millisecond
	return cfg
}

// checkOrder checks what must hold for every partition: positions ascend, and
// nothing stands behind a watermark of its time. It returns the DDL events, which
// are the same in all partitions.
func checkOrder(t testing.TB, cfg Config) []string {
	t.Helper()
	var ddl [testPartitions][]string
	var last [testPartitions]event.Position
	var marks [testPartitions]bson.Timestamp
	for _, r := range committed(t, cfg) {
		e := &r.event
		if e.Op == event.OpWatermark {
			if event.CompareTimes(last[r.partition].Time, e.Position.Time) > 0 {
				t.Errorf("partition %d: watermark %v stands behind %s", r.partition, e.Position.Time, last[r.partition])
			}
			marks[r.partition] = e.Position.Time
			continue
		}
		if e.Op == event.OpReload || e.Op == event.OpReloadEnd || e.Op == event.OpRefresh {
			continue // of capture's own, at a place that has passed
		}
		if e.Source.Mode != ModeChangeStream {
			t.Errorf("%s says mode %s", e, e.Source.Mode)
		}
		if last[r.partition].Compare(e.Position) >= 0 || event.CompareTimes(marks[r.partition], e.Position.Time) >= 0 {
			t.Errorf("partition %d: %s does not follow %s and watermark %v", r.partition, e, last[r.partition], marks[r.partition])
		}
		last[r.partition] = e.Position
		if e.Op.IsDDL() {
			ddl[r.partition] = append(ddl[r.partition], fmt.Sprintf("%s %s %s", e.Op, e.NS, withoutIDIndex(e.DDL)))
		}
	}
	for p := range ddl {
		if !slices.Equal(ddl[p], ddl[0]) {
			t.Errorf("partition %d has DDL %s, partition 0 %s", p, ddl[p], ddl[0])
		}
	}
	return ddl[0]
}

func withoutIDIndex(ddl bson.Raw) string {
	var d bson.D
	if err := bson.Unmarshal(ddl, &d); err != nil {
		return err.Error()
	}
	d = slices.DeleteFunc(d, func(e bson.E) bool { return e.Key == "idIndex" || e.Key == "spec" })
	text, err := bson.MarshalExtJSON(d, false, false)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// transact writes documents in transactions of three, several events of one
// cluster time.
func transact(ctx context.Context, client *mongo.Client, first, count int) error {
	coll := client.Database("shop").Collection("orders")
	return client.UseSession(ctx, func(ctx context.Context) error {
		session := mongo.SessionFromContext(ctx)
		for i := first; i < first+count; i += 3 {
			_, err := session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
				for j := i; j < min(i+3, first+count); j++ {
					if err := work(ctx, coll, j, 1); err != nil {
						return nil, err
					}
				}
				return nil, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// TestStreamUnderKills: events once and in order, transactions among them, while
// the service is killed without any goodbye.
func TestStreamUnderKills(t *testing.T) {
	r := newRand(t)
	source := testenv.RequireMongoD(t).NewSource(t)
	cfg := streamConfig(t, testenv.StandIn(t), source)
	cfg.DrainTimeout = time.Nanosecond
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
		g.Go(func() error {
			if w == 0 {
				return transact(t.Context(), source.Client, 0, perWriter)
			}
			return work(t.Context(), coll, w*1000, perWriter)
		})
	}
	for range 4 {
		timer := time.NewTimer(time.Duration(50+r.IntN(300)) * time.Millisecond)
		<-timer.C
		client.Load().Close()
		service.cancel()
		if err := service.wait(); err != nil {
			t.Fatal(err)
		}
		service = start(t, cfg)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	untilNow(t, cfg, source)
	cfg.DrainTimeout = DefaultDrainTimeout
	service.stop()
	want := history{}
	for w := range writers {
		for id, what := range expected(w*1000, perWriter) {
			want[id] = what
		}
	}
	compareHistories(t, captured(t, cfg), want)
	if ddl := checkOrder(t, cfg); len(ddl) > 0 {
		t.Errorf("DDL %s, want none: the collection was there before", ddl)
	}
	if at := position(t, cfg); len(at.ResumeToken) == 0 {
		t.Error("no resume token is stored")
	}
}

// TestStreamSurvivesElections: a new primary is an everyday event.
func TestStreamSurvivesElections(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Members(3))
	cfg := streamConfig(t, testenv.StandIn(t), source)
	service := start(t, cfg)
	untilNow(t, cfg, source)
	coll := source.Client.Database("shop").Collection("orders")
	want := history{}
	for round := range 2 {
		if err := work(t.Context(), coll, round*100, 10); err != nil {
			t.Fatal(err)
		}
		for id, what := range expected(round*100, 10) {
			want[id] = what
		}
		// The answer may be lost with the connection.
		err := source.Client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "replSetStepDown", Value: 10}, {Key: "force", Value: true}}).Err()
		if err != nil && !mongo.IsNetworkError(err) {
			t.Fatal(err)
		}
		id := int64(1000 + round)
		testenv.Eventually(t, time.Minute, func() error {
			_, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}, {Key: "n", Value: id}})
			if mongo.IsDuplicateKeyError(err) {
				return nil
			}
			return err
		})
		want.add(id, "insert", int(id))
		untilNow(t, cfg, source)
	}
	service.stop()
	compareHistories(t, captured(t, cfg), want)
	checkOrder(t, cfg)
}

// TestStreamOfShardedCluster: one stream over all shards, also of transactions
// across them.
func TestStreamOfShardedCluster(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Shards(2))
	cfg := streamConfig(t, testenv.StandIn(t), source)
	cfg.Mode = ModeAuto
	admin := source.Client.Database("admin")
	for _, command := range []bson.D{
		{{Key: "enableSharding", Value: "shop"}},
		{{Key: "shardCollection", Value: "shop.orders"}, {Key: "key", Value: bson.D{{Key: "_id", Value: "hashed"}}}},
	} {
		if err := admin.RunCommand(t.Context(), command).Err(); err != nil {
			t.Fatal(err)
		}
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)
	coll := source.Client.Database("shop").Collection("orders")
	if err := work(t.Context(), coll, 0, 40); err != nil {
		t.Fatal(err)
	}
	if err := transact(t.Context(), source.Client, 1000, 12); err != nil {
		t.Fatal(err)
	}
	service.stop()
	service = start(t, cfg)
	if err := work(t.Context(), coll, 2000, 10); err != nil {
		t.Fatal(err)
	}
	untilNow(t, cfg, source)
	service.stop()
	want := expected(0, 40)
	for _, more := range []history{expected(1000, 12), expected(2000, 10)} {
		for id, what := range more {
			want[id] = what
		}
	}
	compareHistories(t, captured(t, cfg), want)
	checkOrder(t, cfg)
	compareHistories(t, inShards(t, source), want)
}

// inShards decodes the oplogs of a cluster's shards, in which transactions across
// them are prepared ones.
func inShards(t *testing.T, source *testenv.Mongo) history {
	t.Helper()
	h := history{}
	for i, shard := range source.Sharded().Shards {
		cursor, err := direct(t, shard.Members[0]).Database("local").Collection("oplog.rs").Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		var entries []bson.Raw
		if err := cursor.All(t.Context(), &entries); err != nil {
			t.Fatal(err)
		}
		prepared := 0
		for _, entry := range entries {
			if p, _ := entry.Lookup("o", "prepare").BooleanOK(); p {
				prepared++
			}
		}
		if prepared == 0 {
			t.Errorf("shard %d: no transaction was prepared", i)
		}
		d := oplog.Decoder{Select: func(db, _ string) bool { return db == "shop" }}
		events, err := d.DecodeHistory(entries)
		if err != nil {
			t.Fatal(err)
		}
		for i := range events {
			h.take(t, &events[i])
		}
	}
	return h
}

// TestCatalogIsCompared: before 6.0 a change stream does not tell of what is
// created and changed, which arrives all the same: collections before their first
// event, with their options, the rest soon.
func TestCatalogIsCompared(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t)
	cfg := streamConfig(t, testenv.StandIn(t), source)
	ctx := t.Context()
	db := source.Client.Database("shop")
	command := func(d bson.D) func() error { return func() error { return db.RunCommand(ctx, d).Err() } }
	insert := func(coll string, id int) func() error {
		return func() error {
			_, err := db.Collection(coll).InsertOne(ctx, bson.D{{Key: "_id", Value: id}})
			return err
		}
	}
	if err := db.CreateCollection(ctx, "before"); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	untilNow(t, cfg, source)
	var want []string
	step := func(wanted []string, do ...func() error) {
		t.Helper()
		for _, f := range do {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, wanted...)
		testenv.Eventually(t, time.Minute, func() error {
			// An idle source moves every ten seconds only.
			if _, err := db.Collection("unselected").InsertOne(ctx, bson.D{}); err != nil {
				return err
			}
			if got := checkOrder(t, cfg); !slices.Equal(got, want) {
				return fmt.Errorf("DDL is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return nil
		})
	}
	step([]string{
		`create shop.log {"create":"log","capped":true,"size":1048576}`,
		`create shop.names {"create":"names","collation":{"locale":"en","caseLevel":false,"caseFirst":"off","strength":2,"numericOrdering":false,"alternate":"non-ignorable","maxVariable":"punct","normalization":false,"backwards":false,"version":"57.1"}}`,
	},
		func() error {
			return db.CreateCollection(ctx, "log", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20))
		},
		insert("log", 1), insert("log", 2),
		func() error {
			return db.CreateCollection(ctx, "names", options.CreateCollection().SetCollation(&options.Collation{Locale: "en", Strength: 2}))
		},
		insert("names", 1))
	step([]string{`create_indexes shop.before {"createIndexes":"before","indexes":[{"v":2,"key":{"a":1},"name":"a_1","expireAfterSeconds":100}]}`},
		command(bson.D{{Key: "createIndexes", Value: "before"}, {Key: "indexes", Value: bson.A{bson.D{{Key: "key", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "name", Value: "a_1"}, {Key: "expireAfterSeconds", Value: 100}}}}}))
	step([]string{`modify shop.before {"collMod":"before","index":{"name":"a_1","expireAfterSeconds":200}}`},
		command(bson.D{{Key: "collMod", Value: "before"}, {Key: "index", Value: bson.D{{Key: "name", Value: "a_1"}, {Key: "expireAfterSeconds", Value: 200}}}}))
	service.stop()
	service = start(t, cfg) // what changes meanwhile is found against what was told
	step([]string{
		`modify shop.before {"collMod":"before","validator":{"a":{"$exists":true}},"validationLevel":"moderate","validationAction":"error"}`,
		`drop_indexes shop.before {"dropIndexes":"before","index":"a_1"}`,
	},
		command(bson.D{{Key: "dropIndexes", Value: "before"}, {Key: "index", Value: "a_1"}}),
		command(bson.D{{Key: "collMod", Value: "before"}, {Key: "validator", Value: bson.D{{Key: "a", Value: bson.D{{Key: "$exists", Value: true}}}}}, {Key: "validationLevel", Value: "moderate"}}))
	step([]string{`create shop.seen {"create":"seen","viewOn":"before","pipeline":[]}`}, command(bson.D{{Key: "create", Value: "seen"}, {Key: "viewOn", Value: "before"}, {Key: "pipeline", Value: bson.A{}}}))
	step([]string{`modify shop.seen {"collMod":"seen","viewOn":"log","pipeline":[]}`}, command(bson.D{{Key: "collMod", Value: "seen"}, {Key: "viewOn", Value: "log"}, {Key: "pipeline", Value: bson.A{}}}))
	step([]string{`drop shop.seen {"drop":"seen"}`}, command(bson.D{{Key: "drop", Value: "seen"}}))
	step([]string{
		`create shop.empty {"create":"empty"}`, `rename shop.empty {"renameCollection":"shop.empty","to":"shop.old","dropTarget":true}`, `drop shop.old {"drop":"old"}`,
	},
		command(bson.D{{Key: "create", Value: "empty"}}),
		func() error {
			return source.Client.Database("admin").RunCommand(ctx, bson.D{{Key: "renameCollection", Value: "shop.empty"}, {Key: "to", Value: "shop.old"}}).Err()
		},
		command(bson.D{{Key: "drop", Value: "old"}}))
	service.stop()
	whole := map[string]map[int32]bool{"log": {}, "names": {}}
	for _, r := range committed(t, cfg) {
		if partitions, ok := whole[r.event.NS.Coll]; ok && r.event.Op.IsData() {
			partitions[r.partition] = true
			if !strings.HasSuffix(r.key, "|") {
				t.Errorf("key %q of a collection that is ordered as a whole", r.key)
			}
		}
	}
}

// TestModeIsKept: a pipeline goes on in the mode that it was begun in.
func TestModeIsKept(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t)
	cfg := streamConfig(t, testenv.StandIn(t), source)
	service := start(t, cfg)
	untilNow(t, cfg, source)
	service.stop()
	other := cfg
	other.Mode = ModeOplog
	if err := start(t, other).wait(); !errors.Is(err, ErrOtherMode) || !strings.Contains(err.Error(), "hint: set source.mode to auto or change_stream") {
		t.Fatalf("error %v, want ErrOtherMode", err)
	}
	other.Mode = ModeAuto
	service = start(t, other)
	untilNow(t, cfg, source)
	service.stop()
	checkOrder(t, cfg)
	view, err := state.Load(t.Context(), cfg.Kafka, route.TopicsOf(cfg.Pipeline).State)
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := view.Identity(); id.Mode != ModeChangeStream {
		t.Errorf("mode %s", id.Mode)
	}
}
