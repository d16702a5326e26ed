package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// someIDs are _ids of many kinds.
func someIDs() []any {
	ids := []any{
		bson.MinKey{},
		bson.MaxKey{},
		nil, "", "a", "A", true, 2.5,
		bson.D{{Key: "a", Value: 1}},
		bson.D{{Key: "b", Value: bson.D{{Key: "c", Value: 1.5}}}},
		bson.Timestamp{T: 1, I: 2},
		bson.DateTime(7),
		bson.Binary{Subtype: 4, Data: make([]byte, 16)},
		bson.ObjectID{1},
	}
	for i := range 10 {
		ids = append(ids, i)
	}
	return ids
}

// hammerMongo writes few documents in every way until ctx ends; half of the
// writes go to the first one of those that others do not write.
func hammerMongo(ctx context.Context, coll *mongo.Collection, r *rand.Rand, ids []any) error {
	for n := 0; ctx.Err() == nil; n++ {
		id := ids[r.IntN(len(ids))]
		if r.IntN(2) == 0 {
			id = ids[0]
		}
		filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: id}}}}
		var err error
		switch r.IntN(5) {
		case 0:
			_, err = coll.DeleteOne(ctx, filter)
		case 1:
			_, err = coll.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: n}, {Key: fmt.Sprintf("f%d", r.IntN(4)), Value: n}}}})
		case 2:
			_, err = coll.UpdateOne(ctx, filter, bson.D{{Key: "$unset", Value: bson.D{{Key: fmt.Sprintf("f%d", r.IntN(4)), Value: 1}}}})
		default:
			_, err = coll.ReplaceOne(ctx, filter, bson.D{{Key: "_id", Value: id}, {Key: "n", Value: n}}, options.Replace().SetUpsert(true))
		}
		if err != nil && ctx.Err() == nil && !mongo.IsDuplicateKeyError(err) {
			return err
		}
	}
	return nil
}

// TestImagesOfASource has documents of a real source asked for while they are
// written and their collections exchange names, from captures that are killed.
func TestImagesOfASource(t *testing.T) {
	r := newRand(t)
	source := testenv.RequireMongoD(t).NewSource(t)
	cfg := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	cfg.DrainTimeout = time.Nanosecond
	var client atomic.Pointer[kgo.Client]
	cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
	service := start(t, cfg)
	untilNow(t, cfg, source)
	db := source.Client.Database("shop")
	for _, name := range []string{"orders", "items"} {
		if err := db.CreateCollection(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	writing, stop := context.WithCancel(t.Context())
	defer stop()
	var g errgroup.Group
	ids := someIDs()
	for i, part := range [][]any{ids[:8], ids[8:16], ids[16:]} {
		wr := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		coll := db.Collection([]string{"orders", "items", "orders"}[i])
		g.Go(func() error { return hammerMongo(writing, coll, wr, part) })
	}
	a := newAsker(t, cfg)
	for i := range 16 {
		name := []string{"orders", "items"}[i%2]
		q := state.Request{Kind: state.RequestRefresh, ID: fmt.Sprint(i), DB: "shop", Coll: name, Asked: time.Now().UTC()}
		found, err := mongodb.FindCollection(t.Context(), db, name, event.UUID{})
		if err != nil {
			t.Fatal(err)
		}
		q.UUID = found.UUID
		q.IDs = idDocuments(t, ids[r.IntN(len(ids))], ids[0], ids[8], ids[r.IntN(len(ids))], "missing")
		if i%5 == 1 {
			q.Kind, q.IDs = state.RequestReload, nil
		}
		a.ask(q)
		if i%5 == 3 {
			exchange(t, source.Client)
		}
		if i%6 == 2 {
			client.Load().Close()
			service.cancel()
			if err := service.wait(); err != nil {
				t.Fatal(err)
			}
			service = start(t, cfg)
		}
	}
	satisfied(t, a)
	stop()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	untilNow(t, cfg, source)
	service.cancel()
	if err := service.wait(); err != nil {
		t.Fatal(err)
	}
	replica, seen := checkImages(t, committed(t, cfg))
	t.Logf("%+v", seen)
	if seen.images == 0 || seen.reloads == 0 {
		t.Errorf("too little happened: %+v", seen)
	}
	for _, name := range []string{"orders", "items"} {
		compareCollection(t, replica, db.Collection(name))
	}
}

// TestReadPast asks for what a document was before it was changed: a server that
// can tell says so, another one gives what it is.
func TestReadPast(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t)
	coll := source.Client.Database("shop").Collection("orders")
	if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}, {Key: "n", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	before, err := mongodb.MajorityTime(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	images, err := newMongoImages(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := images.locate(t.Context(), before, event.Namespace{DB: "shop", Coll: "orders"}, event.UUID{})
	if err != nil || at == nil {
		t.Fatalf("located %v: %v", at, err)
	}
	q := &query{after: before, at: at, ids: idDocuments(t, 1, "missing"), documents: 10, bytes: imageBytes, exact: true}
	n := func(r *reading) (n int32) {
		for _, img := range r.images {
			if img.document != nil {
				n = img.document.Lookup("n").Int32()
			}
		}
		return n
	}
	if _, err := coll.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: 1}}, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 2}}}}); err != nil {
		t.Fatal(err)
	}
	r, err := images.read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the past can be told: %t", r.exact)
	want := int32(2)
	if r.exact {
		want = 1
	}
	if got := n(r); got != want || len(r.images) != 2 || r.exact != (r.through == before) {
		t.Errorf("n is %d of %d images, want %d of 2 (exact %t, through %v after %v)", got, len(r.images), want, r.exact, r.through, before)
	}
	// Of a collection that is gone nothing can be told.
	if err := coll.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := images.read(t.Context(), q); err != nil || n(r) != 0 || r.exact {
		t.Errorf("of a dropped collection: %+v, %v", r, err)
	}
}

// exchange exchanges the names of two collections.
func exchange(t testing.TB, client *mongo.Client) {
	t.Helper()
	for _, n := range [][2]string{{"shop.orders", "shop.between"}, {"shop.items", "shop.orders"}, {"shop.between", "shop.items"}} {
		cmd := bson.D{{Key: "renameCollection", Value: n[0]}, {Key: "to", Value: n[1]}, {Key: "dropTarget", Value: true}}
		if err := client.Database("admin").RunCommand(t.Context(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// compareCollection compares what the stream makes with what the source has.
func compareCollection(t testing.TB, replica *model, coll *mongo.Collection) {
	t.Helper()
	ns := event.Namespace{DB: coll.Database().Name(), Coll: coll.Name()}
	cursor, err := coll.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cursor.Close(t.Context()) }()
	held := replica.coll(ns).docs
	n := 0
	for ; cursor.Next(t.Context()); n++ {
		key, err := keyOfID(cursor.Current)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(held[key], cursor.Current) {
			t.Errorf("%s %s: replayed %s, the source has %s", ns, key, held[key], cursor.Current)
		}
	}
	if err := cursor.Err(); err != nil {
		t.Fatal(err)
	}
	if n != len(held) {
		t.Errorf("%s: replayed %d documents, the source has %d", ns, len(held), n)
	}
}
