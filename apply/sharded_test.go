package apply

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestShardedDestination loads and follows into a cluster of two shards: a
// collection by a rule, split over both, one that its operator has sharded
// before, and one that is not sharded. Documents change their shard key, have
// none, take the exact paths, and go.
func TestShardedDestination(t *testing.T) {
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		t.Run("exactly_once="+delivery, func(t *testing.T) { shardedDestination(t, delivery) })
	}
}

var (
	shardedByRule  = event.Namespace{DB: "shop", Coll: "orders"}
	shardedByOther = event.Namespace{DB: "crm", Coll: "customers"}
	notSharded     = event.Namespace{DB: "crm", Coll: "notes"}
)

// ofRegion is a document that a shard key {region, at.no} places.
func ofRegion(t *testing.T, id int, region any, more ...bson.E) bson.Raw {
	doc := bson.D{{Key: "_id", Value: int32(id)}, {Key: "n", Value: int32(id)}}
	if region != nil {
		doc = append(doc, bson.E{Key: "region", Value: region}, bson.E{Key: "at", Value: bson.D{{Key: "no", Value: int32(id)}}})
	}
	return raw(t, append(doc, more...))
}

func shardedDestination(t *testing.T, delivery string) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}, testenv.Shards(2))
	key := raw(t, bson.D{{Key: "region", Value: int32(1)}, {Key: "at.no", Value: int32(1)}})
	registry := prometheus.NewRegistry()
	r.edit = func(cfg *Config) {
		cfg.ExactlyOnce, cfg.Registerer = delivery, registry
		cfg.Sharding.Rules = []ShardRule{{
			Match: func(db, _ string) bool { return db == shardedByRule.DB }, Key: key,
			SplitAt: []bson.Raw{raw(t, bson.D{{Key: "region", Value: "m"}})},
		}}
	}
	admin := r.dest.Client.Database("admin")
	for _, cmd := range []bson.D{
		{{Key: "enableSharding", Value: shardedByOther.DB}},
		{{Key: "shardCollection", Value: shardedByOther.String()}, {Key: "key", Value: bson.D{{Key: "region", Value: "hashed"}}}},
	} {
		if err := admin.RunCommand(t.Context(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var loaded []collection
	for i, ns := range []event.Namespace{shardedByRule, shardedByOther, notSharded} {
		c := collection{ns: ns, uuid: event.UUID{byte(i + 1)}}
		for id := range 40 {
			c.docs = append(c.docs, ofRegion(t, id, []string{"asia", "europe", "oceania", "west"}[id%4]))
		}
		// No shard key, and a document of two steps.
		c.docs = append(c.docs, ofRegion(t, 40, nil), ofRegion(t, 41, "west", bson.E{Key: "ts", Value: bson.Timestamp{}}))
		loaded = append(loaded, c)
	}
	m := r.begin(t, loaded...)
	s := r.start(t, "a")
	r.load(t, m, loaded...)
	r.await(t, r.watermark(t), s)
	want := map[int]bson.Raw{}
	for _, c := range loaded {
		r.same(t, c.ns, c.docs)
		for id, doc := range c.docs {
			want[id] = doc
		}
	}
	r.onShards(t, shardedByRule, key)

	events := func(ns event.Namespace) []event.Event {
		u := func(id int, diff bson.D) event.Event { return updated(t, ns, int32(id), diff) }
		set := func(name string, v any) bson.D { return bson.D{{Key: "u", Value: bson.D{{Key: name, Value: v}}}} }
		return []event.Event{
			u(0, set("n", int32(100))),     // not of the key
			u(1, set("region", "west")),    // to the other shard
			u(2, set("region", "america")), // and back
			u(3, bson.D{{Key: "sat", Value: set("no", int32(-3))}}),
			u(4, bson.D{{Key: "d", Value: bson.D{{Key: "region", Value: false}}}}),
			u(40, bson.D{{Key: "i", Value: bson.D{{Key: "region", Value: "west"}}}}),
			replaced(t, ns, ofRegion(t, 5, "west")), // moved
			replaced(t, ns, ofRegion(t, 6, "oceania", bson.E{Key: "more", Value: true})),
			replaced(t, ns, ofRegion(t, 7, "asia", bson.E{Key: "ts", Value: bson.Timestamp{}})),
			replaced(t, ns, ofRegion(t, 8, nil)),
			u(41, set("n", int64(7))),
			deleted(t, ns, int32(9)),
			deleted(t, ns, int32(10)),
			inserted(t, ns, ofRegion(t, 10, "west")), // deleted and there again
			inserted(t, ns, ofRegion(t, 50, "asia")),
			u(50, set("region", "west")),
			inserted(t, ns, ofRegion(t, 51, nil)),
			u(11, set("region", "a")), u(11, set("region", "z")), u(11, set("region", "west")),
		}
	}
	for _, c := range loaded {
		r.publish(t, events(c.ns)...)
	}
	r.await(t, r.watermark(t), s)
	part := func(id int, fields ...bson.E) {
		want[id] = raw(t, append(bson.D{{Key: "_id", Value: int32(id)}}, fields...))
	}
	n := func(v any) bson.E { return bson.E{Key: "n", Value: v} }
	at := func(v int) bson.E { return bson.E{Key: "at", Value: bson.D{{Key: "no", Value: int32(v)}}} }
	region := func(v string) bson.E { return bson.E{Key: "region", Value: v} }
	part(0, n(int32(100)), region("asia"), at(0))
	part(1, n(int32(1)), region("west"), at(1))
	part(2, n(int32(2)), region("america"), at(2))
	part(3, n(int32(3)), region("west"), at(-3))
	part(4, n(int32(4)), at(4))
	part(40, n(int32(40)), region("west"))
	want[5], want[6] = ofRegion(t, 5, "west"), ofRegion(t, 6, "oceania", bson.E{Key: "more", Value: true})
	want[7], want[8] = ofRegion(t, 7, "asia", bson.E{Key: "ts", Value: bson.Timestamp{}}), ofRegion(t, 8, nil)
	part(41, n(int64(7)), region("west"), at(41), bson.E{Key: "ts", Value: bson.Timestamp{}})
	delete(want, 9)
	want[10] = ofRegion(t, 10, "west")
	part(50, n(int32(50)), region("west"), at(50))
	want[51] = ofRegion(t, 51, nil)
	part(11, n(int32(11)), region("west"), at(11))
	var all []bson.Raw
	for _, doc := range want {
		all = append(all, doc)
	}
	for _, c := range loaded {
		r.same(t, c.ns, all)
	}
	if n := counted(t, registry, "tributary_apply_unexpected_batches_total"); n > 0 && delivery == ExactlyOnceOn {
		t.Errorf("%v batches met other documents than their events said", n)
	}

	// Dropped and made anew: sharded as before.
	drop, create := ddlEvent(t, event.OpDrop, shardedByRule, loaded[0].uuid, bson.D{{Key: "drop", Value: shardedByRule.Coll}}),
		ddlEvent(t, event.OpCreate, shardedByRule, event.UUID{77}, bson.D{{Key: "create", Value: shardedByRule.Coll}})
	r.publish(t, drop, create, inserted(t, shardedByRule, ofRegion(t, 1, "asia")), inserted(t, shardedByRule, ofRegion(t, 2, "west")))
	r.await(t, r.watermark(t), s)
	r.same(t, shardedByRule, []bson.Raw{ofRegion(t, 1, "asia"), ofRegion(t, 2, "west")})
	r.onShards(t, shardedByRule, key)
	s.stop(t)
}

func ddlEvent(t *testing.T, op event.Op, ns event.Namespace, uuid event.UUID, ddl bson.D) event.Event {
	return event.Event{Op: op, NS: ns, UUID: uuid, DDL: raw(t, ddl)}
}

// onShards wants a collection sharded by a key, with documents on each shard.
func (r *rig) onShards(t *testing.T, ns event.Namespace, key bson.Raw) {
	t.Helper()
	held, ok, err := shardingOf(t.Context(), r.dest.Client, ns)
	if err != nil || !ok || !sameKeyPattern(held.Key, key) {
		t.Fatalf("%s is sharded by %s (%t, %v)", ns, held.Key, ok, err)
	}
	cursor, err := r.dest.Client.Database(ns.DB).Collection(ns.Coll).Aggregate(t.Context(), bson.A{
		bson.D{{Key: "$collStats", Value: bson.D{{Key: "count", Value: bson.D{}}}}},
	})
	var shards []struct {
		Shard string `bson:"shard"`
		Count int64  `bson:"count"`
	}
	if err = errors.Join(err, func() error { return cursor.All(t.Context(), &shards) }()); err != nil {
		t.Fatal(err)
	}
	for _, s := range shards {
		if s.Count == 0 {
			t.Errorf("%s: no document on %s", ns, s.Shard)
		}
	}
	if len(shards) != 2 {
		t.Errorf("%s lies on %s", ns, fmt.Sprint(shards))
	}
}

// counted returns a counter's value.
func counted(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestShardingNeedsCluster refuses rules of sharding for a replica set.
func TestShardingNeedsCluster(t *testing.T) {
	r := realRig(t)
	r.edit = func(cfg *Config) { cfg.Sharding.HashedID = true }
	if err := r.start(t, "a").fails(t); !strings.Contains(err.Error(), "it is no sharded cluster: hint:") {
		t.Errorf("apply ended with %v", err)
	}
}

// TestShardedDDL works on the definition of a sharded collection: its indexes,
// of which it keeps the one that it needs, a unique one that it cannot have, a
// rename that the cluster refuses, and a reload.
func TestShardedDDL(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}, testenv.Shards(2))
	key := raw(t, bson.D{{Key: "region", Value: int32(1)}})
	r.edit = func(cfg *Config) {
		cfg.Rules = only(t, "shop.*")
		cfg.Sharding.Rules = []ShardRule{
			{Match: func(_, coll string) bool { return coll == "capped" }, Key: key},
			{Match: func(_, coll string) bool { return coll != "plain" }, Key: key, SplitAt: []bson.Raw{raw(t, bson.D{{Key: "region", Value: "m"}})}},
		}
	}
	c := collection{ns: shardedByRule, uuid: event.UUID{1}, docs: []bson.Raw{ofRegion(t, 1, "asia"), ofRegion(t, 2, "west")}}
	c.indexes = []bson.Raw{indexSpecOf(t, "region"), indexSpecOf(t, "n", bson.E{Key: "unique", Value: true})}
	capped := collection{
		ns: event.Namespace{DB: "shop", Coll: "capped"}, uuid: event.UUID{2}, docs: []bson.Raw{ofRegion(t, 2, "west"), ofRegion(t, 1, "asia")},
		options: raw(t, bson.D{{Key: "capped", Value: true}, {Key: "size", Value: int32(1 << 20)}}),
	}
	m := r.begin(t, c, capped)
	s := r.start(t, "a")
	r.load(t, m, c, capped)
	ddl := func(op event.Op, cmd bson.D) event.Event { return ddlEvent(t, op, c.ns, c.uuid, cmd) }
	r.publish(t,
		ddl(event.OpCreateIndexes, bson.D{{Key: "createIndexes", Value: c.ns.Coll}, {Key: "indexes", Value: bson.A{indexSpecOf(t, "late")}}}),
		ddl(event.OpDropIndexes, bson.D{{Key: "dropIndexes", Value: c.ns.Coll}, {Key: "index", Value: "region_1"}}),
		ddl(event.OpModify, bson.D{{Key: "collMod", Value: c.ns.Coll}, {Key: "validationLevel", Value: "moderate"}}),
	)
	r.await(t, r.watermark(t), s)
	r.same(t, c.ns, c.docs)
	r.sameOrdered(t, capped.ns, capped.docs)
	for _, name := range []string{"late_1", "region_1"} {
		if r.index(t, c.ns, name) == nil {
			t.Errorf("index %s is not there", name)
		}
	}
	report := r.finalize(t, nil)
	if len(report.Indexes) != 1 || report.Complete() || !strings.Contains(report.Indexes[0].Detail, "must begin with that key") {
		t.Errorf("finalize says %+v", report.Indexes)
	}
	if held := r.index(t, c.ns, "n_1"); held == nil || rules.UniqueIndex(held) {
		t.Errorf("the index that cannot be unique is %s", held)
	}
	// Renamed where no server before 5.0 can, and over a sharded collection where
	// the new name is not sharded by rule.
	for _, name := range []string{"second", "plain"} {
		from := c.ns
		c.ns = event.Namespace{DB: "shop", Coll: name}
		r.publish(t, moved(t, from, c.ns, c.uuid, false))
		r.await(t, r.watermark(t), s)
		r.answer(t, s, []collection{c, capped})
		r.same(t, c.ns, c.docs)
		if held := r.held(t, from); len(held) > 0 {
			t.Errorf("%s holds %d documents", from, len(held))
		}
		if name == "second" {
			r.onShards(t, c.ns, key)
		}
	}
	if _, sharded, err := shardingOf(t.Context(), r.dest.Client, c.ns); err != nil || sharded {
		t.Errorf("%s is sharded: %t, %v", c.ns, sharded, err)
	}
	r.emptied(t)
	s.stop(t)
}

// TestShardedOrphans changes shard keys so that documents come to a shard on
// which migrations have left copies of them behind, which servers keep for 15
// minutes and which collide there.
func TestShardedOrphans(t *testing.T) {
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		t.Run("exactly_once="+delivery, func(t *testing.T) { shardedOrphans(t, delivery) })
	}
}

