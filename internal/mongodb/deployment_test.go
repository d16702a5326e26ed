package mongodb_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	driverevent "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

func TestDescribe(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		one, other := m.NewSource(t), m.NewDestination(t)
		ids := map[string]bool{}
		for range 2 {
			for _, server := range []*testenv.Mongo{one, other} {
				d, err := mongodb.Describe(t.Context(), server.Client)
				if err != nil {
					t.Fatal(err)
				}
				if len(d.ID) != 24 || d.Version != server.Version || d.Standin == m.Exact || d.Standalone || d.Sharded || d.MaxWireVersion < 9 {
					t.Errorf("described as %+v", d)
				}
				if m.Exact && d.SetName == "" {
					t.Error("no replica set name")
				}
				if err := cmp.Or(d.CheckSource(), d.CheckOplog()); err != nil {
					t.Errorf("cannot be a source: %v", err)
				}
				if err := d.CheckStream(); (err == nil) != m.Exact {
					t.Errorf("followed by a change stream: %v", err)
				}
				if readable, err := mongodb.OplogReadable(t.Context(), server.Client, d); err != nil || !readable {
					t.Errorf("its oplog is readable: %t, %v", readable, err)
				}
				ids[d.ID] = true
			}
		}
		if len(ids) != 2 {
			t.Errorf("two deployments, asked twice, gave the ids %v", ids)
		}
	})
}

func TestCheckSource(t *testing.T) {
	for name, test := range map[string]struct {
		d    mongodb.Deployment
		want string
	}{
		"standalone": {mongodb.Deployment{Standalone: true}, "rs.initiate()"},
		"sharded":    {mongodb.Deployment{Sharded: true, VersionArray: []int{4, 4, 0, 0}}, ""},
		"old":        {mongodb.Deployment{Version: "4.2.1", VersionArray: []int{4, 2, 1, 0}}, "upgrade"},
		"good":       {mongodb.Deployment{VersionArray: []int{8, 0, 0, 0}}, ""},
		"stand-in":   {mongodb.Deployment{Standin: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.d.CheckSource()
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			kind, ok := errors.AsType[*mongodb.UnsuitableError](err)
			if !ok || !strings.Contains(err.Error(), test.want) || kind.Part != "source" {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		server := m.NewSource(t, testenv.Fresh())
		before, err := mongodb.MajorityTime(t.Context(), server.Client)
		if err != nil || before.IsZero() {
			t.Fatalf("majority time %v: %v", before, err)
		}
		if _, err := server.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
			t.Fatal(err)
		}
		latest, err := mongodb.LatestTime(t.Context(), server.Client)
		if err != nil || event.CompareTimes(latest, before) <= 0 {
			t.Errorf("latest time %v after a write, %v before: %v", latest, before, err)
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			now, err := mongodb.MajorityTime(t.Context(), server.Client)
			if err == nil && event.CompareTimes(now, latest) < 0 {
				err = fmt.Errorf("majority time is %v, the write's %v", now, latest)
			}
			return err
		})
	})
}

func TestListCollections(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		server := m.NewSource(t)
		ctx := t.Context()
		for _, ns := range []event.Namespace{{DB: "shop", Coll: "orders"}, {DB: "shop", Coll: "a.b"}, {DB: "hr", Coll: "people"}, {DB: "tributary", Coll: "x"}} {
			if _, err := server.Client.Database(ns.DB).Collection(ns.Coll).InsertOne(ctx, bson.D{{Key: "_id", Value: "x"}}); err != nil {
				t.Fatal(err)
			}
		}
		shop := server.Client.Database("shop")
		index := bson.D{{Key: "createIndexes", Value: "orders"}, {Key: "indexes", Value: bson.A{
			bson.D{{Key: "key", Value: bson.D{{Key: "b", Value: 1}, {Key: "a", Value: -1}}}, {Key: "name", Value: "b_a"}, {Key: "unique", Value: true}},
		}}}
		if err := shop.RunCommand(ctx, index).Err(); err != nil {
			t.Fatal(err)
		}
		if err := shop.CreateCollection(ctx, "log", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20)); err != nil {
			t.Fatal(err)
		}
		if m.Exact {
			if err := shop.CreateView(ctx, "open", "orders", bson.A{}); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := mongodb.ListCollections(ctx, server.Client, func(_, coll string) bool { return coll != "people" })
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.NS.String())
			checkEntry(t, m, e)
		}
		want := "shop.a.b shop.log shop.orders"
		if m.Exact {
			want = "shop.a.b shop.log shop.open shop.orders"
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("listed %s, want %s", text, want)
		}
	})
}

