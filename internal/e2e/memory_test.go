package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// backlog is how many events wait for services that were down; soakBacklog
	// in the long run.
	backlog, soakBacklog = 60_000, 1_000_000
	// slowCommit is by how much the destination's commits are slowed down:
	// to a tenth and less of what it can do.
	slowCommit = 300 * time.Millisecond
	// slowly is how many batches are applied that slowly.
	slowly = 60
)

// TestMemoryUnderABacklog lets a backlog pile up behind capture and behind
// apply, slows the destination down, and holds the services' peak memory to the
// limit that they set themselves from the configuration.
func TestMemoryUnderABacklog(t *testing.T) {
	mongod, broker := testenv.RequireMongoD(t), testenv.RequireKafka(t)
	events, timeout := backlog, 3*time.Minute
	if soaking() {
		events, timeout = soakBacklog, 20*time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	source, destination := mongod.NewSource(t, testenv.OplogMB(4096)), mongod.NewDestination(t)
	orders := source.Client.Database("shop").Collection("orders")
	if err := source.Client.Database("shop").CreateCollection(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	fleet := newFleet(ctx, t, stack.Pipeline{
		Name: testenv.NewPipeline(t), Brokers: broker.Brokers, Source: source.URI, Partitions: 8,
		Destinations: []stack.Destination{{Name: "eu", URI: destination.URI}},
	})
	if err := fleet.Start(); err != nil {
		t.Fatal(err)
	}
	capture, apply := fleet.Member("capture"), fleet.Member("apply-eu")
	awaitStatus(ctx, t, apply, func(s state.Status) error {
		if s.State != state.StateRunning || s.Phase != state.PhaseChanges {
			return fmt.Errorf("apply is %s in phase %s", s.State, s.Phase)
		}
		return nil
	})
	if err := fleet.Kill(); err != nil {
		t.Fatal(err)
	}
	fillBacklog(ctx, t, orders, events)

	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	awaitStatus(ctx, t, capture, func(s state.Status) error {
		if n := s.Detail["events"]; n < int64(events) {
			return fmt.Errorf("capture has published %d events", n)
		}
		return nil
	})
	checkMemory(t, capture)
	if err := capture.Kill(); err != nil {
		t.Fatal(err)
	}

	slow(ctx, t, destination, bson.D{{Key: "times", Value: slowly}})
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	awaitStatus(ctx, t, apply, func(s state.Status) error {
		if n := s.Detail["events"]; n < int64(events) {
			return fmt.Errorf("apply has applied %d events", n)
		}
		return nil
	})
	checkMemory(t, apply)
	held, err := destination.Client.Database("shop").Collection("orders").CountDocuments(ctx, bson.D{})
	if err != nil || held != int64(events) {
		t.Errorf("destination holds %d documents, want %d: %v", held, events, err)
	}
}

// fillBacklog inserts documents of 1 KiB that compress to about a tenth, as
// documents do.
func fillBacklog(ctx context.Context, t *testing.T, coll *mongo.Collection, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	for done := 0; done < n; {
		docs := make([]any, min(1000, n-done))
		for i := range docs {
			text := bytes.Repeat([]byte(fmt.Sprintf("word-%d ", random.Uint32())), 1000/14)
			docs[i] = bson.D{{Key: "_id", Value: int64(done + i)}, {Key: "text", Value: string(text)}}
		}
		if _, err := coll.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false)); err != nil {
			t.Fatal(err)
		}
		done += len(docs)
	}
}

// slow has the destination take its time for commits.
func slow(ctx context.Context, t *testing.T, m *testenv.Mongo, mode any) {
	t.Helper()
	err := m.Client.Database("admin").RunCommand(ctx, bson.D{
		{Key: "configureFailPoint", Value: "failCommand"},
		{Key: "mode", Value: mode},
		{Key: "data", Value: bson.D{
			{Key: "failCommands", Value: bson.A{"commitTransaction"}},
			{Key: "blockConnection", Value: true},
			{Key: "blockTimeMS", Value: slowCommit.Milliseconds()},
		}},
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitStatus asks a service for its status until it is as wanted or ctx ends.
func awaitStatus(ctx context.Context, t *testing.T, m *stack.Member, ready func(state.Status) error) {
	t.Helper()
	for {
		s, err := m.Status(ctx)
		if err == nil {
			err = ready(s)
		}
		if err == nil {
			return
		}
		if !m.Running() {
			t.Fatalf("%s has ended:\n%s", m.Name, m.Tail(20))
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%v\n%s", err, m.Tail(20))
		}
	}
}

// checkMemory holds a process's peak to the limit that it has logged.
func checkMemory(t *testing.T, m *stack.Member) {
	t.Helper()
	peak, err := peakMemory(m.PID())
	if err != nil {
		t.Skipf("peak memory is not known here: %v", err)
	}
	log, err := os.ReadFile(m.Log())
	if err != nil {
		t.Fatal(err)
	}
	var limit int64
	if _, rest, found := strings.Cut(string(log), "memory_limit="); found {
		if _, err := fmt.Sscan(rest, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: peak of %d MiB, limit %d MiB", m.Name, peak>>20, limit>>20)
	if limit == 0 || peak > limit {
		t.Errorf("%s has taken %d MiB at its peak, the limit is %d MiB", m.Name, peak>>20, limit>>20)
	}
}

// peakMemory is the most that a process had resident at a time, in bytes.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "VmHWM:")
	if !found {
		return 0, errors.New("no VmHWM")
	}
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}
