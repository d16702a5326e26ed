package verify_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/verify"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// couple is a source and a destination that renames database shop to shop_eu.
type couple struct {
	source, target *mongo.Client
	cfg            verify.Config
}

func newCouple(t *testing.T, m testenv.MongoDB) *couple {
	t.Helper()
	selection, err := rules.CompileSelection([]string{"shop.*", "stats.*"}, []string{"stats.raw"})
	if err != nil {
		t.Fatal(err)
	}
	rename, err := rules.CompileRename(map[string]string{"shop": "shop_eu"})
	if err != nil {
		t.Fatal(err)
	}
	c := &couple{source: m.NewSource(t).Client, target: m.NewDestination(t).Client}
	c.cfg = verify.Config{
		Pipeline: "p", Destination: "eu",
		Source: c.source, Target: c.target,
		Rules: rules.Destination{Selection: selection, Rename: rename},
		Wait:  time.Minute,
	}
	return c
}

// fill writes the same documents to both sides.
func (c *couple) fill(t *testing.T, db, coll string, docs ...any) {
	t.Helper()
	target := db
	if db == "shop" {
		target = "shop_eu"
	}
	for _, to := range []*mongo.Collection{c.source.Database(db).Collection(coll), c.target.Database(target).Collection(coll)} {
		if _, err := to.InsertMany(t.Context(), docs); err != nil {
			t.Fatal(err)
		}
	}
}

// pass writes what apply would have written once it has applied everything.
func (c *couple) pass(t *testing.T) {
	t.Helper()
	c.passTo(t, bson.Timestamp{T: 1<<32 - 1})
}

func (c *couple) passTo(t *testing.T, watermark bson.Timestamp) {
	t.Helper()
	own := c.target.Database("tributary")
	id := bson.D{{Key: "pipeline", Value: "p"}, {Key: "group", Value: "eu"}}
	insert := func(coll string, doc bson.D) {
		if _, err := own.Collection(coll).InsertOne(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	insert("groups", bson.D{{Key: "_id", Value: id}, {Key: "phase", Value: "changes"}, {Key: "change_offsets", Value: bson.A{int64(0), int64(0)}}})
	for partition := range int32(2) {
		insert("offsets", bson.D{
			{Key: "_id", Value: append(slices.Clone(id), bson.E{Key: "topic", Value: "p.changes"}, bson.E{Key: "partition", Value: partition})},
			{Key: "watermark", Value: watermark},
			{Key: "catching_up", Value: false},
		})
	}
}

func (c *couple) run(t *testing.T) *verify.Result {
	t.Helper()
	r, err := verify.Run(t.Context(), c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := verify.WriteTable(&table, r); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	return r
}

// lines are the differences in short.
func lines(r *verify.Result) []string {
	list := make([]string, 0, len(r.Differences))
	for _, d := range r.Differences {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", d.Kind, d.Target, d.ID, d.Detail)))
	}
	return list
}

func numbered(from, to int) []any {
	docs := make([]any, 0, to-from)
	for i := from; i < to; i++ {
		docs = append(docs, bson.D{{Key: "_id", Value: fmt.Sprintf("id-%05d", i)}, {Key: "n", Value: i}})
	}
	return docs
}

func TestEqual(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		c := newCouple(t, m)
		c.fill(t, "shop", "orders", numbered(0, 3000)...)
		c.fill(t, "stats", "days", numbered(0, 10)...)
		// Not selected on one side, somebody else's on the other.
		mustInsert(t, c.source.Database("stats").Collection("raw"), numbered(0, 5))
		mustInsert(t, c.target.Database("other").Collection("things"), numbered(0, 5))
		c.pass(t)
		r := c.run(t)
		if r.Verdict != verify.Equal || r.Verdict.ExitCode() != 0 {
			t.Errorf("verdict %s, cause %q, differences %v; want equal", r.Verdict, r.Cause, lines(r))
		}
		got := map[string]int64{}
		for _, collection := range r.Collections {
			got[collection.Source+">"+collection.Target] = collection.TargetDocuments
		}
		want := map[string]int64{"shop.orders>shop_eu.orders": 3000, "stats.days>stats.days": 10}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("collections (-want +got):\n%s", diff)
		}
	})
}

func mustInsert(t *testing.T, coll *mongo.Collection, docs []any) {
	t.Helper()
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
}

