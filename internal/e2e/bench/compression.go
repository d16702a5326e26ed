package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/wire"
)

// compressions produces the same records with each compression, and prints what
// they take at the broker and of the processor here, produced and consumed.
func (b *bench) compressions(ctx context.Context) error {
	b.print("\n| compression | of | bytes in Kafka per byte | CPU s per GB, produced | consumed | MB/s produced |")
	b.print("|---|---|---|---|---|---|")
	changes, batches, err := records()
	if err != nil {
		return err
	}
	codecs := []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()},
		{"lz4", kgo.Lz4Compression()},
		{"zstd", kgo.ZstdCompression()},
		{"snappy", kgo.SnappyCompression()},
	}
	for _, of := range []struct {
		name   string
		values [][]byte
	}{{"changes", changes}, {"snapshot", batches}} {
		for i, c := range codecs {
			topic := fmt.Sprintf("compression-%s-%d", of.name, i)
			line, err := b.compression(ctx, topic, c.codec, of.values)
			if err != nil {
				return err
			}
			b.print("| %s | %s | %s |", c.name, of.name, line)
		}
	}
	return nil
}

// records are what capture and snapshot would send: changes of documents that
// look like those of a shop, and batches of 1 MiB of them.
func records() (changes, batches [][]byte, err error) {
	const documents, batchBytes = 60_000, 1 << 20
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, nil, err
	}
	random := rand.New(rand.NewPCG(1, 2))
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	var batch []byte
	for n := range documents {
		doc, err := bson.Marshal(shopDocument(random, n))
		if err != nil {
			return nil, nil, fmt.Errorf("make document: %w", err)
		}
		id, err := bson.Marshal(bson.D{{Key: "_id", Value: int64(n)}})
		if err != nil {
			return nil, nil, fmt.Errorf("make document: %w", err)
		}
		value, err := codec.AppendEvent(nil, &event.Event{
			Op: event.OpInsert, NS: ns, DocumentKey: id, Document: doc, WallTime: time.UnixMilli(1_700_000_000_000 + int64(n)),
			Position: event.Position{Time: bson.Timestamp{T: 1_700_000_000, I: uint32(n)}, Term: 1},
			Source:   event.Source{Deployment: "0123456789abcdef01234567", Mode: "oplog", ServerVersion: "4.4.4"},
		})
		if err != nil {
			return nil, nil, err
		}
		changes = append(changes, value)
		if batch = append(batch, doc...); len(batch) > batchBytes {
			batches = append(batches, batch)
			batch = nil
		}
	}
	return changes, batches, nil
}

// shopDocument looks like an order: names repeat, values do not.
func shopDocument(r *rand.Rand, n int) bson.D {
	words := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%s%s", []string{"ba", "ko", "tri", "mel", "su"}[r.IntN(5)], []string{"ri", "na", "do", "lent", "x"}[r.IntN(5)])
		}
		return strings.Join(list, " ")
	}
	items := bson.A{}
	for range 1 + r.IntN(6) {
		items = append(items, bson.D{
			{Key: "sku", Value: fmt.Sprintf("sku-%06d", r.IntN(100_000))},
			{Key: "title", Value: words(3)},
			{Key: "quantity", Value: int32(r.IntN(9))},
			{Key: "price", Value: r.Float64() * 100},
		})
	}
	return bson.D{
		{Key: "_id", Value: int64(n)},
		{Key: "customer", Value: bson.NewObjectID()},
		{Key: "placed", Value: bson.DateTime(1_700_000_000_000 + r.Int64N(1e10))},
		{Key: "status", Value: "open"},
		{Key: "items", Value: items},
		{Key: "total", Value: r.Float64() * 1000},
		{Key: "address", Value: bson.D{{Key: "street", Value: words(2)}, {Key: "city", Value: words(1)}, {Key: "note", Value: words(8)}}},
		{Key: "email", Value: fmt.Sprintf("%x@example.com", r.Uint64())},
	}
}

// compression measures one and returns its part of the line.
func (b *bench) compression(ctx context.Context, topic string, codec kgo.CompressionCodec, values [][]byte) (string, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(b.servers.Brokers...), kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(8<<20), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
	)
	if err != nil {
		return "", fmt.Errorf("connect to Kafka: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	limit := "16777216"
	if _, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"max.message.bytes": &limit}, topic); err != nil {
		return "", fmt.Errorf("create topic: %w", err)
	}
	size := 0
	before, began := processorTime(), time.Now()
	var failed error
	for _, value := range values {
		size += len(value)
		client.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // promises are called one at a time
			}
		})
	}
	if err := client.Flush(ctx); err != nil || failed != nil {
		return "", fmt.Errorf("produce: %w %w", err, failed)
	}
	produced, took := processorTime()-before, time.Since(began)
	before = processorTime()
	for n := 0; n < len(values); {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return "", fmt.Errorf("consume: %w", err)
		}
		n += fetches.NumRecords()
	}
	consumed := processorTime() - before
	stored, err := storedBytes(ctx, admin, topic)
	if err != nil {
		return "", err
	}
	gigabytes := float64(size) / 1e9
	return fmt.Sprintf("%.3f | %.2f | %.2f | %.0f", float64(stored)/float64(size), produced.Seconds()/gigabytes, consumed.Seconds()/gigabytes,
		float64(size)/1e6/took.Seconds()), nil
}

// storedBytes is what a topic takes at the broker.
func storedBytes(ctx context.Context, admin *kadm.Client, topic string) (int64, error) {
	var topics kadm.TopicsSet
	topics.Add(topic, 0)
	dirs, err := admin.DescribeAllLogDirs(ctx, topics)
	if err != nil {
		return 0, fmt.Errorf("ask for the size of %s: %w", topic, err)
	}
	var size int64
	dirs.Each(func(dir kadm.DescribedLogDir) {
		for _, p := range dir.Topics[topic] {
			size += p.Size
		}
	})
	return size, nil
}

// processorTime is what this process has taken so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
