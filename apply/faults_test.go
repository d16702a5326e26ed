package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// history is a random history of one collection with the state that it leads
// to, kept by our own rules.
type history struct {
	t    *testing.T
	rand *rand.Rand
	ns   event.Namespace
	docs map[string]bson.Raw
	n    int
}

func newHistory(t *testing.T, ns event.Namespace) *history {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return &history{t: t, rand: rand.New(rand.NewPCG(seed, 0)), ns: ns, docs: map[string]bson.Raw{}}
}

// next makes the next event. Updates count, so that one applied twice or not at
// all shows in the result even where it would be idempotent.
func (h *history) next() event.Event {
	h.n++
	id := fmt.Sprintf("d%d", h.rand.IntN(60))
	held, exists := h.docs[id]
	switch {
	case !exists:
		e := inserted(h.t, h.ns, bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(h.n)}, {Key: "list", Value: bson.A{}}})
		h.docs[id] = e.Document
		return e
	case h.rand.IntN(6) == 0:
		delete(h.docs, id)
		return deleted(h.t, h.ns, id)
	case h.rand.IntN(6) == 0:
		e := replaced(h.t, h.ns, bson.D{{Key: "_id", Value: id}, {Key: "whole", Value: int32(h.n)}, {Key: "list", Value: bson.A{int32(h.n)}}})
		h.docs[id] = e.Document
		return e
	}
	length := 0
	if list, ok := held.Lookup("list").ArrayOK(); ok {
		values, err := list.Values()
		if err != nil {
			h.t.Fatal(err)
		}
		length = len(values)
	}
	diff := bson.D{
		{Key: "i", Value: bson.D{{Key: fmt.Sprintf("f%d", h.rand.IntN(5)), Value: int32(h.n)}}},
		{Key: "slist", Value: bson.D{{Key: "a", Value: true}, {Key: fmt.Sprintf("u%d", length), Value: int32(h.n)}}},
	}
	e := updated(h.t, h.ns, id, diff)
	after, err := e.Delta.Apply(held, event.Strict)
	if err != nil {
		h.t.Fatal(err)
	}
	h.docs[id] = after
	return e
}

func (h *history) state() []bson.Raw {
	var docs []bson.Raw
	for _, d := range h.docs {
		docs = append(docs, d)
	}
	return docs
}

// TestCrashes cuts services off at random moments while a history is applied by
// two of them, and wants the state that the history leads to.
func TestCrashes(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		t.Run("as it can", func(t *testing.T) { crash(t, e, ExactlyOnceAuto) })
		if e.Exact {
			e.Pipeline = testenv.NewPipeline(t)
			t.Run("at least once", func(t *testing.T) { crash(t, e, ExactlyOnceOff) })
		}
	})
}

func crash(t *testing.T, e testenv.Pair, exactly string) {
	r := newRig(t, e)
	r.edit = func(c *Config) { c.BatchEvents = 20; c.Drain = time.Millisecond; c.ExactlyOnce = exactly }
	h := newHistory(t, event.Namespace{DB: "shop", Coll: "orders"})
	manifest := r.begin(t, collection{ns: h.ns})
	r.load(t, manifest, collection{ns: h.ns})
	running := []*service{r.start(t, "a"), r.start(t, "b")}
	const rounds, perRound = 8, 150
	for round := range rounds {
		var events []event.Event
		for range perRound {
			events = append(events, h.next())
		}
		r.publish(t, events...)
		r.watermark(t)
		i := h.rand.IntN(len(running))
		pause := time.NewTimer(time.Duration(h.rand.IntN(400)) * time.Millisecond)
		<-pause.C
		running[i].stop(t)
		running[i] = r.start(t, fmt.Sprintf("c%d", round))
	}
	r.await(t, r.watermark(t), running...)
	r.same(t, h.ns, h.state())
	for _, s := range running {
		s.stop(t)
	}
}

