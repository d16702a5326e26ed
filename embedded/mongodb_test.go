package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The tests of this file say what the stand-in is good for and what not. One
// that fails with another version of FerretDB tells which line of README.md to
// change.

// d makes a document of keys and values.
func d(pairs ...any) bson.D {
	doc := bson.D{}
	for i := 0; i < len(pairs); i += 2 {
		doc = append(doc, bson.E{Key: fmt.Sprint(pairs[i]), Value: pairs[i+1]})
	}
	return doc
}

// entry is an oplog entry.
type entry struct {
	TS bson.Timestamp `bson:"ts"`
	Op string         `bson:"op"`
	NS string         `bson:"ns"`
	O  bson.Raw       `bson:"o"`
	O2 bson.Raw       `bson:"o2"`
	T  int64          `bson:"t"`
	V  int64          `bson:"v"`
}

func TestDocumentsKeepTheirBytes(t *testing.T) {
	docs := source(t).Database("shop").Collection("orders")
	for i, doc := range []bson.D{
		d("_id", "order", "z", 1, "a", 2, "m", d("z", 1, "a", 2)),
		d("_id", "numbers", "int", int32(1), "long", int64(1), "double", 1.0, "tiny", -1e-300),
		d("_id", "others", "null", nil, "bool", true, "date", bson.DateTime(-1), "ts", bson.Timestamp{T: 1, I: 2}),
		d("_id", "empty", "string", "", "array", bson.A{}, "document", d(), "", "empty name"),
		d("_id", "zero timestamp", "ts", bson.Timestamp{}),
		d("_id", "binary", "generic", bson.Binary{Data: []byte{0, 1}}, "uuid", bson.Binary{Subtype: 4, Data: make([]byte, 16)}),
		d("_id", "regex", "re", bson.Regex{Pattern: "^a", Options: "i"}, "oid", bson.NewObjectID()),
		d("_id", int32(1)), d("_id", int64(2)), d("_id", 2.5), d("_id", bson.NewObjectID()), d("_id", d("b", 1, "a", 2)),
		d("_id", nil), d("_id", true), d("_id", bson.DateTime(5)), d("_id", bson.Binary{Data: []byte("x")}),
	} {
		want, err := bson.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := docs.InsertOne(t.Context(), bson.Raw(want)); err != nil {
			t.Errorf("insert %d %v: %v", i, doc, err)
			continue
		}
		got, err := docs.FindOne(t.Context(), d("_id", bson.Raw(want).Lookup("_id"))).Raw()
		if err != nil || string(got) != string(want) {
			t.Errorf("document %d: got %v (%v), want %v", i, got, err, bson.Raw(want))
		}
	}
}

