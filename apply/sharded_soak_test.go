package apply

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestShardedWorkload brings random changes, of shard keys too, to a sharded
// destination whose apply is restarted meanwhile, and compares with the
// outcome. It runs with TRIBUTARY_SOAK=1 alone;
// TRIBUTARY_SEED repeats one.
func TestShardedWorkload(t *testing.T) {
	if os.Getenv("TRIBUTARY_SOAK") == "" {
		t.Skip("a long test: TRIBUTARY_SOAK=1 runs it")
	}
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		t.Run("exactly_once="+delivery, func(t *testing.T) { shardedWorkload(t, delivery) })
	}
}

func shardedWorkload(t *testing.T, delivery string) {
	const rounds, events = 10, 400
	seed, err := strconv.ParseUint(os.Getenv("TRIBUTARY_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("TRIBUTARY_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}, testenv.Shards(2))
	key := raw(t, bson.D{{Key: "k", Value: int32(1)}})
	r.edit = func(cfg *Config) {
		cfg.ExactlyOnce = delivery
		cfg.Sharding.Rules = []ShardRule{{Match: func(string, string) bool { return true }, Key: key, SplitAt: []bson.Raw{raw(t, bson.D{{Key: "k", Value: int32(50)}})}}}
	}
	c := collection{ns: shardedByRule, uuid: event.UUID{9}}
	r.load(t, r.begin(t, c), c)
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s) // the collection is split
	held := map[int32]bson.D{}
	k := func() any {
		n := random.IntN(100)
		return []any{int32(n), int64(n), float64(n), nil, "text"}[min(random.IntN(9), 4)]
	}
	for round := range rounds {
		var list []event.Event
		for range events {
			list = append(list, change1(t, random, held, k))
		}
		r.publish(t, list...)
		if round%3 == 2 {
			s.stop(t)
			s = r.start(t, "again"+strconv.Itoa(round))
		}
		r.await(t, r.watermark(t), s)
		var want []bson.Raw
		for _, doc := range held {
			want = append(want, raw(t, doc))
		}
		r.same(t, c.ns, want)
		if t.Failed() {
			return
		}
	}
	s.stop(t)
}

// change1 makes one random change of the documents held.
func change1(t *testing.T, random *rand.Rand, held map[int32]bson.D, k func() any) event.Event {
	id := int32(random.IntN(60))
	doc, there := held[id]
	whole := func() bson.D {
		doc := bson.D{{Key: "_id", Value: id}}
		if v := k(); v != nil {
			doc = append(doc, bson.E{Key: "k", Value: v})
		}
		return append(doc, bson.E{Key: "n", Value: random.Int64()})
	}
	at := slices.IndexFunc(doc, func(e bson.E) bool { return e.Key == "k" })
	switch op := random.IntN(10); {
	case !there:
		held[id] = whole()
		return inserted(t, shardedByRule, held[id])
	case op < 2:
		delete(held, id)
		return deleted(t, shardedByRule, id)
	case op < 4:
		held[id] = whole()
		return replaced(t, shardedByRule, held[id])
	case op < 7 && at >= 0:
		doc = slices.Clone(doc)
		v := k()
		doc[at].Value = v
		held[id] = doc
		return updated(t, shardedByRule, id, bson.D{{Key: "u", Value: bson.D{{Key: "k", Value: v}}}})
	}
	doc = slices.Clone(doc)
	v := random.Int64()
	doc[slices.IndexFunc(doc, func(e bson.E) bool { return e.Key == "n" })].Value = v
	held[id] = doc
	return updated(t, shardedByRule, id, bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: v}}}})
}