// TestStaleWorkerCannotWrite takes a partition away from a worker that does not
// know, as a frozen process does not.
func TestStaleWorkerCannotWrite(t *testing.T) {
	m := testenv.RequireMongoD(t)
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
	store := newStore(r.dest.Client, groupID{Pipeline: r.pair.Pipeline, Group: "dest"}, "old", topicNames{changes: "c", snapshot: "s"})
	if err := store.ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := offsetRecord{ID: store.partition("c", 0), Offset: 5, Exact: true}
	held, err := store.raise(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	old := &committer{client: r.dest.Client, store: store, exact: true, policy: r.config("x").Retry, unexpected: func(error) {}}
	if err := old.open(); err != nil {
		t.Fatal(err)
	}
	defer old.close(t.Context())
	if err := r.dest.Client.Database("f").CreateCollection(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	b := &batch{held: held, next: held}
	b.next.Offset = 6
	b.write = func(ctx context.Context, _ care) error {
		_, err := r.dest.Client.Database("f").Collection("c").InsertOne(ctx, bson.D{{Key: "_id", Value: "stale"}})
		return err
	}
	if _, err := store.raise(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := old.commit(t.Context(), b); !errors.Is(err, errLost) {
		t.Errorf("got %v, want %v", err, errLost)
	}
	old.exact = false
	if err := old.commit(t.Context(), b); !errors.Is(err, errLost) {
		t.Errorf("at least once: got %v, want %v", err, errLost)
	}
	r.same(t, event.Namespace{DB: "f", Coll: "c"}, nil)
}

// TestNewOwnerDoesNotWait takes a partition over from a worker that was killed in
// the middle of a transaction.
func TestNewOwnerDoesNotWait(t *testing.T) {
	m := testenv.RequireMongoD(t)
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)})
	store := newStore(r.dest.Client, groupID{Pipeline: r.pair.Pipeline, Group: "dest"}, "old", topicNames{changes: "c", snapshot: "s"})
	if err := store.ensureCollections(t.Context()); err != nil {
		t.Fatal(err)
	}
	killed := &committer{client: r.dest.Client, store: store, exact: true, policy: r.config("x").Retry, unexpected: func(error) {}}
	if err := killed.open(); err != nil {
		t.Fatal(err)
	}
	defer killed.close(t.Context())
	first := offsetRecord{ID: store.partition("c", 0), Offset: 5, Exact: true, Session: killed.sessionID()}
	held, err := store.raise(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.session.StartTransaction(); err != nil {
		t.Fatal(err)
	}
	next := held
	next.Offset = 6
	moved, err := store.move(mongo.NewSessionContext(t.Context(), killed.session), &held, &next)
	if err != nil || !moved {
		t.Fatalf("move in the transaction: %v, %v", moved, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first.Session = nil
	taken, err := store.raise(ctx, first)
	if err != nil {
		t.Fatalf("take over: %v", err)
	}
	if taken.Epoch != held.Epoch+1 || taken.Offset != 5 {
		t.Errorf("epoch %d and offset %d, want %d and 5", taken.Epoch, taken.Offset, held.Epoch+1)
	}
}

// TestUnknownCommitResult loses the answer to a commit, and the commit itself,
// and wants each batch to take effect once.
func TestUnknownCommitResult(t *testing.T) {
	m := testenv.RequireMongoD(t)
	pair := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: m, Pipeline: testenv.NewPipeline(t)}
	for _, fault := range []struct {
		name   string
		commit bool
		data   bson.D
	}{
		{"connection closed", true, bson.D{{Key: "failCommands", Value: bson.A{"commitTransaction"}}, {Key: "closeConnection", Value: true}}},
		{"not primary", true, bson.D{{Key: "failCommands", Value: bson.A{"commitTransaction"}}, {Key: "errorCode", Value: 10107}, {Key: "errorLabels", Value: bson.A{"RetryableWriteError"}}}},
		{"concern not satisfied", true, bson.D{{Key: "failCommands", Value: bson.A{"commitTransaction"}}, {Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "errmsg", Value: "timed out"}}}}},
		{"transient in a write", false, bson.D{{Key: "failCommands", Value: bson.A{"update", "insert", "find"}}, {Key: "errorCode", Value: 112}, {Key: "errorLabels", Value: bson.A{"TransientTransactionError"}}}},
		{"connection closed in a write", false, bson.D{{Key: "failCommands", Value: bson.A{"update", "insert", "find"}}, {Key: "closeConnection", Value: true}}},
	} {
		for _, exactly := range []string{ExactlyOnceOn, ExactlyOnceOff} {
			t.Run(fault.name+"/"+exactly, func(t *testing.T) {
				if exactly == ExactlyOnceOff && fault.commit {
					t.Skip("there is no transaction")
				}
				pair.Pipeline = testenv.NewPipeline(t)
				r := newRig(t, pair)
				r.edit = func(c *Config) { c.ExactlyOnce = exactly }
				h := newHistory(t, event.Namespace{DB: "shop", Coll: "orders"})
				manifest := r.begin(t, collection{ns: h.ns})
				r.load(t, manifest, collection{ns: h.ns})
				s := r.start(t, "a")
				r.await(t, r.watermark(t), s)
				for range 5 {
					arm := bson.D{{Key: "configureFailPoint", Value: "failCommand"}, {Key: "mode", Value: bson.D{{Key: "times", Value: 3}}}, {Key: "data", Value: append(fault.data, bson.E{Key: "appName", Value: "tributary"})}}
					if err := r.dest.Client.Database("admin").RunCommand(t.Context(), arm).Err(); err != nil {
						t.Fatal(err)
					}
					var events []event.Event
					for range 60 {
						events = append(events, h.next())
					}
					r.publish(t, events...)
					r.await(t, r.watermark(t), s)
				}
				r.same(t, h.ns, h.state())
				s.stop(t)
				var off struct{ Count int }
				err := r.dest.Client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "configureFailPoint", Value: "failCommand"}, {Key: "mode", Value: "off"}}).Decode(&off)
				if err != nil || off.Count == 0 {
					t.Errorf("the fault came %d times: %v", off.Count, err)
				}
			})
		}
	}
}