func TestDifferentDocuments(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		c := newCouple(t, m)
		c.fill(t, "shop", "orders", numbered(0, 100)...)
		orders := c.target.Database("shop_eu").Collection("orders")
		if _, err := orders.DeleteOne(t.Context(), bson.D{{Key: "_id", Value: "id-00007"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := orders.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: "id-00008"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: int64(8)}}}}); err != nil {
			t.Fatal(err)
		}
		mustInsert(t, orders, numbered(200, 201))
		mustInsert(t, c.source.Database("stats").Collection("lost"), numbered(0, 1))
		mustInsert(t, c.target.Database("shop_eu").Collection("stray"), numbered(0, 1))
		c.pass(t)
		r := c.run(t)
		want := []string{
			`missing shop_eu.orders {"_id":"id-00007"}`,
			`extra shop_eu.orders {"_id":"id-00200"}`,
			`different shop_eu.orders {"_id":"id-00008"}`,
			`collection_missing stats.lost`,
			`collection_extra shop_eu.stray`,
		}
		if diff := cmp.Diff(want, lines(r)); diff != "" {
			t.Errorf("differences (-want +got):\n%s", diff)
		}
		if r.Verdict != verify.Different || r.Verdict.ExitCode() != 1 {
			t.Errorf("verdict %s (%s), want different", r.Verdict, r.Cause)
		}
	})
}

func TestManyDifferencesAreCountedAndFewListed(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		c := newCouple(t, m)
		c.cfg.Listed = 3
		c.fill(t, "shop", "orders", numbered(0, 10)...)
		mustInsert(t, c.source.Database("shop").Collection("orders"), numbered(10, 500))
		c.pass(t)
		r := c.run(t)
		if got := r.Counts[verify.KindMissing]; got != 490 || len(r.Differences) != 3 {
			t.Errorf("%d counted and %d listed, want 490 and 3", got, len(r.Differences))
		}
	})
}

