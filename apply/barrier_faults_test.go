package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// script publishes rounds of DDL with data before and behind each of it, in all
// partitions, and keeps what they lead to. The collection b of a round is a of
// the same round under another name.
type script struct {
	r     *rig
	a, b  event.Namespace
	round int
	uuids byte
	// inA and inB are the documents after the last round.
	inA, inB []bson.Raw
}

func newScript(t *testing.T, r *rig) *script {
	t.Helper()
	s := &script{r: r, a: event.Namespace{DB: "shop", Coll: "a"}, b: event.Namespace{DB: "shop", Coll: "b"}}
	loaded := collection{ns: s.a, uuid: s.uuid()}
	r.load(t, r.begin(t, loaded), loaded)
	return s
}

// uuid makes the UUID of the next collection.
func (s *script) uuid() event.UUID {
	s.uuids++
	return event.UUID{0: s.uuids, 15: 1}
}

func (s *script) now() event.UUID { return event.UUID{0: s.uuids, 15: 1} }

func (s *script) ddl(t *testing.T, op event.Op, cmd bson.D) event.Event {
	return event.Event{Op: op, NS: s.a, UUID: s.now(), DDL: raw(t, cmd)}
}

// insert makes n inserts into a, with ids of their own.
func (s *script) insert(t *testing.T, n int, what string) (events []event.Event, docs []bson.Raw) {
	for i := range n {
		e := inserted(t, s.a, bson.D{{Key: "_id", Value: fmt.Sprintf("%d-%s-%d", s.round, what, i)}, {Key: "x", Value: int32(i)}})
		e.UUID = s.now()
		events, docs = append(events, e), append(docs, e.Document)
	}
	return events, docs
}

// scriptDDL is how many barriers a round has.
const scriptDDL = 6

// play publishes one round and returns the watermark behind it.
func (s *script) play(t *testing.T) bson.Timestamp {
	t.Helper()
	s.round++
	events, _ := s.insert(t, 12, "dropped")
	events = append(events, s.ddl(t, event.OpDrop, bson.D{{Key: "drop", Value: "a"}}))
	s.uuid()
	events = append(events, s.ddl(t, event.OpCreate, bson.D{{Key: "create", Value: "a"}}))
	kept, docs := s.insert(t, 12, "renamed")
	events, s.inB = append(events, kept...), docs
	events = append(events,
		s.ddl(t, event.OpCreateIndexes, bson.D{{Key: "createIndexes", Value: "a"}, {Key: "indexes", Value: bson.A{
			bson.D{{Key: "v", Value: 2}, {Key: "key", Value: bson.D{{Key: "x", Value: 1}}}, {Key: "name", Value: "x_1"}},
		}}}),
		s.ddl(t, event.OpRename, bson.D{{Key: "renameCollection", Value: "shop.a"}, {Key: "to", Value: "shop.b"}, {Key: "dropTarget", Value: s.round > 1}}))
	s.uuid()
	events = append(events, s.ddl(t, event.OpCreate, bson.D{{Key: "create", Value: "a"}}))
	kept, docs = s.insert(t, 12, "kept")
	events, s.inA = append(events, kept...), docs
	events = append(events, s.ddl(t, event.OpModify, bson.D{
		{Key: "collMod", Value: "a"}, {Key: "validator", Value: bson.D{{Key: "round", Value: int32(s.round)}}}, {Key: "validationLevel", Value: "moderate"},
	}))
	s.r.publish(t, events...)
	return s.r.watermark(t)
}

// check wants the documents and the catalogue of the last round.
func (s *script) check(t *testing.T) {
	t.Helper()
	s.r.same(t, s.a, s.inA)
	s.r.same(t, s.b, s.inB)
	want := map[string]string{
		"shop.a": fmt.Sprintf(`{"validator": {"round": {"$numberInt":"%d"}},"validationLevel": "moderate","validationAction": "error"} [_id_]`, s.round),
		"shop.b": `{} [_id_ x_1]`,
	}
	if diff := cmp.Diff(want, catalogOf(t, s.r, "shop")); diff != "" {
		t.Errorf("round %d: catalogue (-want +got):\n%s", s.round, diff)
	}
}