// TestBarrier has two services meet at DDL events with data before and behind
// them in every partition.
func TestBarrier(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		a, b := event.Namespace{DB: "shop", Coll: "a"}, event.Namespace{DB: "shop", Coll: "b"}
		manifest := r.begin(t, collection{ns: a})
		r.load(t, manifest, collection{ns: a})
		r.watermark(t)
		running := []*service{r.start(t, "a"), r.start(t, "b")}
		r.await(t, r.watermark(t), running...)
		ddl := func(op event.Op, ns event.Namespace, cmd bson.D) event.Event {
			return event.Event{Op: op, NS: ns, DDL: raw(t, cmd)}
		}
		var want []bson.Raw
		for round := range 4 {
			var events []event.Event
			for i := range 30 {
				events = append(events, inserted(t, a, bson.D{{Key: "_id", Value: fmt.Sprintf("%d-%d", round, i)}}))
			}
			// All of them go, in whichever partition: the drop is after each.
			events = append(events, ddl(event.OpDrop, a, bson.D{{Key: "drop", Value: "a"}}), ddl(event.OpCreate, a, bson.D{{Key: "create", Value: "a"}}))
			want = nil
			for i := range 30 {
				e := inserted(t, a, bson.D{{Key: "_id", Value: fmt.Sprintf("%d-%d", round, i)}, {Key: "again", Value: true}})
				want = append(want, e.Document)
				events = append(events, e)
			}
			events = append(events,
				ddl(event.OpCreateIndexes, a, bson.D{{Key: "createIndexes", Value: "a"}, {Key: "indexes", Value: bson.A{bson.D{{Key: "v", Value: 2}, {Key: "key", Value: bson.D{{Key: "again", Value: 1}}}, {Key: "name", Value: "again_1"}}}}}),
			)
			if !e.Exact {
				// The stand-in renames nothing.
				r.publish(t, events...)
				continue
			}
			events = append(events,
				ddl(event.OpRename, a, bson.D{{Key: "renameCollection", Value: a.String()}, {Key: "to", Value: b.String()}, {Key: "dropTarget", Value: round > 0}}),
				ddl(event.OpCreate, a, bson.D{{Key: "create", Value: "a"}}),
			)
			r.publish(t, events...)
		}
		r.await(t, r.watermark(t), running...)
		last := b
		if !e.Exact {
			last = a
		} else {
			r.same(t, a, nil)
		}
		r.same(t, last, want)
		for _, s := range running {
			s.stop(t)
		}
	})
}