func TestIndexesAndOptions(t *testing.T) {
	c := newCouple(t, testenv.RequireMongoD(t))
	c.fill(t, "shop", "orders", numbered(0, 10)...)
	index := func(client *mongo.Client, db, name string, opts *options.IndexOptionsBuilder) {
		t.Helper()
		model := mongo.IndexModel{Keys: bson.D{{Key: name, Value: 1}}, Options: opts.SetName(name)}
		if _, err := client.Database(db).Collection("orders").Indexes().CreateOne(t.Context(), model); err != nil {
			t.Fatal(err)
		}
	}
	both := func(name string, source, target *options.IndexOptionsBuilder) {
		t.Helper()
		index(c.source, "shop", name, source)
		index(c.target, "shop_eu", name, target)
	}
	both("same", options.Index().SetSparse(true), options.Index().SetSparse(true))
	both("n", options.Index().SetUnique(true), options.Index())
	both("at", options.Index().SetExpireAfterSeconds(1000), options.Index())
	both("sparse", options.Index().SetSparse(true), options.Index())
	index(c.source, "shop", "lost", options.Index())
	index(c.source, "shop", "late", options.Index())
	index(c.target, "shop_eu", "stray", options.Index())
	create := func(client *mongo.Client, db string, size int64) {
		t.Helper()
		if err := client.Database(db).CreateCollection(t.Context(), "ring", options.CreateCollection().SetCapped(true).SetSizeInBytes(size)); err != nil {
			t.Fatal(err)
		}
	}
	create(c.source, "shop", 1<<20)
	create(c.target, "shop_eu", 1<<21)
	if err := c.source.Database("shop").CreateView(t.Context(), "seen", "orders", bson.A{}); err != nil {
		t.Fatal(err)
	}
	if err := c.target.Database("shop_eu").CreateView(t.Context(), "seen", "orders", bson.A{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.target.Database("tributary").Collection("deferred").InsertOne(t.Context(), bson.D{
		{Key: "_id", Value: bson.D{{Key: "pipeline", Value: "p"}, {Key: "ns", Value: "shop_eu.orders"}, {Key: "index", Value: "late"}}},
		{Key: "reason", Value: "failed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.pass(t)
	r := c.run(t)
	want := []string{
		"options shop_eu.ring  size",
		"indexes shop_eu.orders  index lost exists at the source alone",
		"indexes shop_eu.orders  index sparse differs in sparse",
		"indexes shop_eu.orders  index stray exists at the destination alone",
		"deferred shop_eu.orders  index at is built without expireAfterSeconds",
		"deferred shop_eu.orders  index late waits to be built: failed",
		"deferred shop_eu.orders  index n is built without unique",
	}
	if diff := cmp.Diff(want, lines(r)); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if r.Total() != 4 {
		t.Errorf("%d differences count, want 4", r.Total())
	}
}

func TestCouldNotTell(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		t.Run("nothing applied", func(t *testing.T) {
			c := newCouple(t, m)
			c.fill(t, "shop", "orders", numbered(0, 10)...)
			c.cfg.Wait = time.Second
			expectUnknown(t, c.run(t), "group eu has not begun")
		})
		t.Run("behind", func(t *testing.T) {
			c := newCouple(t, m)
			c.fill(t, "shop", "orders", numbered(0, 10)...)
			c.passTo(t, bson.Timestamp{T: 5})
			c.cfg.Wait = time.Second
			expectUnknown(t, c.run(t), "stands at 5.0")
		})
		t.Run("source written to", func(t *testing.T) {
			c := newCouple(t, m)
			c.fill(t, "shop", "orders", numbered(0, 10)...)
			c.pass(t)
			orders := c.source.Database("shop").Collection("orders")
			c.cfg.Progress = c.onceWhile(func(ctx context.Context) {
				if _, err := orders.UpdateOne(ctx, bson.D{{Key: "_id", Value: "id-00001"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 7}}}}); err != nil {
					t.Error(err)
				}
			})
			expectUnknown(t, c.run(t), "the source was written to meanwhile: ns=shop.orders")
		})
		if m.MongoEngine == testenv.Embedded {
			return // what follows is seen in an oplog that has DDL
		}
		// As a reload does, which makes a collection anew under its name.
		for what, back := range map[string]func(ctx context.Context, db *mongo.Database) error{
			"made":    func(ctx context.Context, db *mongo.Database) error { return db.CreateCollection(ctx, "orders") },
			"renamed": func(ctx context.Context, db *mongo.Database) error { return rename(ctx, db, "away", "orders") },
			"a view": func(ctx context.Context, db *mongo.Database) error {
				return db.CreateView(ctx, "orders", "away", mongo.Pipeline{})
			},
		} {
			t.Run("destination collection is "+what, func(t *testing.T) {
				c := newCouple(t, m)
				c.fill(t, "shop", "orders", numbered(0, 10)...)
				c.pass(t)
				db := c.target.Database("shop_eu")
				if err := rename(t.Context(), db, "orders", "away"); err != nil {
					t.Fatal(err)
				}
				c.cfg.Progress = c.onceWhile(func(ctx context.Context) {
					if err := back(ctx, db); err != nil {
						t.Error(err)
					}
				})
				expectUnknown(t, c.run(t), "the destination was written to meanwhile: ns=shop_eu.orders")
			})
		}
	})
}

func rename(ctx context.Context, db *mongo.Database, from, to string) error {
	return db.Client().Database("admin").RunCommand(ctx, bson.D{{Key: "renameCollection", Value: db.Name() + "." + from}, {Key: "to", Value: db.Name() + "." + to}}).Err()
}

// onceWhile is a progress function that runs fn at its first call.
func (c *couple) onceWhile(fn func(context.Context)) func(verify.Progress) {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	return func(verify.Progress) {
		select {
		case <-first:
			fn(context.Background())
		default:
		}
	}
}

func expectUnknown(t *testing.T, r *verify.Result, cause string) {
	t.Helper()
	if r.Verdict != verify.Unknown || r.Verdict.ExitCode() != 2 || !strings.Contains(r.Cause, cause) {
		t.Errorf("verdict %s, cause %q; want unknown because %q", r.Verdict, r.Cause, cause)
	}
}

func TestErrorWithoutServer(t *testing.T) {
	c := newCouple(t, testenv.MongoDB{MongoEngine: testenv.Embedded})
	gone, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1/?directConnection=true").SetServerSelectionTimeout(100 * time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := gone.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	c.cfg.Source = gone
	if _, err := verify.Run(t.Context(), c.cfg); err == nil {
		t.Errorf("verify without a source: %v, want an error", err)
	}
}
