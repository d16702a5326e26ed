package apply

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// asked returns the requests on the control topic when there are at least n.
func (r *rig) asked(t testing.TB, n int) []*state.Request {
	t.Helper()
	client, err := kafka.NewClient(r.kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topics.Control: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), settled)
	defer cancel()
	var list []*state.Request
	for len(list) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d requests were sent, want %d", len(list), n)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			_, request, err := state.DecodeCommand(record.Value)
			if err != nil {
				t.Error(err)
			}
			list = append(list, request)
		})
	}
	return list
}

// outbox returns the entries of the group's outbox.
func (r *rig) outbox(t testing.TB) []requestRecord {
	t.Helper()
	cursor, err := r.dest.Client.Database(ownDatabase).Collection(requestsCollection).Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var list []requestRecord
	if err := cursor.All(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// emptied waits until the outbox holds nothing.
func (r *rig) emptied(t testing.TB) {
	t.Helper()
	testenv.Eventually(t, settled, func() error {
		if list := r.outbox(t); len(list) > 0 {
			return fmt.Errorf("%d entries, the first: %s of %s, %s", len(list), list[0].State, list[0].NS, list[0].Reason)
		}
		return nil
	})
}

// refreshed is the image of a document, or its absence.
func refreshed(t testing.TB, ns event.Namespace, id any, doc any) event.Event {
	e := event.Event{Op: event.OpRefresh, NS: ns, DocumentKey: keyOf(t, id)}
	if doc != nil {
		e.Document = raw(t, doc)
	}
	return e
}

// TestRefreshInPlaceOfStop meets updates that the destination cannot apply: the
// stream goes on, one request is sent for each document, and the image makes it
// good, over restarts too.
func TestRefreshInPlaceOfStop(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		ns := event.Namespace{DB: "shop", Coll: "orders"}
		held := func(id string, a any) bson.D { return bson.D{{Key: "_id", Value: id}, {Key: "a", Value: a}} }
		c := collection{ns: ns, docs: []bson.Raw{raw(t, held("misfit", int32(1))), raw(t, held("byhand", int32(1))), raw(t, held("fine", int32(1)))}}
		r.load(t, r.begin(t, c), c)
		s := r.start(t, "a")
		r.await(t, r.watermark(t), s)
		if _, err := r.dest.Client.Database(ns.DB).Collection(ns.Coll).DeleteOne(t.Context(), bson.D{{Key: "_id", Value: "byhand"}}); err != nil {
			t.Fatal(err)
		}
		set := func(id string, n int32) event.Event {
			return updated(t, ns, id, bson.D{{Key: "u", Value: bson.D{{Key: "a", Value: n}}}})
		}
		r.publish(t, set("byhand", 2), set("fine", 2),
			updated(t, ns, "misfit", bson.D{{Key: "sa", Value: bson.D{{Key: "u", Value: bson.D{{Key: "x", Value: int32(1)}}}}}}))
		r.await(t, r.watermark(t), s)
		r.publish(t, set("byhand", 3), set("misfit", 4), set("fine", 3))
		r.await(t, r.watermark(t), s)
		// Neither has taken an update since.
		r.same(t, ns, []bson.Raw{raw(t, held("fine", int32(3))), raw(t, held("misfit", int32(1)))})
		wanted := map[string]bool{}
		for _, request := range r.asked(t, 1) {
			if request.Kind != state.RequestRefresh || request.Namespace() != ns || request.Destination != "dest" {
				t.Errorf("got %+v", request)
			}
			for _, id := range request.IDs {
				wanted[bson.Raw(id).Lookup("_id").StringValue()] = true
			}
		}
		if n := len(r.outbox(t)); n != 2 {
			t.Errorf("%d entries, want 2", n)
		}
		s.stop(t)

		// The requests survive; so does what they mean for further updates.
		s = r.start(t, "b")
		r.publish(t, set("misfit", 5), refreshed(t, ns, "byhand", held("byhand", int32(6))), set("byhand", 7), refreshed(t, ns, "misfit", nil))
		r.await(t, r.watermark(t), s)
		r.same(t, ns, []bson.Raw{raw(t, held("fine", int32(3))), raw(t, held("byhand", int32(7)))})
		r.emptied(t)
		s.stop(t)
		if s.err != nil {
			t.Error(s.err)
		}
	})
}

