package snapshot

import (
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

func TestRenameDuringTheLoadFailsTheRun(t *testing.T) {
	pair := testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: testenv.StandIn(t), Pipeline: testenv.NewPipeline(t)}
	for _, test := range []struct {
		name     string
		from, to string
		fails    bool
	}{
		{"of a loaded collection", "shop.orders", "other.orders", true},
		{"into the selection", "other.x", "shop.new", true},
		{"of neither", "other.x", "other.y", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair.Pipeline = testenv.NewPipeline(t)
			r := newRig(t, pair)
			fill(t, r.source, event.Namespace{DB: "shop", Coll: "orders"}, objectIDs(50), 10)
			w := r.now(t)
			if err := r.publish(t.Context(), watermark(w)); err != nil {
				t.Fatal(err)
			}
			// Later than W, not later than R; the service itself writes to a
			// stand-in as well.
			fill(t, r.source, event.Namespace{DB: "shop", Coll: "orders"}, objectIDs(5), 10)
			end := r.now(t)
			from, err := event.ParseNamespace(test.from)
			if err != nil {
				t.Fatal(err)
			}
			ddl, err := bson.Marshal(bson.D{{Key: "to", Value: test.to}})
			if err != nil {
				t.Fatal(err)
			}
			rename := event.Event{Op: event.OpRename, NS: from, DDL: ddl, Position: event.Position{Time: end}, WallTime: time.Unix(0, 0)}
			cfg := r.config("one")
			if cfg.Select, err = rules.CompileSelection([]string{"shop.*"}, nil); err != nil {
				t.Fatal(err)
			}
			var g errgroup.Group
			g.Go(func() error { return r.run(t, cfg) })
			testenv.Eventually(t, 30*time.Second, func() error {
				if _, found := r.state(t).LatestRun(); !found {
					return errors.New("no run yet")
				}
				return nil
			})
			if err := r.publish(t.Context(), rename, watermark(r.now(t))); err != nil {
				t.Fatal(err)
			}
			err = g.Wait()
			failed, isFailed := errors.AsType[*RunFailedError](err)
			if isFailed != test.fails {
				t.Fatalf("error %v", err)
			}
			m, _ := r.state(t).LatestRun()
			if !test.fails {
				if m.State != state.RunComplete {
					t.Errorf("run is %s", m.State)
				}
				return
			}
			for _, want := range []string{test.from + " to " + test.to, "hint: "} {
				if !strings.Contains(failed.Cause, want) {
					t.Errorf("cause %q does not say %q", failed.Cause, want)
				}
			}
			if m.State != state.RunFailed || m.Cause != failed.Cause {
				t.Errorf("manifest is %s: %s", m.State, m.Cause)
			}
			// It stays failed.
			if err := r.run(t, cfg); err == nil {
				t.Error("a failed run is taken up again")
			}
		})
	}
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