func shardedOrphans(t *testing.T, delivery string) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}, testenv.Shards(2))
	key := raw(t, bson.D{{Key: "region", Value: int32(1)}})
	r.edit = func(cfg *Config) {
		cfg.ExactlyOnce = delivery
		cfg.Sharding.Rules = []ShardRule{{Match: func(string, string) bool { return true }, Key: key, SplitAt: []bson.Raw{raw(t, bson.D{{Key: "region", Value: "m"}})}}}
	}
	c := collection{ns: shardedByRule, uuid: event.UUID{9}}
	for id := range 10 {
		c.docs = append(c.docs, ofRegion(t, id, []string{"asia", "west"}[id%2]))
	}
	m := r.begin(t, c)
	s := r.start(t, "a")
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)
	// The shards exchange their chunks.
	chunks, err := (&sharder{client: r.dest.Client}).chunks(t.Context(), c.ns)
	if err != nil || len(chunks) != 2 || chunks[0].Shard == chunks[1].Shard {
		t.Fatalf("chunks are %v, %v", chunks, err)
	}
	for i, chunk := range chunks {
		err := r.dest.Client.Database("admin").RunCommand(t.Context(), bson.D{
			{Key: "moveChunk", Value: c.ns.String()}, {Key: "bounds", Value: bson.A{chunk.Min, chunk.Max}}, {Key: "to", Value: chunks[1-i].Shard},
		}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	region := func(id int, name string) event.Event {
		return updated(t, c.ns, int32(id), bson.D{{Key: "u", Value: bson.D{{Key: "region", Value: name}}}})
	}
	r.publish(t,
		region(0, "west"), region(1, "asia"), // each to where its orphan is
		replaced(t, c.ns, ofRegion(t, 2, "west")),
		deleted(t, c.ns, int32(4)), inserted(t, c.ns, ofRegion(t, 4, "west")),
		deleted(t, c.ns, int32(5)),
	)
	r.await(t, r.watermark(t), s)
	r.publish(t, inserted(t, c.ns, ofRegion(t, 5, "asia"))) // nothing but an orphan is there
	r.await(t, r.watermark(t), s)
	want := slices.Clone(c.docs)
	want[0], want[1] = ofRegion(t, 0, "west"), ofRegion(t, 1, "asia")
	want[2], want[4], want[5] = ofRegion(t, 2, "west"), ofRegion(t, 4, "west"), ofRegion(t, 5, "asia")
	r.same(t, c.ns, want)
	s.stop(t)
}
