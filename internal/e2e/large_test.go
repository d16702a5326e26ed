package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/verify"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	// maxDocument is about what a document may have at most.
	maxDocument = 16<<20 - 4<<10
	// largePartitions of the topics, each of which takes records of
	// smallLimit at most.
	largePartitions = 4
	smallLimit      = 1 << 20
)

// TestLargestDocuments moves documents of 16 MiB, updates of them and _ids of
// several MiB through topics that take 1 MiB, with services killed on the way,
// and holds them to their memory.
func TestLargestDocuments(t *testing.T) {
	mongod, broker := testenv.RequireMongoD(t), testenv.RequireKafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	source, destination := mongod.NewSource(t, testenv.OplogMB(1024)), mongod.NewDestination(t)
	pipeline := testenv.NewPipeline(t)
	spec := kafka.TopicSpec{
		Partitions: largePartitions, SnapshotPartitions: largePartitions, ReplicationFactor: 1, MinInsyncReplicas: 1,
		Retention: 7 * 24 * time.Hour, MaxMessageBytes: smallLimit,
	}
	if err := kafka.PrepareTopics(ctx, kafka.Config{Brokers: broker.Brokers}, route.TopicsOf(pipeline), spec); err != nil {
		t.Fatal(err)
	}
	coll := source.Client.Database("shop").Collection("big")
	for i := range byte(4) {
		if _, err := coll.InsertOne(ctx, bson.D{{Key: "_id", Value: fmt.Sprint("loaded", i)}, {Key: "data", Value: noise(maxDocument, i)}}); err != nil {
			t.Fatal(err)
		}
	}
	fleet := newFleet(ctx, t, stack.Pipeline{
		Name: pipeline, Brokers: broker.Brokers, Source: source.URI, Partitions: largePartitions,
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
	for i := range byte(6) {
		writeLargest(ctx, t, coll, i)
		for _, m := range []*stack.Member{capture, apply} {
			if i%3 == 1 {
				if err := m.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := m.Start(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	awaitEqual(ctx, t, fleet)
	checkMemory(t, capture)
	checkMemory(t, apply)
}

// noise does not compress.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// writeLargest inserts, updates in several ways, and deletes.
func writeLargest(ctx context.Context, t *testing.T, coll *mongo.Collection, i byte) {
	t.Helper()
	id := func(name string) bson.D { return bson.D{{Key: "_id", Value: fmt.Sprint(name, i)}} }
	long := bson.D{{Key: "_id", Value: strings.Repeat(fmt.Sprint("long", i), 600_000)}}
	for step, do := range []func() error{
		func() error {
			_, err := coll.InsertOne(ctx, append(id("a"), bson.E{Key: "data", Value: noise(maxDocument, i+10)}))
			return err
		},
		func() error {
			_, err := coll.UpdateOne(ctx, id("a"), bson.D{{Key: "$set", Value: bson.D{{Key: "data", Value: noise(maxDocument/2, i+20)}, {Key: "n", Value: 1}}}})
			return err
		},
		func() error {
			_, err := coll.UpdateOne(ctx, id("a"), bson.D{{Key: "$push", Value: bson.D{{Key: "list", Value: noise(3<<20, i+30)}}}})
			return err
		},
		func() error {
			_, err := coll.ReplaceOne(ctx, id("loaded"), bson.D{{Key: "data", Value: noise(maxDocument, i+40)}})
			return err
		},
		func() error { _, err := coll.InsertOne(ctx, append(long, bson.E{Key: "n", Value: 1})); return err },
		func() error {
			_, err := coll.UpdateOne(ctx, long, bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 2}}}})
			return err
		},
		func() error {
			if i%2 == 0 {
				return nil
			}
			_, err := coll.DeleteOne(ctx, long)
			return err
		},
	} {
		if err := do(); err != nil {
			t.Fatalf("round %d step %d: %v", i, step, err)
		}
	}
}

// awaitEqual verifies until the destination has come through.
func awaitEqual(ctx context.Context, t *testing.T, fleet *stack.Fleet) {
	t.Helper()
	for {
		r, err := fleet.Verify(ctx, "eu")
		if err == nil && r.Verdict == verify.Equal {
			return
		}
		if checked := fleet.Check(); checked != nil {
			t.Fatal(checked)
		}
		if ctx.Err() != nil {
			t.Fatalf("not equal in time: %v, %+v", err, r)
		}
	}
}
