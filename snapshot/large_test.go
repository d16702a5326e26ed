package snapshot

import (
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// TestDocumentsOverTheBrokersLimit loads documents of up to 16 MiB through
// topics that take 1 MiB.
func TestDocumentsOverTheBrokersLimit(t *testing.T) {
	testenv.Each(t, func(t *testing.T, pair testenv.Pair) {
		r := newRig(t, pair)
		r.pair.Pipeline = testenv.NewPipeline(t)
		r.topics = route.TopicsOf(r.pair.Pipeline)
		spec := topicSpec()
		spec.MaxMessageBytes = 1 << 20
		if err := kafka.PrepareTopics(t.Context(), r.kafka, r.topics, spec); err != nil {
			t.Fatal(err)
		}
		ns := event.Namespace{DB: "files", Coll: "big"}
		sizes := []int{100, 3 << 20, 1 << 20, 1<<20 - 300, 100}
		if pair.Exact {
			sizes = append(sizes, 16<<20-1<<10, 100)
		}
		var docs []any
		for i, n := range sizes {
			docs = append(docs, bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "n", Value: int32(i)}, {Key: "data", Value: make([]byte, n)}})
		}
		coll := r.source.Client.Database(ns.DB).Collection(ns.Coll)
		for _, d := range docs {
			if _, err := coll.InsertMany(t.Context(), []any{d}, options.InsertMany()); err != nil {
				t.Fatal(err)
			}
		}
		r.followSource(t)
		cfg := r.config("one")
		cfg.BatchBytes, cfg.QueueBytes = 1<<20, 2<<20
		if err := r.run(t, cfg); err != nil {
			t.Fatal(err)
		}
		r.checkLoaded(t, ns)
	})
}
