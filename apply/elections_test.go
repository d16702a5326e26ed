package apply

import (
	"context"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// TestElectionsAtTheDestination applies a history while the destination's
// primary steps down, is killed and is frozen. Updates count, so that one that
// took effect twice, or not at all, shows.
func TestElectionsAtTheDestination(t *testing.T) {
	mongod := testenv.RequireMongoD(t)
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: mongod, Pipeline: testenv.NewPipeline(t)})
	r.dest = mongod.NewDestination(t, testenv.Members(3))
	r.edit = func(c *Config) {
		c.BatchEvents = 10
		c.Retry.Connection, c.Retry.Other = 5*time.Minute, 2*time.Minute
	}
	set := r.dest.ReplicaSet()
	primary := func(but ...*engine.Member) (found *engine.Member) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() (err error) {
			found, err = set.Primary(t.Context(), but...)
			return err
		})
		return found
	}
	h := newHistory(t, event.Namespace{DB: "shop", Coll: "orders"})
	manifest := r.begin(t, collection{ns: h.ns})
	r.load(t, manifest, collection{ns: h.ns})
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)
	publish := func() {
		for range 20 {
			var events []event.Event
			for range 20 {
				events = append(events, h.next())
			}
			r.publish(t, events...)
		}
	}
	for name, happen := range map[string]func(){
		"stepdown": func() {
			client := memberClient(t, primary())
			// Its answer may be lost with the connection.
			_ = client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "replSetStepDown", Value: 10}, {Key: "force", Value: true}}).Err()
		},
		"kill": func() {
			p := primary()
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			primary(p)
			if err := p.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"freeze": func() {
			p := primary()
			if err := p.Freeze(); err != nil {
				t.Fatal(err)
			}
			primary(p)
			publish()
			if err := p.Thaw(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		publish()
		happen()
		publish()
		begin := time.Now()
		r.await(t, r.watermark(t), s)
		t.Logf("%s: came through after %s", name, time.Since(begin).Round(10*time.Millisecond))
	}
	r.same(t, h.ns, h.state())
	s.stop(t)
}

// memberClient is a client of one member alone.
func memberClient(t *testing.T, m *engine.Member) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(m.URI))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Log(err)
		}
	})
	return client
}
