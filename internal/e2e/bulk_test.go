package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

const (
	// bulkTimeout bounds each of the tests here, which are part of long runs
	// alone.
	bulkTimeout = 30 * time.Minute
	// bulkBytes are loaded through smallDisk of Kafka's disk, in documents of
	// bulkDocument that do not compress.
	bulkBytes, smallDisk, bulkDocument = 2 << 30, 64 << 20, 16 << 10
	// bulkPartitions of the snapshot topic, each of which keeps a segment that is
	// written to and one that goes.
	bulkPartitions = 2
	// manyCollections have manyDocuments each.
	manyCollections, manyDocuments = 2000, 20
)

// onlyLong skips a test that is too long for an ordinary run.
func onlyLong(t *testing.T) context.Context {
	t.Helper()
	if !soaking() {
		t.Skip("part of long runs alone: TRIBUTARY_SOAK=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), bulkTimeout)
	t.Cleanup(cancel)
	return ctx
}

// TestLoadLargerThanKafka loads 2 GiB through a snapshot topic that may take
// 64 MiB, and looks at what it takes at the broker meanwhile.
func TestLoadLargerThanKafka(t *testing.T) {
	ctx := onlyLong(t)
	mongod := testenv.RequireMongoD(t)
	broker := testenv.FreshKafka(t, map[string]string{"log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "1000"})
	source, destination := mongod.NewSource(t, testenv.OplogMB(1024)), mongod.NewDestination(t, testenv.OplogMB(1024))
	fillNoise(ctx, t, source.Client.Database("shop").Collection("files"), bulkBytes/bulkDocument)
	name := testenv.NewPipeline(t)
	fleet := newFleet(ctx, t, stack.Pipeline{
		Name: name, Brokers: broker.Brokers, Source: source.URI, Partitions: bulkPartitions, SnapshotDisk: smallDisk,
		Destinations: []stack.Destination{{Name: "eu", URI: destination.URI}},
	})
	began := time.Now()
	if err := fleet.Start(); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(ctx)
	var g errgroup.Group
	peak := int64(0)
	g.Go(func() (err error) {
		peak, err = peakOfTopic(watching, broker.Brokers, route.TopicsOf(name).Snapshot)
		return err
	})
	awaitEqual(ctx, t, fleet)
	took := time.Since(began)
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %s, at most %d MiB of them in Kafka", bulkBytes>>20, took.Round(time.Second), peak>>20)
	// The broker deletes whole segments, of up to a quarter of the limit or what
	// the largest record takes, some time after it was asked to.
	if most := int64(4 * smallDisk); peak == 0 || peak > most {
		t.Errorf("the snapshot topic has taken %d MiB, want at most %d", peak>>20, most>>20)
	}
	checkMemory(t, fleet.Member("apply-eu"))
	if err := appendReport(fmt.Sprintf("Bounded disk: %d MiB loaded in %s with a limit of %d MiB; the topic took %d MiB at most", bulkBytes>>20, took.Round(time.Second), smallDisk>>20, peak>>20)); err != nil {
		t.Error(err)
	}
}

// fillNoise inserts documents that do not compress.
func fillNoise(ctx context.Context, t *testing.T, coll *mongo.Collection, n int) {
	t.Helper()
	const batch = 200
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for first := 0; first < n; first += batch {
		g.Go(func() error {
			random := rand.NewChaCha8([32]byte{byte(first), byte(first >> 8), byte(first >> 16)})
			docs := make([]any, min(batch, n-first))
			for i := range docs {
				data := make([]byte, bulkDocument-100)
				_, _ = random.Read(data) // never fails
				docs[i] = bson.D{{Key: "_id", Value: int64(first + i)}, {Key: "data", Value: data}}
			}
			_, err := coll.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// peakOfTopic is the most that a topic was seen to take at the broker until ctx
// ends.
func peakOfTopic(ctx context.Context, brokers []string, topic string) (peak int64, err error) {
	client, err := kafka.NewClient(kafka.Config{Brokers: brokers})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for {
		dirs, err := admin.DescribeAllLogDirs(ctx, nil)
		if ctx.Err() != nil {
			return peak, nil
		}
		if err != nil {
			return peak, fmt.Errorf("ask for the size of %s: %w", topic, err)
		}
		size := int64(0)
		dirs.Each(func(dir kadm.DescribedLogDir) {
			for _, p := range dir.Topics[topic] {
				size += p.Size
			}
		})
		peak = max(peak, size)
		if pause(ctx, 20*pollInterval) != nil {
			return peak, nil
		}
	}
}

// TestLoadOfManyCollections loads 2 000 collections with an index each, while one
// of them is written to.
func TestLoadOfManyCollections(t *testing.T) {
	ctx := onlyLong(t)
	mongod, broker := testenv.RequireMongoD(t), testenv.RequireKafka(t)
	source, destination := mongod.NewSource(t), mongod.NewDestination(t)
	g, filling := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range manyCollections {
		g.Go(func() error {
			coll := source.Client.Database(fmt.Sprintf("db%d", i%10)).Collection(fmt.Sprintf("c%04d", i))
			if _, err := coll.Indexes().CreateOne(filling, mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}}}); err != nil {
				return err
			}
			docs := make([]any, manyDocuments)
			for j := range docs {
				docs[j] = bson.D{{Key: "_id", Value: int32(j)}, {Key: "n", Value: int32(i)}, {Key: "text", Value: fmt.Sprintf("%d of %d", j, i)}}
			}
			_, err := coll.InsertMany(filling, docs)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	fleet := newFleet(ctx, t, stack.Pipeline{
		Name: testenv.NewPipeline(t), Brokers: broker.Brokers, Source: source.URI, Partitions: 4,
		Destinations: []stack.Destination{{Name: "eu", URI: destination.URI}},
	})
	began := time.Now()
	if err := fleet.Start(); err != nil {
		t.Fatal(err)
	}
	coll := source.Client.Database("db0").Collection("c0000")
	for i := range 100 {
		if _, err := coll.InsertOne(ctx, bson.D{{Key: "_id", Value: fmt.Sprint("live ", i)}, {Key: "n", Value: i}}); err != nil {
			t.Fatal(err)
		}
	}
	awaitEqual(ctx, t, fleet)
	took := time.Since(began)
	t.Logf("%d collections in %s", manyCollections, took.Round(time.Second))
	checkMemory(t, fleet.Member("apply-eu"))
	checkMemory(t, fleet.Member("capture"))
	if err := appendReport(fmt.Sprintf("Many collections: %d loaded and found equal in %s", manyCollections, took.Round(time.Second))); err != nil {
		t.Error(err)
	}
}
