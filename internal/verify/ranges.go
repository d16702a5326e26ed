package verify

import (
	"bytes"
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
)

const (
	// rangeDocuments is how many documents a range has about; a smaller
	// collection is one range.
	rangeDocuments = 100_000
	// maxRanges bounds the ranges of one collection.
	maxRanges = 64
	// samplesPerRange evens out how the sampled bounds are spread.
	samplesPerRange = 20
)

// splittable reports whether ranges of the _id index can be read on both sides.
// A collection with a collation of its own orders its _ids by it, and a
// clustered one has no _id index: both are read as one range.
func splittable(p *pair, source, target *side) bool {
	if !source.bounded || !target.bounded {
		return false
	}
	for _, options := range []bson.Raw{p.source.Options, p.held.Options} {
		for _, name := range []string{"collation", "clusteredIndex"} {
			if _, err := options.LookupErr(name); err == nil {
				return false
			}
		}
	}
	return true
}

// split divides a collection of the given size into spans by sampling the _ids
// of the source, which sorts them itself.
func (r *reader) split(ctx context.Context, ns event.Namespace, documents int64) ([]span, error) {
	ranges := min(documents/rangeDocuments, maxRanges)
	if ranges < 2 {
		return []span{{}}, nil
	}
	cursor, err := r.collection(ns).Aggregate(mongo.NewSessionContext(ctx, r.session), bson.A{
		bson.D{{Key: "$sample", Value: bson.D{{Key: "size", Value: ranges * samplesPerRange}}}},
		bson.D{{Key: "$project", Value: bson.D{{Key: "_id", Value: 1}}}},
		bson.D{{Key: "$sort", Value: bson.D{{Key: "_id", Value: 1}}}},
	})
	if err != nil {
		return nil, fmt.Errorf("sample _ids ns=%s: %w", ns, err)
	}
	var sampled []bson.Raw
	if err := cursor.All(ctx, &sampled); err != nil {
		return nil, fmt.Errorf("sample _ids ns=%s: %w", ns, err)
	}
	return spansOf(sampled), nil
}

// spansOf takes every samplesPerRange-th of the sorted {_id: …} documents as a
// bound. A bound that is sampled twice counts once.
func spansOf(sampled []bson.Raw) []span {
	var spans []span
	var last bson.Raw
	for i := samplesPerRange; i < len(sampled); i += samplesPerRange {
		bound := sampled[i]
		if bytes.Equal(bound, last) {
			continue
		}
		spans = append(spans, span{min: last, max: bound})
		last = bound
	}
	return append(spans, span{min: last})
}

// probeBounds finds out whether a side can read ranges of an _id index, on one
// of its collections.
func probeBounds(ctx context.Context, s *side, ns event.Namespace) error {
	works, err := mongodb.ProbeBoundedFind(ctx, s.collection(ns))
	if err != nil {
		return fmt.Errorf("probe bounded find ns=%s: %w", ns, err)
	}
	s.bounded = works
	return nil
}
