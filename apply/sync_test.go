package apply

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestOneOffNoticesWrites ends a copy during which the source was written to: the
// copy holds what was loaded, and the outcome says what it is, now and after a
// restart. Writes before and behind the copy, and outside of the selection, do
// not count.
func TestOneOffNoticesWrites(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	r.edit = func(cfg *Config) { cfg.Sync = Sync{Schema: true, Full: true} }
	orders, moved := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "moved"}
	c := collection{ns: orders, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "1"}, {Key: "n", Value: 1}})}}
	r.publish(t, inserted(t, orders, bson.D{{Key: "_id", Value: "before"}}))
	m := r.begin(t, c)
	r.publish(
		t,
		inserted(t, orders, bson.D{{Key: "_id", Value: "2"}}),
		deleted(t, orders, "1"),
		event.Event{Op: event.OpRename, NS: orders, DDL: raw(t, bson.D{{Key: "renameCollection", Value: orders.String()}, {Key: "to", Value: moved.String()}})},
		inserted(t, event.Namespace{DB: "admin", Coll: "x"}, bson.D{{Key: "_id", Value: "3"}}),
	)
	r.load(t, m, c)
	r.watermark(t)
	r.publish(t, inserted(t, orders, bson.D{{Key: "_id", Value: "behind"}}))
	for _, instance := range []string{"a", "again"} {
		s := r.start(t, instance)
		testenv.Receive(t, settled, "end of the copy", s.done)
		if s.err != nil {
			t.Fatal(s.err)
		}
		o, ok := s.service.Outcome()
		if !ok || o.Consistent {
			t.Fatalf("%s: outcome %+v %t", instance, o, ok)
		}
		for _, want := range []string{"not one point in time", "2 changes of documents and 1 of definitions", "shop.orders", "may be missing", "hint:"} {
			if !strings.Contains(o.Text, want) {
				t.Errorf("%s: no %q in %q", instance, want, o.Text)
			}
		}
	}
	r.same(t, orders, c.docs)
}

// TestLateGroup has a group begin with a run of which Kafka has deleted a part.
func TestLateGroup(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	for name, test := range map[string]struct {
		cut  func(r *rig) string
		sync Sync
		want string
	}{
		"changes":              {func(r *rig) string { return r.topics.Changes }, Sync{}, "longer kafka.retention"},
		"documents":            {func(r *rig) string { return r.topics.Snapshot }, Sync{}, "snapshot.retain_runs"},
		"documents not needed": {func(r *rig) string { return r.topics.Snapshot }, Sync{Schema: true}, ""},
		"nothing":              {func(*rig) string { return "" }, Sync{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, testenv.Pair{Broker: broker, MongoDB: m, Pipeline: testenv.NewPipeline(t)})
			r.edit = func(cfg *Config) { cfg.Sync = test.sync }
			c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "1"}})}}
			manifest := r.begin(t, c)
			r.load(t, manifest, c)
			r.watermark(t)
			r.watermark(t)
			if topic := test.cut(r); topic != "" {
				cut := kadm.Offsets{}
				for p, end := range r.ends(t, topic) {
					cut.AddOffset(topic, int32(p), end, -1)
				}
				if _, err := kadm.NewClient(r.client).DeleteRecords(t.Context(), cut); err != nil {
					t.Fatal(err)
				}
			}
			s := r.start(t, "a")
			if test.want == "" {
				testenv.Eventually(t, settled, func() error {
					if g, _, _ := s.service.phases.current(); g.Phase != state.PhaseChanges && g.Phase != state.PhaseDone {
						return errors.New("the group is in phase " + g.Phase)
					}
					return nil
				})
				return
			}
			if err := s.fails(t); !errors.Is(err, errHistoryLost) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
