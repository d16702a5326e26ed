package snapshot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestPassOverShards: documents of two shards come in the order of their _ids,
// so that a pass can go on behind any of them; one _id on both shards is refused
// by name.
func TestPassOverShards(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Shards(2))
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	admin := source.Client.Database("admin")
	for _, cmd := range []bson.D{
		{{Key: "enableSharding", Value: ns.DB}},
		{{Key: "shardCollection", Value: ns.String()}, {Key: "key", Value: bson.D{{Key: "k", Value: "hashed"}}}},
	} {
		if err := admin.RunCommand(t.Context(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
	coll := source.Client.Database(ns.DB).Collection(ns.Coll)
	var docs []any
	var ids []string
	for i := range 60 {
		docs = append(docs, bson.D{{Key: "_id", Value: int32(i)}, {Key: "k", Value: int32(i)}})
		ids = append(ids, fmt.Sprint(i))
	}
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	w, err := mongodb.MajorityTime(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	d, err := mongodb.Describe(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource(t.Context(), source.Client, d, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := state.Chunk{DB: ns.DB, Coll: ns.Coll}
	if got := readPass(t, src, c, nil); got != strings.Join(ids, " ") {
		t.Errorf("read %s", got)
	}
	c.Max = idRaw(t, int32(50))
	if got := readPass(t, src, c, int32(20)); got != strings.Join(ids[21:50], " ") {
		t.Errorf("behind 20 to 50 read %s", got)
	}
	// Of these at least one lies on the other shard than the one that is there.
	for k := range 20 {
		_, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: int32(30)}, {Key: "k", Value: int32(1000 + k)}})
		if err == nil {
			break
		}
		if k == 19 {
			t.Fatal(err)
		}
	}
	for _, after := range []any{nil, int32(20), int32(30)} {
		if got := readPass(t, src, c, after); !strings.Contains(got, `shop.orders: two shards have documents with _id`) || !strings.Contains(got, "hint:") {
			t.Errorf("behind %v: %s", after, got)
		}
	}
}
