package snapshot

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// TestRenamesWhileLoading has the run ask for what renames have touched, and
// complete when that has come or is gone; the run's end is as late as it is.
func TestRenamesWhileLoading(t *testing.T) {
	pair := testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: testenv.StandIn(t)}
	uuid := event.UUID{0: 1, 15: 1}
	name := func(text string) event.Namespace {
		ns, err := event.ParseNamespace(text)
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	ddl := func(op event.Op, ns string, cmd bson.D) event.Event {
		raw, err := bson.Marshal(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return event.Event{Op: op, NS: name(ns), UUID: uuid, DDL: raw, WallTime: time.Unix(0, 0)}
	}
	rename := func(from, to string) event.Event { return ddl(event.OpRename, from, bson.D{{Key: "to", Value: to}}) }
	drop := func(ns string) event.Event { return ddl(event.OpDrop, ns, bson.D{{Key: "drop", Value: name(ns).Coll}}) }
	for _, test := range []struct {
		name   string
		events []event.Event
		// asks is the collection that is asked for.
		asks string
		// then ends the wait in place of the reload.
		then []event.Event
	}{
		{name: "out of the selection", events: []event.Event{rename("shop.orders", "other.orders")}},
		{name: "of neither", events: []event.Event{rename("other.x", "other.y")}},
		{name: "into the selection", events: []event.Event{rename("other.x", "shop.new")}, asks: "shop.new"},
		{name: "and on", events: []event.Event{rename("other.x", "shop.new"), rename("shop.new", "shop.newer")}, asks: "shop.newer"},
		{name: "and out again", events: []event.Event{rename("other.x", "shop.new"), rename("shop.new", "other.x")}},
		{name: "and dropped", events: []event.Event{rename("other.x", "shop.new"), drop("shop.new")}},
		{name: "and dropped at last", events: []event.Event{rename("other.x", "shop.new")}, asks: "shop.new", then: []event.Event{drop("shop.new")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair.Pipeline = testenv.NewPipeline(t)
			r := newRig(t, pair)
			fill(t, r.source, event.Namespace{DB: "shop", Coll: "orders"}, objectIDs(50), 10)
			if err := r.publish(t.Context(), watermark(r.now(t))); err != nil {
				t.Fatal(err)
			}
			// Later than W, not later than R; the service itself writes to a
			// stand-in as well.
			fill(t, r.source, event.Namespace{DB: "shop", Coll: "orders"}, objectIDs(5), 10)
			end := r.now(t)
			cfg := r.config("one")
			var err error
			if cfg.Select, err = rules.CompileSelection([]string{"shop.*"}, nil); err != nil {
				t.Fatal(err)
			}
			var g errgroup.Group
			g.Go(func() error { return r.run(t, cfg) })
			testenv.Eventually(t, 2*time.Minute, func() error {
				if _, found := r.state(t).LatestRun(); !found {
					return errors.New("no run yet")
				}
				return nil
			})
			for i, e := range test.events {
				e.Position = event.Position{Time: end, Index: int32(i)}
				if err := r.publish(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.publish(t.Context(), watermark(r.now(t))); err != nil {
				t.Fatal(err)
			}
			var least bson.Timestamp
			if test.asks != "" {
				request := r.request(t)
				if request.Kind != state.RequestReload || request.Namespace().String() != test.asks || request.UUID != uuid || request.Destination != "" {
					t.Errorf("request is %+v", request)
				}
				last := r.now(t)
				least = bson.Timestamp{T: last.T + 1, I: 1}
				answer := test.then
				if answer == nil {
					answer = []event.Event{ddl(event.OpReloadEnd, test.asks, bson.D{{Key: "reloadEnd", Value: "x"}, {Key: "request", Value: request.ID}, {Key: "through", Value: least}})}
				} else {
					least = bson.Timestamp{}
				}
				answer[0].Position = event.Position{Time: last}
				if err := r.publish(t.Context(), append(answer, watermark(bson.Timestamp{T: last.T + 1, I: 1}))...); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			m, _ := r.state(t).LatestRun()
			if m.State != state.RunComplete || event.CompareTimes(m.ReadThrough, least) < 0 {
				t.Errorf("run is %s, through %v, want at least %v", m.State, m.ReadThrough, least)
			}
		})
	}
}

// request waits for the first request on the control topic.
func (r *rig) request(t *testing.T) *state.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	log := &topicLog{cfg: r.kafka, topic: r.topics.Control}
	var request *state.Request
	err := log.follow(ctx, map[int32]int64{0: 0}, func(record *kgo.Record) (bool, error) {
		if record.Attrs.IsControl() {
			return false, nil
		}
		var err error
		_, request, err = state.DecodeCommand(record.Value)
		return true, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func TestAnotherSourceIsRefused(t *testing.T) {
	pair := testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, pair)
	record, err := state.Record(r.topics.State, state.KeyIdentity(), state.Identity{Deployment: "another"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProducer(t.Context(), r.kafka, "identity")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.transact(t.Context(), []*kgo.Record{record}); err != nil {
		t.Fatal(err)
	}
	r.followSource(t)
	err = r.run(t, r.config("one"))
	if err == nil || !strings.Contains(err.Error(), "another") || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("error %v", err)
	}
	if _, begun := r.state(t).LatestRun(); begun {
		t.Error("a run was begun")
	}
}

func TestFencedOwnerCommitsNothing(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		r := newRig(t, testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: b, Pipeline: testenv.NewPipeline(t)})
		id := route.SnapshotTransactionalID(r.pair.Pipeline, 0)
		former, err := openProducer(t.Context(), r.kafka, id)
		if err != nil {
			t.Fatal(err)
		}
		defer former.close()
		manifest := func(run string) error {
			record, err := state.Record(r.topics.State, state.KeyRun(run), state.Manifest{Run: run, State: state.RunLoading})
			if err != nil {
				return err
			}
			former.send(t.Context(), record, nil)
			return former.client.Flush(t.Context())
		}
		if err := former.begin(); err != nil {
			t.Fatal(err)
		}
		if err := manifest("old"); err != nil {
			t.Fatal(err)
		}
		next, err := openProducer(t.Context(), r.kafka, id)
		if err != nil {
			t.Fatal(err)
		}
		defer next.close()
		// What the former owner left open neither holds up a reader nor is seen.
		if m, found := r.state(t).LatestRun(); found {
			t.Errorf("uncommitted run %s is seen", m.Run)
		}
		err = former.commit(t.Context())
		if err == nil || !fenced(err) {
			t.Errorf("the former owner's commit: %v", err)
		}
		if m, found := r.state(t).LatestRun(); found {
			t.Errorf("run %s of the former owner was committed", m.Run)
		}
		if v := judgeSession(err); v != retry.Other {
			t.Errorf("verdict %v", v)
		}
	})
}

func TestWatermarkIsFoundAgain(t *testing.T) {
	r := newRig(t, testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)})
	s, err := New(r.config("one"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(n uint32) bson.Timestamp { return bson.Timestamp{T: n} }
	for n := range uint32(3) {
		if err := r.publish(t.Context(), watermark(at(n+1))); err != nil {
			t.Fatal(err)
		}
	}
	w, offsets, err := s.findWatermark(t.Context(), func() { t.Error("waits although there is one") })
	if err != nil {
		t.Fatal(err)
	}
	// Two offsets a transaction: the record and the mark of its end.
	if diff := cmp.Diff([]int64{4, 4, 4}, offsets); diff != "" || w != at(3) {
		t.Errorf("watermark %v, offsets (-want +got):\n%s", w, diff)
	}
}