func checkEntry(t *testing.T, m testenv.MongoDB, e mongodb.CatalogEntry) {
	t.Helper()
	indexes := map[string]int{"orders": 2, "open": 0}
	want, ok := indexes[e.NS.Coll]
	if !ok {
		want = 1
	}
	if len(e.Indexes) != want {
		t.Errorf("%s has %d indexes, want %d", e.NS, len(e.Indexes), want)
	}
	if e.Capped() != (e.NS.Coll == "log") || e.View != (e.NS.Coll == "open") || e.Options == nil {
		t.Errorf("%s: capped=%t view=%t", e.NS, e.Capped(), e.View)
	}
	if m.Exact && e.UUID.IsZero() != e.View {
		t.Errorf("%s has the UUID %s", e.NS, e.UUID)
	}
	if e.NS.Coll == "orders" {
		if name, _ := e.Indexes[1].Lookup("name").StringValueOK(); name != "b_a" {
			t.Errorf("second index is %s", e.Indexes[1])
		}
	}
}

func TestProbeTransactions(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		server := m.NewDestination(t)
		for range 2 {
			works, reason, err := mongodb.ProbeTransactions(t.Context(), server.Client)
			if err != nil || works != m.Exact || reason == "" {
				t.Errorf("works=%t reason=%q: %v", works, reason, err)
			}
		}
		n, err := server.Client.Database("tributary").Collection("probe").CountDocuments(t.Context(), bson.D{})
		if err != nil || n != 0 {
			t.Errorf("%d documents of the probe stayed: %v", n, err)
		}
	})
}

// TestProbeTransactionsStopped: a probe that is cut short says nothing about the
// server, whatever the driver makes of it.
func TestProbeTransactionsStopped(t *testing.T) {
	server := testenv.RequireMongoD(t).NewDestination(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI).SetMonitor(&driverevent.CommandMonitor{
		Started: func(_ context.Context, e *driverevent.CommandStartedEvent) {
			if e.CommandName == "insert" {
				cancel()
			}
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	if works, reason, err := mongodb.ProbeTransactions(ctx, client); works || reason != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("works=%t reason=%q: %v", works, reason, err)
	}
}

func TestProbeBoundedFind(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		server := m.NewSource(t)
		coll := server.Client.Database("shop").Collection("probed")
		for n := range 4 {
			works, err := mongodb.ProbeBoundedFind(t.Context(), coll)
			if err != nil || works != (m.Exact && n > 0) {
				t.Errorf("with %d documents: works=%t: %v", n, works, err)
			}
			if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: n * 10}}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestDescribeSharded(t *testing.T) {
	server := testenv.RequireMongoD(t).NewSource(t, testenv.Shards(1))
	d, err := mongodb.Describe(t.Context(), server.Client)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Sharded || d.Standalone || len(d.ID) != 24 {
		t.Errorf("described as %+v", d)
	}
	if err := d.CheckOplog(); err == nil || !strings.Contains(err.Error(), "sharded cluster") {
		t.Errorf("error %v", err)
	}
	if err := d.CheckStream(); err != nil {
		t.Errorf("cannot be followed by a change stream: %v", err)
	}
	if readable, err := mongodb.OplogReadable(t.Context(), server.Client, d); err != nil || readable {
		t.Errorf("its oplog is readable: %t, %v", readable, err)
	}
	if now, err := mongodb.MajorityTime(t.Context(), server.Client); err != nil || now.IsZero() {
		t.Errorf("time %v, %v", now, err)
	}
	works, reason, err := mongodb.ProbeTransactions(t.Context(), server.Client)
	if err != nil || !works {
		t.Errorf("transactions work=%t %s: %v", works, reason, err)
	}
}
