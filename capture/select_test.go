package capture

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// reselected is a configuration with another selection.
func reselected(t *testing.T, cfg Config, p rules.Patterns) Config {
	t.Helper()
	s, err := rules.CompileSelection(p.Include, p.Exclude)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Select, cfg.Patterns = s, p
	return cfg
}

// reloaded lists the collections whose reload was published, in order of names.
func reloaded(t *testing.T, cfg Config) []string {
	t.Helper()
	var names []string
	for _, r := range committed(t, cfg) {
		if r.partition == 0 && r.event.Op == event.OpReloadEnd {
			names = append(names, r.event.NS.String())
		}
	}
	slices.Sort(names)
	return names
}

// TestChangedSelection: what a group's changed selection adds is loaded by a
// capture that has the same one, and not by one that has another; and a capture
// that was narrower than a group for a while makes that good.
func TestChangedSelection(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t)
	for ns, n := range map[[2]string]int{{"shop", "orders"}: 2, {"shop", "items"}: 1, {"crm", "customers"}: 3} {
		for i := range n {
			if _, err := source.Client.Database(ns[0]).Collection(ns[1]).InsertOne(t.Context(), bson.D{{Key: "_id", Value: i}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	narrow, wide := rules.Patterns{Include: []string{"shop.*"}}, rules.Patterns{Include: []string{"shop.*", "crm.*"}}
	base := mongoConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), source)
	a := newAsker(t, base)
	change := state.SelectChange{Was: rules.Layers{narrow, {Exclude: []string{"shop.items"}}}, Now: rules.Layers{wide, {}}}
	asked, err := change.Request("copy", "")
	if err != nil {
		t.Fatal(err)
	}
	pending := func(want bool) {
		t.Helper()
		testenv.Eventually(t, 2*time.Minute, func() error {
			view, err := state.Load(t.Context(), base.Kafka, route.TopicsOf(base.Pipeline).State)
			if err != nil {
				return err
			}
			if view.ControlOffset() <= a.last || want != (len(view.Requests()) > 0) {
				return errors.New("requests are not as expected")
			}
			return nil
		})
	}

	service := start(t, reselected(t, base, narrow))
	untilNow(t, base, source)
	a.ask(*asked)
	pending(true)
	service.stop()
	if got := reloaded(t, base); len(got) > 0 {
		t.Fatalf("reloaded %v under another selection", got)
	}

	service = start(t, reselected(t, base, wide))
	pending(false)
	if diff := cmp.Diff([]string{"crm.customers", "shop.items"}, reloaded(t, base)); diff != "" {
		t.Fatalf("reloaded (-want +got):\n%s", diff)
	}
	service.stop()

	// A group that goes on with the wider selection misses what a narrower
	// capture does not publish.
	registered, err := state.Record(route.TopicsOf(base.Pipeline).State, state.KeyGroup("copy", ""), state.GroupRegistration{
		Destination: "copy", Phase: state.PhaseChanges, Select: change.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kafka.NewClient(kafka.Config{Brokers: base.Kafka.Brokers, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), registered).FirstErr(); err != nil {
		t.Fatal(err)
	}
	service = start(t, reselected(t, base, narrow))
	if _, err := source.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: "narrow"}}); err != nil {
		t.Fatal(err)
	}
	untilNow(t, base, source)
	service.stop()
	service = start(t, reselected(t, base, wide))
	testenv.Eventually(t, 2*time.Minute, func() error {
		if diff := cmp.Diff([]string{"crm.customers", "crm.customers", "shop.items"}, reloaded(t, base)); diff != "" {
			return errors.New("reloaded (-want +got):\n" + diff)
		}
		return nil
	})
	service.stop()
}

// TestReloadsOfSelection: an event that meets a collection before the reload that
// a changed selection brings asks for nothing more; everybody else may.
func TestReloadsOfSelection(t *testing.T) {
	r := newRequests("x", state.NewView(), zerolog.Nop())
	request := func(id, group string, uuid event.UUID) *state.Request {
		return &state.Request{Kind: state.RequestReload, ID: id, Destination: "copy", Group: group, DB: "shop", Coll: "orders", UUID: uuid}
	}
	r.ask(request("copy/select//0/1", "", event.UUID{1}))
	for name, test := range map[string]struct {
		asked *state.Request
		want  bool
	}{
		"by an event":            {request("copy/00/1.2.3", "", event.UUID{1}), true},
		"by the operator":        {request("operator-1", "", event.UUID{1}), false},
		"by another group":       {request("copy.hot/00/1.2.3", "hot", event.UUID{1}), false},
		"for another collection": {request("copy/00/1.2.3", "", event.UUID{2}), false},
	} {
		if got := r.covered(test.asked); got != test.want {
			t.Errorf("asked %s: %t, want %t", name, got, test.want)
		}
	}
}

// TestSelectionsSucceed: a change that is pending lives on in the next one.
func TestSelectionsSucceed(t *testing.T) {
	r := newRequests("x", state.NewView(), zerolog.Nop())
	pattern := func(names ...string) rules.Layers { return rules.Layers{{Include: names}} }
	ask := func(was, now rules.Layers) {
		t.Helper()
		asked, err := (&state.SelectChange{Was: was, Now: now}).Request("copy", "")
		if err != nil {
			t.Fatal(err)
		}
		r.ask(asked)
	}
	ask(pattern("a.*", "b.*"), pattern("a.*", "c.*"))        // b goes, c comes
	ask(pattern("a.*", "c.*"), pattern("a.*", "b.*", "c.*")) // b comes again
	if len(r.queue) != 1 {
		t.Fatalf("%d requests are pending", len(r.queue))
	}
	added, err := r.queue[0].Select.Added()
	if err != nil {
		t.Fatal(err)
	}
	for db, want := range map[string]bool{"a": false, "b": true, "c": true, "d": false} {
		if got := added(db, "x"); got != want {
			t.Errorf("%s.x is added: %t, want %t", db, got, want)
		}
	}
}
