package apply

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

// ceilingBatch is how many writes a bare bulk write holds.
const ceilingBatch = 1000

// bare is apply's ceiling: a bare consumer and bare unordered bulk writes with
// majority write concern, one writer for each partition as in apply, of the
// records between two sets of offsets. Write turns an event into what the
// driver takes. It promises nothing and keeps no position.
func (r *rig) bare(b *testing.B, from, to []int64, coll string, write func(*event.Event) mongo.WriteModel) time.Duration {
	b.Helper()
	target := r.dest.Client.Database("ceiling").Collection(coll, options.Collection().SetWriteConcern(writeconcern.Majority()))
	began := time.Now()
	g, ctx := errgroup.WithContext(b.Context())
	for p := range from {
		g.Go(func() error { return r.bareWriter(ctx, target, int32(p), from[p], to[p], write) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func (r *rig) bareWriter(ctx context.Context, target *mongo.Collection, partition int32, from, to int64, write func(*event.Event) mongo.WriteModel) error {
	client, err := kafka.NewClient(r.kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		r.topics.Changes: {partition: kgo.NewOffset().At(from)},
	}))
	if err != nil {
		return err
	}
	defer client.Close()
	models := make([]mongo.WriteModel, 0, ceilingBatch)
	flush := func() error {
		if len(models) == 0 {
			return nil
		}
		_, err := target.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false).SetBypassDocumentValidation(true))
		models = models[:0]
		return err
	}
	for next := from; next < to; {
		fetches := client.PollRecords(ctx, ceilingBatch)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			next = record.Offset + 1
			e, err := r.codec.DecodeEvent(record.Value)
			if err != nil {
				return fmt.Errorf("offset %d: %w", record.Offset, err)
			}
			if !e.Op.IsData() {
				continue
			}
			if models = append(models, write(&e)); len(models) < ceilingBatch {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func bareInsert(e *event.Event) mongo.WriteModel {
	return mongo.NewInsertOneModel().SetDocument(e.Document)
}

// bareSet sets one field, as the benchmark's updates do.
func bareSet(field string) func(*event.Event) mongo.WriteModel {
	return func(e *event.Event) mongo.WriteModel {
		return mongo.NewUpdateOneModel().SetFilter(e.DocumentKey).SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: field, Value: int32(1)}}}})
	}
}
