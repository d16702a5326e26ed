package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// alone writes the configuration of a pipeline whose destinations follow changes
// without a load.
func alone(t *testing.T, name, mode, source, broker string, destinations ...string) string {
	t.Helper()
	return file(t, fmt.Sprintf(`name: %s
source: {uri: %q, mode: %s, catalog_interval: 1s}
kafka: {brokers: [%q], replication_factor: 1, min_insync_replicas: 1, partitions: 2, snapshot_partitions: 1}
select: {include: ["shop.*"]}
destinations: [%s]
http: {address: "127.0.0.1:0"}
retry: {connection: 10m, other: 1m}
`, name, source, mode, broker, strings.Join(destinations, ", ")))
}

// clusterTimeOf is the time of the last operation of a session, as configured.
func clusterTimeOf(t *testing.T, client *mongo.Client, work func(context.Context) error) string {
	t.Helper()
	session, err := client.StartSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.EndSession(t.Context())
	if err := work(mongo.NewSessionContext(t.Context(), session)); err != nil {
		t.Fatal(err)
	}
	at := session.OperationTime()
	return fmt.Sprintf("%d.%d", at.T, at.I)
}

// numbered are documents from one _id to another.
func numbered(from, to int) []any {
	var docs []any
	for i := from; i < to; i++ {
		docs = append(docs, bson.D{{Key: "_id", Value: i}, {Key: "n", Value: i}, {Key: "tags", Value: bson.A{"a", "b"}}})
	}
	return docs
}

// history writes what comes between the copy and the pipeline.
func history(ctx context.Context, db *mongo.Database) error {
	orders := db.Collection("orders")
	_, err := orders.UpdateMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$lt", Value: 8}}}},
		bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 100}}}, {Key: "$push", Value: bson.D{{Key: "tags", Value: "c"}}}})
	if err == nil {
		_, err = orders.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{3, 9}}}}})
	}
	if err == nil {
		_, err = orders.InsertMany(ctx, numbered(20, 25))
	}
	if err == nil {
		_, err = db.Collection("later").InsertMany(ctx, numbered(0, 5))
	}
	if err == nil {
		err = db.Client().Database("admin").RunCommand(ctx, bson.D{
			{Key: "renameCollection", Value: db.Name() + ".moving"}, {Key: "to", Value: db.Name() + ".moved"},
		}).Err()
	}
	return err
}

// TestChangesAlone has destinations that hold a copy of the source follow its
// changes without a load: one as of the time of the copy, one whose copy was
// made while the source went on, and one that joins the running pipeline with
// the time of the first.
func TestChangesAlone(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	for _, mode := range []string{"oplog", "change_stream"} {
		t.Run(mode, func(t *testing.T) {
			source := m.NewSource(t)
			db := source.Client.Database("shop")
			copies := map[string]*testenv.Mongo{}
			for _, name := range []string{"exact", "fuzzy", "joining"} {
				copies[name] = m.NewDestination(t)
			}
			// As a restored backup, with nothing of what came later.
			began := clusterTimeOf(t, source.Client, func(ctx context.Context) error {
				_, err := db.Collection("moving").InsertMany(ctx, numbered(0, 3))
				if err == nil {
					_, err = db.Collection("orders").InsertMany(ctx, numbered(0, 10))
				}
				return err
			})
			for name, c := range copies {
				for coll, docs := range map[string][]any{"moving": numbered(0, 3), "orders": numbered(0, 10)} {
					if _, err := c.Client.Database("shop").Collection(coll).InsertMany(t.Context(), docs); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
			}
			if err := history(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			// As a dump that was read meanwhile: some of it is there already.
			fuzzy := copies["fuzzy"].Client.Database("shop")
			if _, err := fuzzy.Collection("orders").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: 3}}); err != nil {
				t.Fatal(err)
			}
			for _, id := range []int{1, 20} {
				held := db.Collection("orders").FindOne(t.Context(), bson.D{{Key: "_id", Value: id}})
				var doc bson.Raw
				if err := held.Decode(&doc); err != nil {
					t.Fatal(err)
				}
				_, err := fuzzy.Collection("orders").ReplaceOne(t.Context(), bson.D{{Key: "_id", Value: id}}, doc, options.Replace().SetUpsert(true))
				if err != nil {
					t.Fatal(err)
				}
			}
			entry := func(name string) string {
				return fmt.Sprintf("{name: %s, uri: %q, sync: [incremental], start: %q}", name, copies[name].URI, began)
			}
			pipeline := testenv.NewPipeline(t)
			path := alone(t, pipeline, mode, source.URI, broker.Brokers[0], entry("exact"), entry("fuzzy"))
			run := start(t, nil, "run", "-config", path)
			awaitAlone(t, run, 2)
			if _, err := db.Collection("orders").InsertMany(t.Context(), numbered(30, 35)); err != nil {
				t.Fatal(err)
			}
			checkEqual(t, run, path, "exact", "fuzzy")
			if mode != "oplog" {
				return // the rest is the topics' alone
			}
			path = alone(t, pipeline, mode, source.URI, broker.Brokers[0], entry("exact"), entry("fuzzy"), entry("joining"))
			joining := start(t, nil, "apply", "-config", path, "-destination", "joining")
			awaitAlone(t, joining, 1)
			if _, err := db.Collection("orders").InsertMany(t.Context(), numbered(40, 45)); err != nil {
				t.Fatal(err)
			}
			checkEqual(t, joining, path, "joining", "exact")
			code, stdout, _ := call(t, "status", "-config", path)
			if code != 0 || !strings.Contains(stdout, "begun_behind=") {
				t.Errorf("status: exit code %d\n%s", code, stdout)
			}
			fails(t, 2, []string{"no destination takes part in a load"}, "snapshot", "-config", path)
		})
	}
}

