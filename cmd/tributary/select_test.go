package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// TestSelectionChanges restarts a pipeline with another selection, twice,
// while the source is written to: what is added is loaded beside the changes,
// what is taken out stays as it was, and what is added again comes anew.
func TestSelectionChanges(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	source, copied := m.NewSource(t), m.NewDestination(t)
	for _, name := range []string{"shop.orders", "shop.items", "crm.customers"} {
		coll := collectionOf(source.Client, name)
		if _, err := coll.InsertMany(t.Context(), numbered(0, 20)); err != nil {
			t.Fatal(err)
		}
		if _, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	pipeline := testenv.NewPipeline(t)
	path := func(include, own, more string) string {
		return file(t, fmt.Sprintf(`name: %s
source: {uri: %q}
kafka: {brokers: [%q], replication_factor: 1, min_insync_replicas: 1, partitions: 2, snapshot_partitions: 1}
select: {include: [%s]}
destinations: [{name: copy, uri: %q, select: {include: [%s]}%s}]
http: {address: "127.0.0.1:0"}
`, pipeline, source.URI, broker.Brokers[0], include, copied.URI, own, more))
	}
	writing, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return keepWriting(writing, source.Client, "shop.orders", "shop.items", "crm.customers") })
	for _, step := range []struct {
		include, own string
		held         []string
	}{
		{`"shop.*"`, `"*.*"`, []string{"shop.orders", "shop.items"}},
		// crm joins, shop.items goes.
		{`"shop.*", "crm.*"`, `"shop.orders", "crm.*"`, []string{"shop.orders", "crm.customers"}},
		// crm goes, shop.items comes again.
		{`"shop.*", "crm.*"`, `"shop.*"`, []string{"shop.orders", "shop.items"}},
	} {
		config := path(step.include, step.own, "")
		run := start(t, nil, "run", "-config", config)
		awaitApplied(t, run)
		awaitHeld(t, copied.Client, run, step.held...)
		if code := run.end(t); code != 0 {
			t.Fatalf("%+v: exit code %d\n%s", step, code, run.stderr)
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if count(t, copied.Client, "crm.customers") == 0 {
		t.Error("what was selected once is gone from the destination")
	}
	last := path(`"shop.*", "crm.*", "*.audit"`, `"shop.*", "*.audit"`, "")
	run := start(t, nil, "run", "-config", last)
	awaitApplied(t, run)
	// What is created later comes as it matches, here in a database of its own.
	if err := source.Client.Database("fresh").CreateCollection(t.Context(), "audit", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fresh.audit", "fresh.unselected"} {
		if _, err := collectionOf(source.Client, name).Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "tags", Value: -1}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := collectionOf(source.Client, name).InsertMany(t.Context(), numbered(0, 5)); err != nil {
			t.Fatal(err)
		}
	}
	checkEqual(t, run, last, "copy")
	if held, unselected := count(t, copied.Client, "fresh.audit"), count(t, copied.Client, "fresh.unselected"); held != 5 || unselected != 0 {
		t.Errorf("%d and %d documents of what came later, want 5 and 0", held, unselected)
	}
	if code := run.end(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, run.stderr)
	}
	fails(t, 1, []string{"other rules", "renames, indexes, sync or start", "hint:"}, "apply", "-config", path(`"shop.*"`, `"*.*"`, ", rename: {databases: {shop: sold}}"))
	// What the destination holds of its own is not touched.
	if _, err := collectionOf(source.Client, "own.notes").InsertMany(t.Context(), numbered(0, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := collectionOf(copied.Client, "own.notes").InsertMany(t.Context(), numbered(5, 6)); err != nil {
		t.Fatal(err)
	}
	fails(t, 1, []string{"own.notes: it exists and holds documents that this pipeline did not load", "hint: drop it"}, "apply", "-config", path(`"*.*"`, `"*.*"`, ""))
}

func collectionOf(client *mongo.Client, name string) *mongo.Collection {
	var db, coll string
	for i := range name {
		if name[i] == '.' {
			db, coll = name[:i], name[i+1:]
			break
		}
	}
	return client.Database(db).Collection(coll)
}

func count(t *testing.T, client *mongo.Client, name string) int64 {
	t.Helper()
	n, err := collectionOf(client, name).CountDocuments(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keepWriting changes collections, a bit at a time, until ctx ends.
func keepWriting(ctx context.Context, client *mongo.Client, names ...string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 100; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, name := range names {
			coll := collectionOf(client, name)
			_, err := coll.InsertOne(ctx, bson.D{{Key: "_id", Value: n}, {Key: "n", Value: n}})
			if err == nil {
				_, err = coll.UpdateOne(ctx, bson.D{{Key: "_id", Value: n % 20}}, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
			}
			if err == nil && n%5 == 0 {
				_, err = coll.DeleteOne(ctx, bson.D{{Key: "_id", Value: n - 3}})
			}
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// awaitHeld waits until collections are loaded: their indexes come last, also
// those of a collection that comes again.
func awaitHeld(t *testing.T, client *mongo.Client, b *background, names ...string) {
	t.Helper()
	testenv.Eventually(t, 2*time.Minute, func() error {
		for _, name := range names {
			indexes, err := collectionOf(client, name).Indexes().ListSpecifications(t.Context())
			if err != nil {
				return err
			}
			if len(indexes) < 2 {
				return fmt.Errorf("%s has %d indexes\n%s", name, len(indexes), b.stderr)
			}
		}
		return nil
	})
}
