package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/wire"
)

const (
	// ceilingTopic takes what the bare producer writes.
	ceilingTopic = "ceiling"
	// ceilingDatabase takes what the bare writers write.
	ceilingDatabase = "ceiling"
	// partitions is the default of the pipeline's topics, and how many bare
	// writers there are.
	partitions = 8
	// applyBatch is the default of apply's batches.
	applyBatch = 1000
)

func unordered() *options.BulkWriteOptionsBuilder { return options.BulkWrite().SetOrdered(false) }

func (b *bench) kafka(opts ...kgo.Opt) (*kgo.Client, error) {
	return kafka.NewClient(kafka.Config{Brokers: b.servers.Brokers, ClientID: "bench"}, opts...)
}

// bareCapture reads the oplog after from, through to, with a tailing cursor and
// produces every entry as it is. It returns entries per second.
func (b *bench) bareCapture(ctx context.Context, from, to bson.Timestamp) (rate float64, err error) {
	client, err := b.kafka(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := newTopic(ctx, client); err != nil {
		return 0, err
	}
	started := time.Now()
	coll := b.source.Database("local").Collection("oplog.rs", options.Collection().SetReadConcern(readconcern.Majority()))
	cursor, err := coll.Find(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: from}}}},
		options.Find().SetCursorType(options.TailableAwait))
	if err != nil {
		return 0, fmt.Errorf("tail oplog: %w", err)
	}
	defer func() { err = errors.Join(err, cursor.Close(context.WithoutCancel(ctx))) }()
	failed := make(chan error, 1)
	n := 0
	for cursor.Next(ctx) {
		client.Produce(ctx, &kgo.Record{
			Topic: ceilingTopic, Partition: int32(n % partitions), Value: bytes.Clone(cursor.Current),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default: // the first is enough
				}
			}
		})
		n++
		t, i := cursor.Current.Lookup("ts").Timestamp()
		if event.CompareTimes(bson.Timestamp{T: t, I: i}, to) >= 0 {
			break
		}
	}
	if err := errors.Join(cursor.Err(), client.Flush(ctx)); err != nil {
		return 0, fmt.Errorf("bare capture: %w", err)
	}
	select {
	case err := <-failed:
		return 0, fmt.Errorf("bare producer: %w", err)
	default:
	}
	return float64(n) / time.Since(started).Seconds(), nil
}

// newTopic makes the ceiling's topic anew.
func newTopic(ctx context.Context, client *kgo.Client) error {
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, ceilingTopic)
	if err != nil {
		return fmt.Errorf("look for topic %s: %w", ceilingTopic, err)
	}
	if topics.Has(ceilingTopic) {
		return nil
	}
	if _, err := admin.CreateTopic(ctx, partitions, 1, nil, ceilingTopic); err != nil {
		return fmt.Errorf("create topic %s: %w", ceilingTopic, err)
	}
	return nil
}

// committedEnds returns the ends of the change topic's partitions.
func (b *bench) committedEnds(ctx context.Context) (map[int32]int64, error) {
	client, err := b.kafka()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	topic := route.TopicsOf(pipelineName).Changes
	listed, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list ends of %s: %w", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// bareApply consumes the change topic from starts to its end and writes the
// load with unordered bulk writes to a collection of its own, each partition
// by a goroutine. It returns events per second.
func (b *bench) bareApply(ctx context.Context, kind string, round int, starts map[int32]int64) (float64, error) {
	ends, err := b.committedEnds(ctx)
	if err != nil {
		return 0, err
	}
	if err := b.target.Database(ceilingDatabase).CreateCollection(ctx, namespace().Coll); err != nil && !mongo.IsDuplicateKeyError(err) && !exists(err) {
		return 0, fmt.Errorf("create ceiling's collection: %w", err)
	}
	started := time.Now()
	written := make([]int, len(ends))
	g, ctx := errgroup.WithContext(ctx)
	for partition, end := range ends {
		if starts[partition] >= end {
			continue
		}
		g.Go(func() (err error) {
			written[partition], err = b.barePartition(ctx, kind, round, partition, starts[partition], end)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("bare apply: %w", err)
	}
	total := 0
	for _, n := range written {
		total += n
	}
	if total != b.cfg.documents {
		return 0, fmt.Errorf("bare apply: %d events on the topic, want %d", total, b.cfg.documents)
	}
	return float64(total) / time.Since(started).Seconds(), nil
}

// exists reports whether the server says that a collection is there already.
func exists(err error) bool {
	const codeNamespaceExists = 48
	refused, ok := errors.AsType[mongo.CommandError](err)
	return ok && refused.HasErrorCode(codeNamespaceExists)
}

// barePartition is bareApply for one partition.
func (b *bench) barePartition(ctx context.Context, kind string, round int, partition int32, start, end int64) (int, error) {
	topic := route.TopicsOf(pipelineName).Changes
	client, err := b.kafka(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	codec, err := wire.NewCodec()
	if err != nil {
		return 0, err
	}
	coll := b.target.Database(ceilingDatabase).Collection(namespace().Coll,
		options.Collection().SetWriteConcern(writeconcern.Majority()))
	written := 0
	var models []mongo.WriteModel
	flush := func() error {
		if len(models) == 0 {
			return nil
		}
		_, err := coll.BulkWrite(ctx, models, unordered())
		written += len(models)
		models = models[:0]
		return err
	}
	for last := int64(-1); last+1 < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return 0, fmt.Errorf("consume: %w", err)
		}
		for record := range fetches.RecordsAll() {
			last = record.Offset
			if record.Attrs.IsControl() || last >= end {
				continue
			}
			e, err := codec.DecodeEvent(record.Value)
			if err != nil {
				return 0, fmt.Errorf("decode: %w", err)
			}
			if !e.Op.IsData() {
				continue
			}
			models = append(models, modelOf(&e, kind, round))
			if len(models) == applyBatch {
				if err := flush(); err != nil {
					return 0, fmt.Errorf("bulk write: %w", err)
				}
			}
		}
	}
	if err := flush(); err != nil {
		return 0, fmt.Errorf("bulk write: %w", err)
	}
	return written, nil
}

// modelOf is what a bare writer makes of an event of the load.
func modelOf(e *event.Event, kind string, round int) mongo.WriteModel {
	if kind == "insert" {
		return mongo.NewInsertOneModel().SetDocument(e.Document)
	}
	return updateModel(e.ID().StringValue(), round)
}