func TestLosesTheSignOfZero(t *testing.T) {
	docs := source(t).Database("shop").Collection("orders")
	if _, err := docs.InsertOne(t.Context(), d("_id", "a", "zero", math.Copysign(0, -1))); err != nil {
		t.Fatal(err)
	}
	raw, err := docs.FindOne(t.Context(), d()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	if math.Signbit(raw.Lookup("zero").Double()) {
		t.Error("-0.0 keeps its sign")
	}
}

func TestRefusesWhatItCannotHold(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("orders")
	for name, value := range map[string]any{
		"decimal": bson.NewDecimal128(0, 1), "undefined": bson.Undefined{}, "min key": bson.MinKey{}, "max key": bson.MaxKey{},
		"symbol": bson.Symbol("s"), "code": bson.JavaScript("c"), "scope": bson.CodeWithScope{Code: "c", Scope: d()},
		"pointer": bson.DBPointer{DB: "d"}, "not a number": math.NaN(),
	} {
		_, err := docs.InsertOne(t.Context(), d("_id", name, "a", bson.A{d("b", value)}))
		if !isCommandError(err, "the stand-in server has no") || !strings.Contains(err.Error(), "documents.0.a.0.b") {
			t.Errorf("insert of a %s: %v, want an error that names type and field", name, err)
		}
	}
	for name, doc := range map[string]bson.D{
		"dotted name": d("_id", 1, "a.b", 1), "dollar name": d("_id", 2, "$a", 1), "duplicate name": d("_id", 3, "a", 1, "a", 2),
		"array in array": d("_id", 4, "a", bson.A{bson.A{1}}), "infinity": d("_id", 5, "a", math.Inf(1)),
	} {
		_, err := docs.InsertOne(t.Context(), doc)
		if _, ok := errors.AsType[mongo.WriteException](err); !ok {
			t.Errorf("insert with a %s: %v, want a write error", name, err)
		}
	}
	if _, err := docs.InsertMany(t.Context(), []any{d("_id", int32(5)), d("_id", int64(5))}); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("insert of 5 and 5L: %v, want a duplicate key", err)
	}
	if _, err := docs.Watch(t.Context(), mongo.Pipeline{}); !isCommandError(err, "not implemented") {
		t.Errorf("change stream: %v", err)
	}
	for name, command := range map[string]bson.D{
		"collMod": d("collMod", "orders"), "replSetGetStatus": d("replSetGetStatus", 1), "bulkWrite": d("bulkWrite", 1),
		"commitTransaction": d("commitTransaction", 1), "appendOplogNote": d("appendOplogNote", 1),
	} {
		if err := client.Database("admin").RunCommand(t.Context(), command).Err(); !isCommandError(err, "") {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
}

// isCommandError reports whether the server refused a command with such a
// message; a closed connection is none.
func isCommandError(err error, message string) bool {
	e, ok := errors.AsType[mongo.CommandError](err)
	return ok && e.Code != 0 && strings.Contains(e.Message, message)
}

// A write in a transaction is refused, a read in one is answered as if there
// were none.
func TestRefusesTransactions(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("orders")
	tests := map[string]struct {
		do      func(context.Context) error
		refused bool
	}{
		"insert": {func(ctx context.Context) error { _, err := docs.InsertOne(ctx, d("_id", "a")); return err }, true},
		"update": {func(ctx context.Context) error { _, err := docs.UpdateByID(ctx, "a", d("$set", d("n", 1))); return err }, true},
		"delete": {func(ctx context.Context) error { _, err := docs.DeleteOne(ctx, d("_id", "a")); return err }, true},
		"find": {func(ctx context.Context) error {
			err := docs.FindOne(ctx, d("_id", "a")).Err()
			if errors.Is(err, mongo.ErrNoDocuments) {
				return nil
			}
			return err
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			session, err := client.StartSession()
			if err != nil {
				t.Fatal(err)
			}
			defer session.EndSession(t.Context())
			if err := session.StartTransaction(); err != nil {
				t.Fatal(err)
			}
			err = test.do(mongo.NewSessionContext(t.Context(), session))
			if isCommandError(err, "startTransaction") != test.refused {
				t.Errorf("in a transaction: %v, want a refusal: %t", err, test.refused)
			}
			// The server knows no abortTransaction; the driver hides that.
			if err := session.AbortTransaction(t.Context()); err != nil {
				t.Errorf("abort: %v", err)
			}
		})
	}
}

func TestHelloClaimsNoReplicaSet(t *testing.T) {
	var hello bson.M
	if err := source(t).Database("admin").RunCommand(t.Context(), d("hello", 1)).Decode(&hello); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"setName", "lastWrite", "$clusterTime", "operationTime", "msg"} {
		if v, ok := hello[key]; ok {
			t.Errorf("hello says %s: %v", key, v)
		}
	}
	if hello["logicalSessionTimeoutMinutes"] == nil {
		t.Error("hello no longer claims sessions")
	}
}

func TestOplogEntries(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("orders")
	steps := []func() error{
		func() error { _, err := docs.InsertOne(t.Context(), d("_id", "a", "n", 1)); return err },
		func() error { _, err := docs.UpdateByID(t.Context(), "a", d("$set", d("m", 2))); return err },
		func() error { _, err := docs.ReplaceOne(t.Context(), d("_id", "a"), d("x", 3)); return err },
		func() error { _, err := docs.UpdateByID(t.Context(), "a", d("$set", d("x", 3))); return err },
		func() error { _, err := docs.DeleteOne(t.Context(), d("_id", "a")); return err },
		func() error { return docs.Drop(t.Context()) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	var got []string
	for _, e := range entries(t, client, d()) {
		if e.T != 1 || e.V != 2 || e.NS != "shop.orders" {
			t.Errorf("entry %+v: want t 1, v 2 and the namespace", e)
		}
		got = append(got, fmt.Sprintf("%s %s %s", e.Op, e.O, e.O2))
	}
	want := []string{
		`i {"_id": "a","n": {"$numberInt":"1"}} `,
		`u {"$v": {"$numberInt":"1"},"$set": {"_id": "a","n": {"$numberInt":"1"},"m": {"$numberInt":"2"}}} {"_id": "a"}`,
		`u {"$v": {"$numberInt":"1"},"$set": {"_id": "a","x": {"$numberInt":"3"}}} {"_id": "a"}`,
		// An update that changes nothing leaves no entry; neither does DDL.
		`d {"_id": "a"} `,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// entries reads oplog entries in natural order.
func entries(t *testing.T, client *mongo.Client, filter bson.D) []entry {
	t.Helper()
	cursor, err := client.Database("local").Collection("oplog.rs").Find(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOplogOrderUnderConcurrentWriters(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("counters")
	if _, err := docs.InsertOne(t.Context(), d("_id", "k", "n", 0)); err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 25
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				if _, err := docs.UpdateByID(t.Context(), "k", d("$inc", d("n", 1))); err != nil {
					t.Errorf("increment: %v", err)
				}
			}
		})
	}
	group.Wait()
	all := entries(t, client, d("op", "u"))
	if len(all) != writers*each {
		t.Fatalf("%d entries, want %d", len(all), writers*each)
	}
	for i, e := range all {
		if n := e.O.Lookup("$set", "n").Int32(); int(n) != i+1 {
			t.Fatalf("entry %d sets %d: natural order is not the order of the effects", i, n)
		}
		if i > 0 && !e.TS.After(all[i-1].TS) {
			t.Fatalf("entry %d has ts %v after %v", i, e.TS, all[i-1].TS)
		}
	}
}

func TestTailableCursor(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("orders")
	for _, id := range []string{"a", "b"} {
		if _, err := docs.InsertOne(t.Context(), d("_id", id)); err != nil {
			t.Fatal(err)
		}
	}
	from := entries(t, client, d("o._id", "b"))[0].TS
	cursor, err := client.Database("local").Collection("oplog.rs").Find(
		t.Context(), d("ts", d("$gte", from)),
		options.Find().SetCursorType(options.TailableAwait).SetMaxAwaitTime(5*time.Second),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cursor.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	next := func() string {
		t.Helper()
		if !cursor.Next(t.Context()) {
			t.Fatalf("cursor ended: %v", cursor.Err())
		}
		id, _ := cursor.Current.Lookup("o", "_id").StringValueOK()
		return id
	}
	if id := next(); id != "b" {
		t.Errorf("first entry is of %q, want b", id)
	}
	inserted := make(chan error, 1)
	go func() {
		_, err := docs.InsertMany(t.Context(), []any{d("_id", "c"), d("_id", "d")})
		inserted <- err
	}()
	for _, want := range []string{"c", "d"} {
		if id := next(); id != want {
			t.Errorf("next entry is of %q, want %s", id, want)
		}
	}
	if err := <-inserted; err != nil {
		t.Fatal(err)
	}
}

func TestTailableCursorOverManyEntries(t *testing.T) {
	client := source(t)
	docs := client.Database("shop").Collection("orders")
	const batches, size = 8, 100
	for b := range batches {
		var batch []any
		for i := range size {
			batch = append(batch, d("_id", int32(b*size+i), "filling", strings.Repeat("x", 2000*b)))
		}
		if _, err := docs.InsertMany(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	cursor, err := client.Database("local").Collection("oplog.rs").Find(
		t.Context(), d(), options.Find().SetCursorType(options.TailableAwait).SetBatchSize(1000))
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches * size {
		if !cursor.Next(t.Context()) {
			t.Fatalf("cursor ended: %v", cursor.Err())
		}
		if id, _ := cursor.Current.Lookup("o", "_id").AsInt64OK(); int(id) != i {
			t.Fatalf("entry %d is of document %d", i, id)
		}
	}
	if err := cursor.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLongUpdateCommand(t *testing.T) {
	docs := source(t).Database("shop").Collection("orders")
	var models []mongo.WriteModel
	const count = 120
	for i := range count {
		models = append(models, mongo.NewReplaceOneModel().SetFilter(d("_id", i)).SetReplacement(d("n", i)).SetUpsert(true))
	}
	result, err := docs.BulkWrite(t.Context(), models)
	if err != nil {
		t.Fatal(err)
	}
	if result.UpsertedCount != count || len(result.UpsertedIDs) != count || result.UpsertedIDs[count-1] != int32(count-1) {
		t.Errorf("result %+v, want %d upserts", result, count)
	}
	// What comes after the statement that fails is not tried, unless asked for.
	models[60] = mongo.NewUpdateOneModel().SetFilter(d("_id", 60)).SetUpdate(d("$inc", d("n", "text")))
	_, err = docs.BulkWrite(t.Context(), models)
	failed, ok := errors.AsType[mongo.BulkWriteException](err)
	if !ok || len(failed.WriteErrors) != 1 || failed.WriteErrors[0].Index != 60 {
		t.Errorf("error %#v, want one at statement 60", failed.WriteErrors)
	}
	models[70], models[80] = models[60], mongo.NewReplaceOneModel().SetFilter(d("_id", 80)).SetReplacement(d("n", "new"))
	result, err = docs.BulkWrite(t.Context(), models, options.BulkWrite().SetOrdered(false))
	failed, ok = errors.AsType[mongo.BulkWriteException](err)
	if !ok || len(failed.WriteErrors) != 2 || failed.WriteErrors[1].Index != 70 || result.MatchedCount != count-2 {
		t.Errorf("result %+v, error %v, want two errors and the rest done", result, err)
	}
}

func TestFindByIDs(t *testing.T) {
	docs := source(t).Database("shop").Collection("orders")
	var all []any
	for i := range 30 {
		all = append(all, d("_id", fmt.Sprint(i), "n", i))
	}
	all = append(all, d("_id", 7, "n", 7))
	if _, err := docs.InsertMany(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		ids  bson.A
		opts *options.FindOptionsBuilder
		want int
	}{
		"strings":    {bson.A{"3", "4", "none", "3"}, options.Find(), 2},
		"mixed":      {bson.A{"3", 7}, options.Find(), 2},
		"none":       {bson.A{}, options.Find(), 0},
		"small":      {bson.A{"1", "2", "3"}, options.Find().SetBatchSize(1), 3},
		"projection": {bson.A{"1", "2"}, options.Find().SetProjection(d("_id", 1)), 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cursor, err := docs.Find(t.Context(), d("_id", d("$in", test.ids)), test.opts)
			if err != nil {
				t.Fatal(err)
			}
			var found []bson.Raw
			if err := cursor.All(t.Context(), &found); err != nil {
				t.Fatal(err)
			}
			if len(found) != test.want {
				t.Errorf("found %v, want %d documents", found, test.want)
			}
		})
	}
}

func TestOplogIsTrimmed(t *testing.T) {
	client := start(t, "--dir", t.TempDir(), "--mongo", "source=127.0.0.1:0", "--oplog-mb", "1").connect(t, "source")
	docs := client.Database("shop").Collection("orders")
	filling := strings.Repeat("x", 20<<10)
	for range 250 {
		if _, err := docs.InsertOne(t.Context(), d("filling", filling)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := client.Database("local").Collection("oplog.rs").CountDocuments(t.Context(), d())
	if err != nil {
		t.Fatal(err)
	}
	// About 50 stay, and those since it was trimmed last.
	if n > 160 {
		t.Errorf("oplog of 1 MiB holds %d entries of 20 KiB", n)
	}
}

func TestDroppedDatabaseComesBack(t *testing.T) {
	client := source(t)
	for range 3 {
		db := client.Database("shop")
		if _, err := db.Collection("orders").InsertOne(t.Context(), d("_id", "a")); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Collection("orders").UpdateByID(t.Context(), "a", d("$set", d("n", 1))); err != nil {
			t.Fatal(err)
		}
		if err := db.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDocumentsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--dir", dir, "--mongo", "source=127.0.0.1:0"}
	first := start(t, args...)
	client := first.connect(t, "source")
	docs := client.Database("shop").Collection("orders")
	for i := range 20 {
		if _, err := docs.InsertOne(t.Context(), d("_id", i)); err != nil {
			t.Fatal(err)
		}
	}
	before := entries(t, client, d())
	first.kill()

	client = start(t, args...).connect(t, "source")
	docs = client.Database("shop").Collection("orders")
	if n, err := docs.CountDocuments(t.Context(), d()); err != nil || n != 20 {
		t.Errorf("%d documents (%v), want 20", n, err)
	}
	if _, err := docs.InsertOne(t.Context(), d("_id", "after")); err != nil {
		t.Fatal(err)
	}
	after := entries(t, client, d())
	if len(after) != len(before)+1 {
		t.Fatalf("%d entries, want %d", len(after), len(before)+1)
	}
	if last := after[len(after)-1]; !last.TS.After(before[len(before)-1].TS) {
		t.Errorf("entry after the restart has ts %v, the one before %v", last.TS, before[len(before)-1].TS)
	}
}