// catalogOf shows the collections of a database with options and indexes.
func catalogOf(t *testing.T, r *rig, db string) map[string]string {
	t.Helper()
	names, err := r.dest.Client.Database(db).ListCollectionNames(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range names {
		ns := event.Namespace{DB: db, Coll: name}
		listed, _, err := lookup(t.Context(), r.dest.Client, ns)
		if err != nil {
			t.Fatal(err)
		}
		var indexes []string
		specs, err := r.dest.Client.Database(db).Collection(name).Indexes().ListSpecifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range specs {
			indexes = append(indexes, spec.Name)
		}
		got[ns.String()] = fmt.Sprint(listed.Options, " ", indexes)
	}
	return got
}

// expireClaims lets the time of every claim be over, as the passing of the lease
// would.
func (r *rig) expireClaims(t *testing.T) {
	t.Helper()
	_, err := r.dest.Client.Database(ownDatabase).Collection(barriersCollection).UpdateMany(t.Context(),
		bson.D{{Key: "state", Value: barrierClaimed}}, set(field("deadline", time.Unix(0, 0))))
	if err != nil {
		t.Fatal(err)
	}
}

// trapAt is a seam that calls caught once, at the n-th time that a step is
// reached; skip counts down from n.
func trapAt(at step, skip int, caught func(context.Context)) func(context.Context, step) {
	var left atomic.Int64
	left.Store(int64(skip))
	return func(ctx context.Context, reached step) {
		if reached == at && left.Add(-1) == -1 {
			caught(ctx)
		}
	}
}

// TestBarrierCrash cuts a service off at every step of a barrier, of a random
// one of a round, and has the next service finish the round.
func TestBarrierCrash(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	r.edit = func(c *Config) { c.Drain = time.Millisecond }
	s := newScript(t, r)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, at := range []step{stepMet, stepArrived, stepClaimed, stepHeld, stepExecuted, stepDone} {
		hit := make(chan struct{})
		victim := r.startAt(t, "victim", trapAt(at, random.IntN(scriptDDL), func(ctx context.Context) {
			close(hit)
			<-ctx.Done() // what comes after it finds its context over
		}))
		through := s.play(t)
		select {
		case <-hit:
		case <-victim.done:
			t.Fatalf("step %d: apply: %v", at, victim.err)
		case <-time.After(settled):
			t.Fatalf("step %d was not reached", at)
		}
		victim.stop(t)
		r.expireClaims(t)
		next := r.start(t, "next")
		r.await(t, through, next)
		s.check(t)
		next.stop(t)
	}
}

// TestBarrierFrozen freezes the executor before and behind its command, until
// another member has taken over and everything else has gone on as far as it
// can; when it wakes it does no harm. The partitions of the frozen one are a
// third member's by then.
func TestBarrierFrozen(t *testing.T) {
	for name, at := range map[string]step{"before its command": stepClaimed, "behind its command": stepExecuted} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
			s := newScript(t, r)
			frozen, wake := make(chan struct{}), make(chan struct{})
			thaw := sync.OnceFunc(func() { close(wake) })
			var armed, first atomic.Bool
			seam := func(_ context.Context, reached step) {
				if reached == at && armed.Load() && first.CompareAndSwap(false, true) {
					close(frozen)
					<-wake
				}
			}
			// Whichever of them executes first is the one.
			running := []*service{r.startAt(t, "a", seam), r.startAt(t, "b", seam)}
			t.Cleanup(thaw) // before the services are waited for
			before := s.play(t)
			r.await(t, before, running...)
			// Nobody joins any more, which would wait for the frozen one.
			testenv.Eventually(t, settled, func() error {
				for _, s := range running {
					p := s.service.progress
					p.mu.Lock()
					owned := len(p.partitions)
					p.mu.Unlock()
					if owned == 0 {
						return errors.New("a member has no partition yet")
					}
				}
				return nil
			})
			armed.Store(true)
			through := s.play(t)
			select {
			case <-frozen:
			case <-time.After(settled):
				t.Fatal("nobody executes")
			}
			// The other takes over once the claim's time is over.
			barriers := r.dest.Client.Database(ownDatabase).Collection(barriersCollection)
			testenv.Eventually(t, settled, func() error {
				r.expireClaims(t)
				n, err := barriers.CountDocuments(t.Context(), bson.D{
					{Key: "state", Value: barrierDone}, {Key: "_id.time", Value: bson.D{{Key: "$gt", Value: before}}},
				})
				if err == nil && n == 0 {
					err = errors.New("nobody has taken over")
				}
				return err
			})
			thaw()
			r.await(t, through, running...)
			s.check(t)
			for _, service := range running {
				service.stop(t)
			}
		})
	}
}

