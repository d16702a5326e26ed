package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
)

const (
	// planners is how many collections are looked at at the same time.
	planners = 4
	// probes is how often a collection's answer to bounded reads may disagree
	// with them before it is taken at its word: documents that come and go
	// spoil a probe.
	probes = 3
)

// plan is what a run consists of.
type plan struct {
	collections []state.Collection
	chunks      []state.Chunk
}

// outline is one collection of a plan.
type outline struct {
	collection state.Collection
	natural    bool
	// bounded says that bounded reads of the _id index were seen to work;
	// empty that there was no document to see it by.
	bounded, empty bool
	bounds         []bson.Raw
}

// planRun lists the selected collections and cuts them into chunks. It blocks on
// the source.
func (s *Service) planRun(ctx context.Context, run string) (*plan, error) {
	entries, err := mongodb.ListCommitted(ctx, s.client, s.cfg.Select.Match)
	if err != nil {
		return nil, err
	}
	if err := loadable(entries); err != nil {
		return nil, err
	}
	outlines := make([]outline, len(entries))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(planners)
	for i := range entries {
		g.Go(func() error {
			var err error
			outlines[i], err = s.outline(gctx, &entries[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p := assemble(run, outlines)
	if s.cfg.WithoutDocuments {
		p.chunks = nil
		for i := range p.collections {
			p.collections[i].Chunks = 0
		}
	}
	return p, nil
}

// loadable refuses, by name and all at once, what cannot be loaded.
func loadable(entries []mongodb.CatalogEntry) error {
	var series, unindexed []string
	for _, e := range entries {
		switch {
		case e.Timeseries:
			series = append(series, e.NS.String())
		case !e.View && !hasIDIndex(e.Indexes):
			unindexed = append(unindexed, e.NS.String())
		}
	}
	var reasons []string
	if len(series) > 0 {
		reasons = append(reasons, "time-series collections are not supported yet: "+strings.Join(series, ", "))
	}
	if len(unindexed) > 0 {
		reasons = append(reasons, "collections without an index on _id cannot be followed: "+strings.Join(unindexed, ", "))
	}
	if len(reasons) == 0 {
		return nil
	}
	return &refusedError{reason: "load collections: " + strings.Join(reasons, "; ") + ": hint: leave them out with select.exclude"}
}

// outline looks at one collection.
func (s *Service) outline(ctx context.Context, e *mongodb.CatalogEntry) (outline, error) {
	o := outline{collection: state.Collection{
		DB: e.NS.DB, Coll: e.NS.Coll, UUID: e.UUID, View: e.View, Options: e.Options,
	}}
	if e.View {
		return o, nil
	}
	for _, index := range e.Indexes {
		o.collection.Indexes = append(o.collection.Indexes, index)
	}
	if s.cfg.WithoutDocuments {
		return o, nil
	}
	coll := s.client.Database(e.NS.DB).Collection(e.NS.Coll)
	documents, size, err := collectionSize(ctx, coll)
	if err != nil {
		return o, err
	}
	o.collection.EstimatedDocuments, o.collection.EstimatedBytes = documents, size
	if o.natural = e.Capped(); o.natural {
		return o, nil
	}
	if o.bounded, o.empty, err = probeBounded(ctx, coll); err != nil || !o.bounded {
		return o, err
	}
	o.bounds, err = bounds(ctx, coll, documents, chunkCount(documents, size, s.cfg.ChunkDocuments, s.cfg.ChunkBytes))
	return o, err
}

// probeBounded finds out by behaviour whether bounded reads work.
func probeBounded(ctx context.Context, coll *mongo.Collection) (bounded, empty bool, err error) {
	for range probes {
		bounded, err := mongodb.ProbeBoundedFind(ctx, coll)
		if bounded || err != nil {
			return bounded, false, err
		}
		err = coll.FindOne(ctx, bson.D{}).Err()
		if noDocuments(err) {
			return false, true, nil
		}
		if err != nil {
			return false, false, fmt.Errorf("look for documents ns=%s.%s: %w", coll.Database().Name(), coll.Name(), err)
		}
	}
	return false, false, nil
}

// collectionSize asks the metadata, which may be wrong after a crash: it is for
// the number of chunks and for showing progress alone.
func collectionSize(ctx context.Context, coll *mongo.Collection) (documents, size int64, err error) {
	fail := func(err error) (int64, int64, error) {
		return 0, 0, fmt.Errorf("ask for size ns=%s.%s: %w", coll.Database().Name(), coll.Name(), err)
	}
	cursor, err := coll.Aggregate(ctx, bson.A{bson.D{{Key: "$collStats", Value: bson.D{{Key: "storageStats", Value: bson.D{}}}}}})
	if err == nil {
		var stats []struct {
			Storage struct {
				Count int64 `bson:"count"`
				Size  int64 `bson:"size"`
			} `bson:"storageStats"`
		}
		if err = cursor.All(ctx, &stats); err == nil {
			for _, s := range stats {
				documents, size = documents+s.Storage.Count, size+s.Storage.Size
			}
			return documents, size, nil
		}
	}
	if !unsupported(err) {
		return fail(err)
	}
	if documents, err = coll.EstimatedDocumentCount(ctx); err != nil {
		return fail(err)
	}
	return documents, 0, nil
}

// assemble numbers the chunks. A collection that was empty is read like the
// others of the deployment.
func assemble(run string, outlines []outline) *plan {
	works := slices.ContainsFunc(outlines, func(o outline) bool { return o.bounded })
	p := &plan{}
	for _, o := range outlines {
		if !o.collection.View {
			chunks := o.chunks(run, int32(len(p.chunks)), works)
			o.collection.Chunks = int32(len(chunks))
			p.chunks = append(p.chunks, chunks...)
		}
		p.collections = append(p.collections, o.collection)
	}
	return p
}

// chunks are the collection's, numbered from first. The outer bounds are open,
// so that no _id lies outside of all chunks.
func (o *outline) chunks(run string, first int32, works bool) []state.Chunk {
	c := o.collection
	ordered := o.bounded || o.empty && works
	chunks := make([]state.Chunk, len(o.bounds)+1)
	for i := range chunks {
		chunks[i] = state.Chunk{
			Run: run, Chunk: first + int32(i), DB: c.DB, Coll: c.Coll, UUID: c.UUID, Whole: !o.natural && !ordered, Natural: o.natural,
		}
		if i > 0 {
			chunks[i].Min = o.bounds[i-1]
		}
		if i < len(o.bounds) {
			chunks[i].Max = o.bounds[i]
		}
	}
	return chunks
}

func noDocuments(err error) bool { return errors.Is(err, mongo.ErrNoDocuments) }

// unsupported reports whether the server does not know a command, a stage or an
// option.
func unsupported(err error) bool {
	server, ok := errors.AsType[mongo.ServerError](err)
	if !ok {
		return false
	}
	for _, code := range []int{
		2, 9, 59, // BadValue, FailedToParse, CommandNotFound
		115, 238, 40324, // CommandNotSupported, NotImplemented, unknown stage
	} {
		if server.HasErrorCode(code) {
			return true
		}
	}
	return false
}
