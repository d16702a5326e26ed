package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// patience bounds waits for builds, which the server ends in its own time.
const patience = 2 * time.Minute

// slowBuilds is a pipeline whose destination does not come to the end of index
// builds on collections that hold documents.
type slowBuilds struct {
	r     *rig
	other event.Namespace
	n     int
}

func (s *slowBuilds) hang(t *testing.T, mode string) {
	t.Helper()
	cmd := bson.D{{Key: "configureFailPoint", Value: "hangAfterStartingIndexBuild"}, {Key: "mode", Value: mode}}
	if err := s.r.dest.Client.Database("admin").RunCommand(t.Context(), cmd).Err(); err != nil {
		t.Fatal(err)
	}
}

// flows publishes a document for every partition and waits until all have come
// through.
func (s *slowBuilds) flows(t *testing.T) {
	t.Helper()
	var events []event.Event
	for range 20 {
		s.n++
		events = append(events, inserted(t, s.other, bson.D{{Key: "_id", Value: fmt.Sprint("flows-", s.n)}}))
	}
	s.r.publish(t, events...)
	want := s.n
	testenv.Eventually(t, patience, func() error {
		if got := len(s.r.held(t, s.other)); got != want {
			return fmt.Errorf("%d of %d documents", got, want)
		}
		return nil
	})
}

func (s *slowBuilds) ddl(t *testing.T, op event.Op, coll string, uuid byte, cmd bson.D) {
	t.Helper()
	s.r.publish(t, event.Event{Op: op, NS: event.Namespace{DB: "shop", Coll: coll}, UUID: event.UUID{0: uuid, 15: 1}, DDL: raw(t, cmd)})
}

func (s *slowBuilds) build(t *testing.T, coll string, uuid byte, names ...string) {
	t.Helper()
	var specs bson.A
	for _, name := range names {
		specs = append(specs, bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: name, Value: int32(1)}}}, {Key: "name", Value: name}})
	}
	s.ddl(t, event.OpCreateIndexes, coll, uuid, bson.D{{Key: "createIndexes", Value: coll}, {Key: "indexes", Value: specs}})
}

// recorded waits until n builds are on record.
func (s *slowBuilds) recorded(t *testing.T, n int) {
	t.Helper()
	testenv.Eventually(t, patience, func() error {
		got, err := s.r.dest.Client.Database(ownDatabase).Collection(buildsCollection).CountDocuments(t.Context(), bson.D{})
		if err != nil || got != int64(n) {
			return errors.Join(err, fmt.Errorf("%d builds are on record, want %d", got, n))
		}
		return nil
	})
}

// lapse ends the claims of builds, whose owner is gone, before their time.
func (s *slowBuilds) lapse(t *testing.T) {
	t.Helper()
	_, err := s.r.dest.Client.Database(ownDatabase).Collection(buildsCollection).UpdateMany(t.Context(), bson.D{}, set(field("deadline", time.Unix(0, 0))))
	if err != nil {
		t.Fatal(err)
	}
}

// owned waits until a member has the one build in hand.
func (s *slowBuilds) owned(t *testing.T, by *service) {
	t.Helper()
	testenv.Eventually(t, patience, func() error {
		list, err := by.service.store.buildsOf(t.Context())
		if err != nil {
			return err
		}
		if len(list) != 1 || !strings.HasPrefix(list[0].Owner, by.service.store.owner) {
			return fmt.Errorf("builds: %+v", list)
		}
		return nil
	})
}