// TestLateComer has a member that was frozen before it wrote down its arrival
// wake after everybody has passed the barrier and its record is gone: it finds
// that the partition is another's, and executes nothing.
func TestLateComer(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	s := newScript(t, r)
	running := r.start(t, "a")
	r.await(t, s.play(t), running)
	offsets, err := r.offsets(t)
	if err != nil {
		t.Fatal(err)
	}
	late := s.ddl(t, event.OpDrop, bson.D{{Key: "drop", Value: "a"}})
	late.Position = event.Position{Time: bson.Timestamp{T: 1001, I: 1}, Term: 1}
	id := barrierID{Pipeline: r.pair.Pipeline, Destination: "dest", Time: late.Position.Time}
	groups, err := concerned(running.service.groups, &late)
	if err != nil {
		t.Fatal(err)
	}
	who := participantsOf(groups, testPartitions)
	for _, o := range offsets {
		if o.ID.Topic != r.topics.Changes {
			continue
		}
		held := o
		held.Offset, held.Epoch = 1, o.Epoch-1
		record := barrierRecord{ID: id, Op: late.Op, NS: late.NS.String(), State: barrierWaiting, Arrived: []participant{}, Participants: who}
		if err := running.service.store.arrive(t.Context(), record, participant{Group: o.ID.Group, Partition: o.ID.Partition}); err != nil {
			t.Fatal(err)
		}
		if done, err := running.service.advance(t.Context(), &late, id, &held); done || !errors.Is(err, errLost) {
			t.Errorf("partition %d: got %t, %v", o.ID.Partition, done, err)
		}
	}
	s.check(t)
	r.await(t, s.play(t), running)
	s.check(t)
	r.fewBarriers(t)
	running.stop(t)
}

// fewBarriers wants no more records of barriers than the last ones.
func (r *rig) fewBarriers(t *testing.T) {
	t.Helper()
	n, err := r.dest.Client.Database(ownDatabase).Collection(barriersCollection).CountDocuments(t.Context(), bson.D{})
	if err != nil || n > 2 {
		t.Errorf("%d records of barriers are left: %v", n, err)
	}
}