// TestLaterImage applies an image as of a later time: up to that, the document
// is catching up, also after a restart.
func TestLaterImage(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		ns := event.Namespace{DB: "shop", Coll: "orders"}
		c := collection{ns: ns}
		r.load(t, r.begin(t, c), c)
		s := r.start(t, "a")
		r.await(t, r.watermark(t), s)
		image := refreshed(t, ns, "x", bson.D{{Key: "_id", Value: "x"}, {Key: "a", Value: int32(9)}})
		image.Position = r.tick()
		image.AsOf = bson.Timestamp{T: r.clock + 3, I: 1}
		inside := bson.D{{Key: "sa", Value: bson.D{{Key: "u", Value: bson.D{{Key: "y", Value: int32(1)}}}}}}
		r.publish(t, image, updated(t, ns, "x", inside))
		r.await(t, r.watermark(t), s)
		s.stop(t)
		s = r.start(t, "b")
		// Whatever does not fit is made good by what makes the image of what it
		// will be.
		r.publish(t, updated(t, ns, "x", bson.D{{Key: "u", Value: bson.D{{Key: "a", Value: int32(9)}}}}))
		r.publish(t, updated(t, ns, "x", bson.D{{Key: "i", Value: bson.D{{Key: "b", Value: int32(1)}}}}))
		r.await(t, r.watermark(t), s)
		r.same(t, ns, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "x"}, {Key: "a", Value: int32(9)}, {Key: "b", Value: int32(1)}})})
		for _, entry := range r.outbox(t) {
			if entry.State != requestSettling {
				t.Errorf("entry in state %s: %s", entry.State, entry.Reason)
			}
		}
		s.stop(t)
		// The time is passed, so now it is an update that does not fit.
		s = r.start(t, "c")
		r.await(t, r.watermark(t), s)
		r.publish(t, updated(t, ns, "x", inside))
		r.await(t, r.watermark(t), s)
		if list := r.asked(t, 1); len(list) != 1 || len(list[0].IDs) != 1 {
			t.Errorf("%d requests", len(list))
		}
		s.stop(t)
	})
}

// modified is an update as servers before 5.0 log it.
func modified(t testing.TB, ns event.Namespace, id any, set, unset bson.D) event.Event {
	t.Helper()
	var sets, unsets bson.Raw
	if set != nil {
		sets = raw(t, set)
	}
	if unset != nil {
		unsets = raw(t, unset)
	}
	delta, err := event.DeltaFromModifiers(sets, unsets)
	if err != nil {
		t.Fatal(err)
	}
	return event.Event{Op: event.OpUpdate, NS: ns, DocumentKey: keyOf(t, id), Delta: delta}
}

// TestOrderInDoubt replays updates that do not say what was new over a later
// state: a document from which that takes a field before it adds one is asked
// for whole, others are not; also where a restart comes in between.
func TestOrderInDoubt(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		ns := event.Namespace{DB: "shop", Coll: "orders"}
		doc := func(id string) bson.Raw {
			return raw(t, bson.D{{Key: "_id", Value: id}, {Key: "b", Value: int32(1)}, {Key: "a", Value: int32(2)}, {Key: "c", Value: int32(3)}})
		}
		c := collection{ns: ns, docs: []bson.Raw{doc("moved"), doc("removed"), doc("added"), doc("plain")}}
		m := r.begin(t, c)
		first := []event.Event{
			modified(t, ns, "moved", nil, bson.D{{Key: "a", Value: true}}),
			modified(t, ns, "removed", nil, bson.D{{Key: "a", Value: true}}),
			modified(t, ns, "added", bson.D{{Key: "d", Value: int32(4)}}, nil),
			modified(t, ns, "plain", bson.D{{Key: "a", Value: int32(5)}}, nil),
		}
		second := []event.Event{
			modified(t, ns, "moved", bson.D{{Key: "a", Value: int32(2)}}, nil),
			modified(t, ns, "moved", bson.D{{Key: "c", Value: int32(3)}}, nil),
		}
		for _, events := range [][]event.Event{first, second} {
			for i := range events {
				events[i].Position = r.tick()
			}
		}
		r.clock += 5
		r.load(t, m, c)
		r.publish(t, first...)
		mark := event.Event{Op: event.OpWatermark, Position: event.Position{Time: bson.Timestamp{T: first[3].Position.Time.T, I: 1}, Term: 1}}
		r.publish(t, mark)
		s := r.start(t, "a")
		testenv.Eventually(t, settled, func() error {
			for _, entry := range r.outbox(t) {
				if entry.State == requestShaken {
					return r.through(t, mark.Position.Time)
				}
			}
			return errors.New("nothing was taken down")
		})
		s.stop(t)
		s = r.start(t, "b")
		r.publish(t, second...)
		r.await(t, r.watermark(t), s)
		requests := r.asked(t, 1)
		if len(requests) != 1 || len(requests[0].IDs) != 1 || bson.Raw(requests[0].IDs[0]).Lookup("_id").StringValue() != "moved" {
			t.Errorf("got %d requests", len(requests))
		}
		image := doc("moved")
		r.publish(t, refreshed(t, ns, "moved", image))
		r.await(t, r.watermark(t), s)
		r.same(t, ns, []bson.Raw{
			image, raw(t, bson.D{{Key: "_id", Value: "removed"}, {Key: "b", Value: int32(1)}, {Key: "c", Value: int32(3)}}),
			raw(t, bson.D{{Key: "_id", Value: "added"}, {Key: "b", Value: int32(1)}, {Key: "a", Value: int32(2)}, {Key: "c", Value: int32(3)}, {Key: "d", Value: int32(4)}}),
			raw(t, bson.D{{Key: "_id", Value: "plain"}, {Key: "b", Value: int32(1)}, {Key: "a", Value: int32(5)}, {Key: "c", Value: int32(3)}}),
		})
		s.stop(t)
		// What is left does no more than stand there, and the next sender
		// takes it away.
		s = r.start(t, "c")
		r.emptied(t)
		s.stop(t)
	})
}