// names lists the indexes of a collection beside _id; nil where there is none.
func (s *slowBuilds) names(t *testing.T, coll string) []string {
	t.Helper()
	if _, exists, err := lookup(t.Context(), s.r.dest.Client, event.Namespace{DB: "shop", Coll: coll}); err != nil || !exists {
		if err != nil {
			t.Fatal(err)
		}
		return nil
	}
	names := []string{}
	for _, spec := range indexesOf(t, s.r.dest.Client, "shop", coll) {
		if name := stringOf(spec, "name"); name != "_id_" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// listed waits until a collection has these indexes.
func (s *slowBuilds) listed(t *testing.T, coll string, want []string) {
	t.Helper()
	testenv.Eventually(t, patience, func() error {
		if got := s.names(t, coll); (got == nil) != (want == nil) || !slices.Equal(got, want) {
			return fmt.Errorf("indexes of %s are %v, want %v", coll, got, want)
		}
		return nil
	})
}

// TestBuildBehindBarrier has the destination hang in index builds: changes pass,
// DDL on the same collection does what the source's server has done, and another
// member goes on with the build of one that was killed.
func TestBuildBehindBarrier(t *testing.T) {
	pair := testenv.Pair{Broker: testenv.StandIn(t), MongoDB: testenv.RequireMongoD(t), Pipeline: testenv.NewPipeline(t)}
	s := &slowBuilds{r: newRig(t, pair), other: event.Namespace{DB: "shop", Coll: "other"}}
	loads := []collection{{ns: s.other, uuid: event.UUID{0: 99, 15: 1}}}
	for i, name := range []string{"dropped", "unindexed", "renamed", "killed", "done", "failing"} {
		loads = append(loads, collection{
			ns: event.Namespace{DB: "shop", Coll: name}, uuid: event.UUID{0: byte(i + 1), 15: 1}, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "loaded"}, {Key: "at", Value: "no place"}})},
		})
	}
	s.r.load(t, s.r.begin(t, loads...), loads...)
	a := s.r.startAt(t, "a", nil)
	s.r.await(t, s.r.watermark(t), a)
	s.hang(t, "alwaysOn")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := bson.D{{Key: "configureFailPoint", Value: "hangAfterStartingIndexBuild"}, {Key: "mode", Value: "off"}}
		if err := s.r.dest.Client.Database("admin").RunCommand(ctx, cmd).Err(); err != nil {
			t.Error(err)
		}
	})

	// The collection is dropped: the build ends at once.
	s.build(t, "dropped", 1, "x", "y")
	s.flows(t)
	s.recorded(t, 1)
	s.ddl(t, event.OpDrop, "dropped", 1, bson.D{{Key: "drop", Value: "dropped"}})
	s.flows(t)
	s.recorded(t, 0)
	s.listed(t, "dropped", nil)

	// One of two indexes that are built apart is dropped.
	s.build(t, "unindexed", 2, "x")
	s.flows(t)
	s.ddl(t, event.OpDropIndexes, "unindexed", 2, bson.D{{Key: "dropIndexes", Value: "unindexed"}, {Key: "index", Value: "x"}})
	s.flows(t)
	s.recorded(t, 0)
	s.listed(t, "unindexed", []string{})

	// The collection is renamed: that waits.
	s.build(t, "renamed", 3, "x")
	s.flows(t)
	s.recorded(t, 1)
	s.ddl(t, event.OpRename, "renamed", 3, bson.D{{Key: "renameCollection", Value: "shop.renamed"}, {Key: "to", Value: "shop.newname"}})
	testenv.Eventually(t, patience, func() error {
		if _, text := a.service.barriers.longest(time.Now()); !strings.Contains(text, "index build in shop.renamed") {
			return fmt.Errorf("apply does not say what it waits for: %q", text)
		}
		return nil
	})
	s.listed(t, "renamed", []string{"x"})
	s.hang(t, "off")
	s.flows(t)
	s.listed(t, "newname", []string{"x"})
	s.listed(t, "renamed", nil)
	s.recorded(t, 0)

	// The member goes away; the next one goes on.
	s.hang(t, "alwaysOn")
	s.build(t, "killed", 4, "x", "y")
	s.flows(t)
	s.recorded(t, 1)
	a.stop(t)
	s.lapse(t)
	b := s.r.start(t, "b")
	s.flows(t)
	s.owned(t, b)
	s.hang(t, "off")
	s.recorded(t, 0)
	s.listed(t, "killed", []string{"x", "y"})

	// A build that is quick leaves nothing behind.
	s.build(t, "done", 5, "x")
	s.r.await(t, s.r.watermark(t), b)
	s.listed(t, "done", []string{"x"})
	s.recorded(t, 0)

	// One that fails behind its barrier waits for the operator, as any other.
	s.hang(t, "alwaysOn")
	s.failing(t)
	s.flows(t)
	s.recorded(t, 1)
	s.hang(t, "off")
	s.recorded(t, 0)
	list, err := b.service.store.deferredOf(t.Context(), event.Namespace{DB: "shop", Coll: "failing"}, deferredFailed)
	if err != nil || len(list) != 1 {
		t.Errorf("deferred: %+v, %v", list, err)
	}
	b.stop(t)
}

// failing builds an index that a document stands against.
func (s *slowBuilds) failing(t *testing.T) {
	t.Helper()
	spec := bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: "at", Value: "2dsphere"}}}, {Key: "name", Value: "x"}, {Key: "2dsphereIndexVersion", Value: int32(3)}}
	s.ddl(t, event.OpCreateIndexes, "failing", 6, bson.D{{Key: "createIndexes", Value: "failing"}, {Key: "indexes", Value: bson.A{spec}}})
}