// awaitAlone waits until applies follow changes, in a process that has so many.
func awaitAlone(t *testing.T, b *background, applies int) {
	t.Helper()
	address := b.address(t)
	testenv.Eventually(t, 2*time.Minute, func() error {
		statuses, err := statusesOf(t.Context(), address)
		if err != nil {
			return err
		}
		n := 0
		for _, s := range statuses {
			if s.Service == "apply" && s.Phase == state.PhaseChanges && !s.Begin.IsZero() {
				n++
			}
		}
		if n < applies {
			return fmt.Errorf("statuses %+v\n%s", statuses, b.stderr)
		}
		return nil
	})
}

// checkEqual verifies destinations.
func checkEqual(t *testing.T, b *background, path string, destinations ...string) {
	t.Helper()
	for _, name := range destinations {
		code, stdout, stderr := call(t, "verify", "-config", path, "-destination", name)
		if code != 0 {
			t.Fatalf("verify %s: exit code %d\n%s%s\n%s", name, code, stdout, stderr, b.stderr)
		}
	}
}

// TestChangesAloneRefused begins where nothing can begin.
func TestChangesAloneRefused(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	source, copied := m.NewSource(t), m.NewDestination(t)
	path := func(pipeline, start string) string {
		return alone(t, pipeline, "oplog", source.URI, broker.Brokers[0], fmt.Sprintf("{name: copy, uri: %q, sync: [incremental], start: %q}", copied.URI, start))
	}
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	run := start(t, nil, "run", "-config", path(testenv.NewPipeline(t), future))
	if code := run.wait(t); code != 1 || !strings.Contains(run.stderr.String(), "later than the source's present one") {
		t.Errorf("a time to come: exit code %d\n%s", code, run.stderr)
	}
	// A pipeline that runs has begun later than a second destination wants.
	pipeline := testenv.NewPipeline(t)
	began := clusterTimeOf(t, source.Client, func(ctx context.Context) error {
		_, err := source.Client.Database("shop").Collection("orders").InsertMany(ctx, numbered(0, 3))
		return err
	})
	if err := history(t.Context(), source.Client.Database("shop")); err == nil {
		t.Fatal("there was a collection to rename")
	}
	running := start(t, nil, "run", "-config", path(pipeline, "now"))
	awaitAlone(t, running, 1)
	late := alone(t, pipeline, "oplog", source.URI, broker.Brokers[0],
		fmt.Sprintf("{name: late, uri: %q, sync: [incremental], start: %q}", m.NewDestination(t).URI, began))
	joining := start(t, nil, "apply", "-config", late)
	if code := joining.wait(t); code != 1 || !strings.Contains(joining.stderr.String(), "history lost") {
		t.Errorf("before the pipeline: exit code %d\n%s", code, joining.stderr)
	}
	var status pipelineStatus
	code, stdout, _ := call(t, "status", "-config", late, "-json")
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || code != 1 {
		t.Fatalf("status: exit code %d: %v\n%s", code, err, stdout)
	}
	err := errors.New("no apply has lost its history")
	for _, s := range status.Services {
		if s.Destination == "late" && s.State == state.StateHistoryLost {
			err = nil
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
}