// TestDropAndRecreate drops and makes one name again and again under load, with
// members that come and go while others wait, and with one partition far
// behind. TRIBUTARY_SOAK=1 makes it 1 000 times.
func TestDropAndRecreate(t *testing.T) {
	cycles := 40
	if os.Getenv("TRIBUTARY_SOAK") != "" {
		cycles = 1000
	}
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	s := newScript(t, r)
	other := newHistory(t, event.Namespace{DB: "shop", Coll: "other"})
	running := []*service{r.start(t, "a"), r.start(t, "b")}
	for cycle := range cycles {
		s.round++
		events, _ := s.insert(t, 5, "dropped")
		for range other.rand.IntN(60) {
			events = append(events, other.next())
		}
		if cycle%10 == 3 { // one document, one partition
			for i := range 500 {
				e := replaced(t, event.Namespace{DB: "shop", Coll: "hot"}, bson.D{{Key: "_id", Value: "one"}, {Key: "n", Value: int32(i)}})
				if e.Op = event.OpReplace; cycle == 3 && i == 0 {
					e.Op = event.OpInsert
				}
				events = append(events, e)
			}
		}
		events = append(events, s.ddl(t, event.OpDrop, bson.D{{Key: "drop", Value: "a"}}))
		s.uuid()
		events = append(events, s.ddl(t, event.OpCreate, bson.D{{Key: "create", Value: "a"}}))
		kept, docs := s.insert(t, 5, "kept")
		events, s.inA = append(events, kept...), docs
		r.publish(t, events...)
		if cycle%20 == 11 {
			i := other.rand.IntN(len(running))
			running[i].stop(t)
			running[i] = r.start(t, fmt.Sprint("c", cycle))
		}
		if cycle%10 == 9 { // what is under way may not outgrow the wait
			r.await(t, r.watermark(t), running...)
			r.same(t, s.a, s.inA)
		}
	}
	r.await(t, r.watermark(t), running...)
	r.same(t, s.a, s.inA)
	r.same(t, other.ns, other.state())
	r.fewBarriers(t)
	for _, service := range running {
		service.stop(t)
	}
}

// TestBarrierOfGroups has two groups of one destination meet at a rename from
// the one's namespaces into the other's. The second group has not begun: the
// first one waits, and says for whom.
func TestBarrierOfGroups(t *testing.T) {
	r := newRig(t, testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)})
	s := newScript(t, r)
	selects := func(pattern string) rules.Destination {
		selection, err := rules.CompileSelection([]string{pattern}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return rules.Destination{Selection: selection}
	}
	config := func(own, peer string) func(*Config) {
		return func(c *Config) {
			c.Group, c.Rules, c.Peers = own, selects("shop."+own), []Peer{{Group: peer, Rules: selects("shop." + peer)}}
		}
	}
	r.edit = config("a", "b")
	first := r.start(t, "first")
	through := s.play(t)
	testenv.Eventually(t, settled, func() error {
		if _, text := first.service.barriers.longest(time.Now()); !strings.Contains(text, "rename") || !strings.Contains(text, "group dest.b, which has not begun") {
			return fmt.Errorf("the first group does not say for whom it waits: %q", text)
		}
		return nil
	})
	// Another member comes and goes while all wait.
	third := r.start(t, "third")
	testenv.Eventually(t, settled, func() error {
		if longest, _ := third.service.barriers.longest(time.Now()); longest == 0 {
			return errors.New("the third member does not wait")
		}
		return nil
	})
	third.stop(t)
	r.edit = config("b", "a")
	second := r.start(t, "second")
	awaitBoth := func() {
		t.Helper()
		r.await(t, through, first, second)
		testenv.Eventually(t, settled, func() error {
			offsets, err := r.offsets(t)
			n := 0
			for _, o := range offsets {
				if o.ID.Topic == r.topics.Changes {
					n++
				}
			}
			if err == nil && n != 2*testPartitions {
				err = fmt.Errorf("%d partitions have a record", n)
			}
			return err
		})
		r.await(t, through, first, second)
	}
	awaitBoth()
	s.check(t)
	second.stop(t)
	// Stopped, its partitions are waited for by name.
	through = s.play(t)
	testenv.Eventually(t, settled, func() error {
		if _, text := first.service.barriers.longest(time.Now()); !strings.Contains(text, "partitions 0, 1, 2 of group dest.b") {
			return fmt.Errorf("the first group does not say for whom it waits: %q", text)
		}
		return nil
	})
	second = r.start(t, "second")
	awaitBoth()
	s.check(t)
	var record collectionRecord
	err := second.service.store.db.Collection(collectionsCollection).FindOne(t.Context(), bson.D{{Key: "_id.ns", Value: "shop.b"}}).Decode(&record)
	if err != nil || record.ID.Group != "dest.b" || record.Target != "shop.b" {
		t.Errorf("record of shop.b: %+v, %v", record, err)
	}
	first.stop(t)
	second.stop(t)
}
