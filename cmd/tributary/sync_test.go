package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Copies without changes end by themselves, in one process and when it is
// started again, and bring what their types say.
func TestOneOffCopies(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	source := m.NewSource(t)
	dests := map[string]*mongo.Client{}
	var list []string
	for _, kind := range []string{"schema", "full", "both"} {
		d := m.NewDestination(t)
		dests[kind] = d.Client
		types := map[string]string{"schema": "schema", "full": "full", "both": "schema, full"}[kind]
		list = append(list, fmt.Sprintf("{name: %s, uri: %q, sync: [%s]}", kind, d.URI, types))
	}
	db := source.Client.Database("shop")
	if err := db.CreateCollection(t.Context(), "log", options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<20)); err != nil {
		t.Fatal(err)
	}
	validated := options.CreateCollection().SetValidator(bson.D{{Key: "n", Value: bson.D{{Key: "$gte", Value: 0}}}})
	if err := db.CreateCollection(t.Context(), "orders", validated); err != nil {
		t.Fatal(err)
	}
	if err := db.CreateView(t.Context(), "seen", "orders", mongo.Pipeline{}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Collection("orders").Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := db.Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: i}, {Key: "n", Value: i}}); err != nil {
			t.Fatal(err)
		}
	}
	path := file(t, fmt.Sprintf(`name: %s
source: {uri: %q}
kafka: {brokers: [%q], replication_factor: 1, min_insync_replicas: 1, partitions: 2, snapshot_partitions: 2}
select: {include: ["shop.*"]}
destinations: [%s]
http: {address: "127.0.0.1:0"}
`, testenv.NewPipeline(t), source.URI, broker.Brokers[0], strings.Join(list, ", ")))
	for i := range 2 { // the second finds nothing left to do
		run := start(t, nil, "run", "-config", path)
		code := run.wait(t)
		for _, who := range []string{"service=snapshot", "destination=schema", "destination=full", "destination=both"} {
			checkPhases(t, run.stderr.String(), who)
		}
		if code != 0 || strings.Count(run.stdout.String(), "complete; nothing was written to the source meanwhile") != len(dests) {
			t.Fatalf("exit code %d\n%s%s", code, run.stdout, run.stderr)
		}
		if deleted := strings.Contains(run.stderr.String(), "the full load was deleted from Kafka"); deleted != (i == 0) {
			t.Errorf("start %d deletes the load from Kafka: %t\n%s", i, deleted, run.stderr)
		}
	}
	for kind, want := range map[string]struct {
		documents, indexes int64
		options            string
		names              string
	}{
		"schema": {0, 2, "validator", "log orders seen"},
		"full":   {10, 1, "", "log orders"},
		"both":   {10, 2, "validator", "log orders seen"},
	} {
		copied := dests[kind].Database("shop")
		n, err := copied.Collection("orders").CountDocuments(t.Context(), bson.D{})
		if err != nil || n != want.documents {
			t.Errorf("%s: %d documents, want %d: %v", kind, n, want.documents, err)
		}
		indexes, err := copied.Collection("orders").Indexes().ListSpecifications(t.Context())
		if err != nil || int64(len(indexes)) != want.indexes {
			t.Errorf("%s: %d indexes, want %d: %v", kind, len(indexes), want.indexes, err)
		}
		cursor, err := copied.ListCollections(t.Context(), bson.D{{Key: "name", Value: bson.D{{Key: "$not", Value: bson.Regex{Pattern: "^system"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		var found []struct {
			Name    string   `bson:"name"`
			Options bson.Raw `bson:"options"`
		}
		if err := cursor.All(t.Context(), &found); err != nil {
			t.Fatal(err)
		}
		held := map[string]bson.Raw{}
		for _, c := range found {
			held[c.Name] = c.Options
		}
		for name := range strings.FieldsSeq(want.names) {
			if _, ok := held[name]; !ok {
				t.Errorf("%s: no %s", kind, name)
			}
			delete(held, name)
		}
		if len(held) > 0 {
			t.Errorf("%s: also has %v", kind, held)
		}
		for _, c := range found {
			if capped, _ := c.Options.Lookup("capped").BooleanOK(); c.Name == "log" && !capped {
				t.Errorf("%s: shop.log is not capped: %s", kind, c.Options)
			}
			if _, err := c.Options.LookupErr("validator"); c.Name == "orders" && (err == nil) != (want.options != "") {
				t.Errorf("%s: options of shop.orders %s, want %q", kind, c.Options, want.options)
			}
		}
	}
}

// wait waits until the program has ended by itself.
func (b *background) wait(t *testing.T) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- b.group.Wait() }()
	if err, ok := testenv.Receive(t, 2*time.Minute, "end of the program", ended); !ok || err != nil {
		t.Fatalf("it did not end by itself: %v\n%s", err, b.stderr)
	}
	return b.code
}

// checkPhases wants the phases that a log tells of a load to be in their order,
// and all of it to be done at the end.
func checkPhases(t *testing.T, log, who string) {
	t.Helper()
	order := []string{state.LoadPlanning, state.LoadReading, state.LoadLoading, state.LoadIndexes, state.LoadCatchingUp, state.LoadDone}
	said := regexp.MustCompile(`(?m)^.*progress of the load.*$`)
	at, last := 0, ""
	for _, line := range said.FindAllString(log, -1) {
		if !strings.Contains(line, who) {
			continue
		}
		last = line
		next := slices.IndexFunc(order, func(phase string) bool { return strings.Contains(line, "phase="+phase) })
		if next < at {
			t.Errorf("%s: after %s comes %s", who, order[at], line)
		}
		at = next
	}
	if last == "" || order[at] != state.LoadDone || !strings.Contains(last, "percent=100.0%") {
		t.Errorf("%s ends with %q", who, last)
	}
}