// through reports whether every partition has passed a watermark.
func (r *rig) through(t testing.TB, w bson.Timestamp) error {
	t.Helper()
	offsets, err := r.offsets(t)
	if err != nil {
		return err
	}
	for _, o := range offsets {
		if o.ID.Topic == r.topics.Changes && event.CompareTimes(o.Watermark, w) < 0 {
			return fmt.Errorf("partition %d stands at %v", o.ID.Partition, o.Watermark)
		}
	}
	return nil
}

// TestRequestIsSentAgain is a request that capture ended without a result: once
// everything that capture had published by then is applied, it is sent again.
func TestRequestIsSentAgain(t *testing.T) {
	e := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}
	r := newRig(t, e)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
	r.load(t, r.begin(t, c), c)
	s := r.start(t, "a")
	r.await(t, r.watermark(t), s)
	r.publish(t, updated(t, c.ns, "x", bson.D{{Key: "u", Value: bson.D{{Key: "a", Value: int32(1)}}}}))
	r.await(t, r.watermark(t), s)
	first := r.asked(t, 1)[0]
	s.stop(t)

	service, err := New(r.config("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer service.fetcher.client.Close()
	if err := service.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = service.client.Disconnect(context.Background()) }()
	g, _, err := service.store.group(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	service.phases.publish(g)
	rounds := func(n int) int {
		for range n {
			if err := service.sender.round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return len(r.asked(t, 1))
	}
	if n := rounds(3); n != 1 {
		t.Fatalf("%d requests; capture has not taken the first over", n)
	}
	r.put(t, state.KeyControl(), state.ControlOffset{Offset: 1})
	r.put(t, state.KeyRequest(first.ID), state.PendingRequest{Request: *first, Now: c.ns})
	if n := rounds(3); n != 1 {
		t.Fatalf("%d requests; the first is pending", n)
	}
	r.produce(t, &kgo.Record{Topic: r.topics.State, Key: []byte(state.KeyRequest(first.ID))})
	ahead := event.Position{Time: bson.Timestamp{T: r.clock + 5, I: 1}}
	r.put(t, state.KeyPosition(), state.CapturePosition{ReadFrom: ahead, PublishedThrough: ahead})
	if n := rounds(3); n != 1 {
		t.Fatalf("%d requests; the result of the first may still come", n)
	}
	r.clock += 10
	s = r.start(t, "c")
	r.await(t, r.watermark(t), s)
	s.stop(t)
	if n := rounds(2); n != 2 {
		t.Fatalf("%d requests, want the second", n)
	}
	if again := r.asked(t, 2)[1]; time.Since(again.Asked) < 0 || len(again.IDs) != 1 {
		t.Errorf("got %+v", again)
	}
}
