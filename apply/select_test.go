package apply

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestSelectionIsTakenAway: a process that still has the old selection when
// another one has written down a new one writes nothing more; and what that one
// left unfinished when it was killed, the next makes hold.
func TestSelectionIsTakenAway(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	selected := func(layers rules.Layers, digest string) func(*Config) {
		s, err := layers.Compile()
		if err != nil {
			t.Fatal(err)
		}
		return func(cfg *Config) {
			cfg.Rules.Selection, cfg.Select, cfg.RulesDigest, cfg.FixedDigest = s, layers, digest, "fixed"
		}
	}
	was, now := rules.Layers{{Include: []string{"shop.orders"}}, {}}, rules.Layers{{Include: []string{"shop.items"}}, {}}
	orders := event.Namespace{DB: "shop", Coll: "orders"}
	c := collection{ns: orders, uuid: event.UUID{1}, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "1"}})}}
	m := r.begin(t, c)
	r.load(t, m, c)
	r.edit = selected(was, "old")
	old := r.start(t, "old")
	r.await(t, r.watermark(t), old)

	// As the other process does, before it is killed.
	store := newStore(r.dest.Client, groupID{Pipeline: r.pair.Pipeline, Group: "dest"}, "killed", topicNames{changes: r.topics.Changes, snapshot: r.topics.Snapshot})
	change := &state.SelectChange{Was: was, Now: now}
	ok, err := store.changeGroup(t.Context(), "old", field("rules", "new"), field("select", now), field("change", change))
	if err != nil || !ok {
		t.Fatalf("the record was not changed: %v", err)
	}
	if err := store.raiseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	var late []event.Event
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} { // in all partitions
		late = append(late, inserted(t, orders, bson.D{{Key: "_id", Value: id}}))
	}
	r.publish(t, late...)
	r.watermark(t)
	if err := old.fails(t); !strings.Contains(err.Error(), "other rules") || !strings.Contains(err.Error(), "(selection)") {
		t.Errorf("a process with the old selection ended with %v", err)
	}

	r.edit = selected(now, "new")
	next := r.start(t, "next")
	r.await(t, r.watermark(t), next)
	r.same(t, orders, c.docs)
	g, _, err := store.group(t.Context())
	if err != nil || g.Change != nil || !g.Select.Equal(now) {
		t.Errorf("the group's record is %+v: %v", g, err)
	}
	asked, err := change.Request("dest", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := requested(t, r, asked.ID); err != nil {
		t.Error(err)
	}
}

// requested waits for a request on the control topic.
func requested(t *testing.T, r *rig, id string) error {
	t.Helper()
	client, err := kafka.NewClient(r.kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topics.Control: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer client.Close()
	fetches := client.PollFetches(t.Context())
	if err := fetches.Err(); err != nil {
		return err
	}
	for _, record := range fetches.Records() {
		if _, q, err := state.DecodeCommand(record.Value); err == nil && q != nil && q.ID == id && q.Kind == state.RequestSelect {
			return nil
		}
	}
	return errors.New("nobody asked for what the selection adds")
}
