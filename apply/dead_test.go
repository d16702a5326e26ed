package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// letters returns the destination's dead letters.
func (r *rig) letters(t testing.TB) []DeadLetter {
	t.Helper()
	list, err := DeadLetters(t.Context(), r.deadConfig())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (r *rig) deadConfig() DeadConfig {
	return DeadConfig{Pipeline: r.pair.Pipeline, Destination: "dest", Kafka: r.kafka, Client: r.dest.Client}
}

func summaries(list []DeadLetter) []string {
	var out []string
	for _, l := range list {
		out = append(out, fmt.Sprintf("%s %s %s %s", l.Op, l.NS, l.ID, l.State))
	}
	return out
}

// TestDeadLetters sends an event that the destination cannot hold to the
// dead-letter topic, and the document's updates after it, while everything else
// goes on; an image that can be applied ends that, one that cannot is a letter
// itself. The operator has the image asked for again.
func TestDeadLetters(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		r.edit = func(c *Config) { c.OnError = OnErrorDeadLetter }
		c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
		unique := indexSpecOf(t, "card", bson.E{Key: "unique", Value: true})
		m := r.begin(t, c)
		s := r.start(t, "a")
		r.load(t, m, c)
		r.await(t, r.watermark(t), s)
		if err := createIndexes(t.Context(), r.dest.Client.Database("shop"), "orders", []bson.Raw{unique}); err != nil {
			t.Fatal(err)
		}
		doc := func(id, card string) bson.D {
			return bson.D{{Key: "_id", Value: id}, {Key: "card", Value: card}}
		}
		card := func(id, card string) event.Event {
			return updated(t, c.ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "card", Value: card}}}})
		}
		r.publish(t, inserted(t, c.ns, doc("a", "4111")), inserted(t, c.ns, doc("other", "1")))
		r.await(t, r.watermark(t), s)
		r.publish(t, inserted(t, c.ns, doc("b", "4111")))
		r.await(t, r.watermark(t), s) // in one batch with what follows it could be applied
		r.publish(t, card("b", "4112"), card("b", "4113"), card("other", "2"))
		r.await(t, r.watermark(t), s)
		r.same(t, c.ns, []bson.Raw{raw(t, doc("a", "4111")), raw(t, doc("other", "2"))})
		want := []string{`insert shop.orders "b" asked`, `update shop.orders "b" asked`, `update shop.orders "b" asked`}
		if diff := cmp.Diff(want, summaries(r.letters(t))); diff != "" {
			t.Fatalf("letters (-want +got):\n%s", diff)
		}
		for _, l := range r.letters(t) {
			if l.Partition < 0 || l.Position == "" || l.Reason == "" || strings.Contains(l.Reason, "4111") {
				t.Errorf("letter %+v", l)
			}
		}

		// Over a restart, an image that cannot be applied either.
		s.stop(t)
		image := inserted(t, c.ns, doc("b", "4111"))
		image.Op = event.OpRefresh
		r.publish(t, image)
		r.watermark(t)
		s = r.start(t, "b")
		r.await(t, r.watermark(t), s)
		want = []string{`insert shop.orders "b" given up`, `update shop.orders "b" given up`, `update shop.orders "b" given up`, `refresh shop.orders "b" given up`}
		if diff := cmp.Diff(want, summaries(r.letters(t))); diff != "" {
			t.Fatalf("letters after the image (-want +got):\n%s", diff)
		}
		cfg := r.deadConfig()
		if n, err := RetryDead(t.Context(), cfg, nil); n != 1 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		if got := summaries(r.letters(t)); !strings.HasSuffix(got[0], "asked") {
			t.Errorf("after retry: %v", got)
		}
		if n, err := DiscardDead(t.Context(), cfg, []int64{0}); n != 1 || err != nil {
			t.Errorf("discard: %d, %v", n, err)
		}
		if got := summaries(r.letters(t)); !strings.HasSuffix(got[0], "discarded") {
			t.Errorf("after discard: %v", got)
		}

		// The image that was asked for.
		image = inserted(t, c.ns, doc("b", "4113"))
		image.Op = event.OpRefresh
		r.publish(t, image, updated(t, c.ns, "b", bson.D{{Key: "i", Value: bson.D{{Key: "state", Value: "paid"}}}}))
		r.await(t, r.watermark(t), s)
		r.same(t, c.ns, []bson.Raw{raw(t, doc("a", "4111")), raw(t, doc("other", "2")), raw(t, append(doc("b", "4113"), bson.E{Key: "state", Value: "paid"}))})
		if got := summaries(r.letters(t)); len(got) != 4 || !strings.HasSuffix(got[0], "settled") {
			t.Errorf("at the end: %v", got)
		}
		if ends := r.ends(t, route.DeadTopic(r.pair.Pipeline, "dest")); len(ends) != 1 {
			t.Errorf("the topic has %d partitions", len(ends))
		}
		s.stop(t)
	})
}
