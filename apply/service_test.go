package apply

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestLoadAndFollow goes through all phases: documents of a load, indexes, and
// changes of every kind behind it.
func TestLoadAndFollow(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		orders, users := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "users"}
		loaded := []collection{{ns: orders}, {ns: users}}
		for i := range 40 {
			loaded[0].docs = append(loaded[0].docs, raw(t, bson.D{{Key: "_id", Value: fmt.Sprint(i)}, {Key: "n", Value: int32(i)}}))
		}
		m := r.begin(t, loaded...)
		s := r.start(t, "a")
		r.load(t, m, loaded...)
		r.publish(
			t,
			inserted(t, users, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Ann"}}),
			updated(t, users, "u1", bson.D{{Key: "u", Value: bson.D{{Key: "name", Value: "Anna"}}}}),
			updated(t, orders, "3", bson.D{{Key: "i", Value: bson.D{{Key: "state", Value: "paid"}}}}),
			deleted(t, orders, "4"),
			replaced(t, orders, bson.D{{Key: "_id", Value: "5"}, {Key: "other", Value: true}}),
		)
		r.await(t, r.watermark(t), s)
		want := append([]bson.Raw{}, loaded[0].docs...)
		want[3] = raw(t, bson.D{{Key: "_id", Value: "3"}, {Key: "n", Value: int32(3)}, {Key: "state", Value: "paid"}})
		want[5] = raw(t, bson.D{{Key: "_id", Value: "5"}, {Key: "other", Value: true}})
		want = append(want[:4], want[5:]...)
		r.same(t, orders, want)
		r.same(t, users, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Anna"}})})

		// Again, strictly, over a restart.
		s.stop(t)
		r.publish(
			t,
			updated(t, users, "u1", bson.D{{Key: "i", Value: bson.D{{Key: "age", Value: int32(7)}}}}),
			deleted(t, orders, "5"),
			inserted(t, orders, bson.D{{Key: "_id", Value: "5"}, {Key: "again", Value: true}}),
		)
		s = r.start(t, "b")
		r.await(t, r.watermark(t), s)
		r.same(t, users, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Anna"}, {Key: "age", Value: int32(7)}})})
		r.mirrored(t)
		s.stop(t)
	})
}

// mirrored wants Kafka's group offsets to follow those of the destination.
func (r *rig) mirrored(t *testing.T) {
	t.Helper()
	group := route.ApplyGroup(r.pair.Pipeline, "dest", "")
	testenv.Eventually(t, settled, func() error {
		offsets, err := r.offsets(t)
		if err != nil {
			return err
		}
		committed, err := kadm.NewClient(r.client).FetchOffsets(t.Context(), group)
		if err != nil {
			return err
		}
		for _, o := range offsets {
			if o.ID.Topic != r.topics.Changes {
				continue
			}
			if c, _ := committed.Lookup(o.ID.Topic, o.ID.Partition); c.At != o.Offset {
				return fmt.Errorf("partition %d: Kafka has %d, the destination %d", o.ID.Partition, c.At, o.Offset)
			}
		}
		return nil
	})
}

// TestHistoryLost deletes the records at a destination's offset.
func TestHistoryLost(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
		manifest := r.begin(t, c)
		r.load(t, manifest, c)
		s := r.start(t, "a")
		r.await(t, r.watermark(t), s)
		s.stop(t)
		for range 3 {
			r.watermark(t)
		}
		cut := kadm.Offsets{}
		for p, end := range r.ends(t, r.topics.Changes) {
			cut.AddOffset(r.topics.Changes, int32(p), end-1, -1)
		}
		if _, err := kadm.NewClient(r.client).DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		if err := r.start(t, "b").fails(t); !errors.Is(err, errHistoryLost) || !strings.Contains(err.Error(), "hint:") {
			t.Errorf("got %v", err)
		}
	})
}

// TestConflict refuses targets that are not the group's to write.
func TestConflict(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
		if _, err := r.dest.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: "mine"}}); err != nil {
			t.Fatal(err)
		}
		r.load(t, r.begin(t, c), c)
		err := r.start(t, "a").fails(t)
		var conflict *conflictError
		if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "shop.orders") {
			t.Errorf("got %v", err)
		}
	})
}

// TestRefusals are group members that must not join, and runs that failed.
func TestRefusals(t *testing.T) {
	e := testenv.RequireMongoD(t)
	pair := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: e, Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, pair)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
	manifest := r.begin(t, c)
	s := r.start(t, "a")
	testenv.Eventually(t, settled, func() error {
		n, err := r.dest.Client.Database(ownDatabase).Collection(groupsCollection).CountDocuments(t.Context(), bson.D{})
		if err == nil && n == 0 {
			err = errors.New("no group yet")
		}
		return err
	})
	r.edit = func(c *Config) { c.RulesDigest = "other" }
	if err := r.start(t, "b").fails(t); !strings.Contains(err.Error(), "other rules") {
		t.Errorf("other rules: got %v", err)
	}
	manifest.State, manifest.Cause = state.RunFailed, "a rename came in between"
	r.put(t, state.KeyRun(manifest.Run), manifest)
	if err := s.fails(t); !strings.Contains(err.Error(), manifest.Cause) {
		t.Errorf("failed run: got %v", err)
	}
	r.edit = func(*Config) {}
	r.put(t, state.KeyIdentity(), state.Identity{Deployment: "another"})
	if err := r.start(t, "c").fails(t); !strings.Contains(err.Error(), "another") {
		t.Errorf("other source: got %v", err)
	}
}

// TestBrokerGone ends a service whose broker does not answer any more.
func TestBrokerGone(t *testing.T) {
	m := testenv.MongoDB{MongoEngine: testenv.Embedded}
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
	r.edit = func(c *Config) { c.Drain = time.Second }
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
	r.load(t, r.begin(t, c), c)
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)
	r.pair.Cluster.Close()
	s.cancel()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Error("apply did not end within 20 s")
	}
}
