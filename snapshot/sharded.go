package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// looks is how often an _id must be seen on two shards at the same time: a
// document on its way from one to the other is not.
const looks = 3

// mergedPass is a pass over a sharded cluster's collection, which a router
// merges by _id from its shards. Each _id comes once: a document whose shard key
// changes during the pass may be met on both of its shards, and the changes
// behind the run's start say where it ended. One that stays on two shards is two
// documents to the cluster, and would be one to the pipeline.
type mergedPass struct {
	*pass
	// last is the normal form of the _id that came last.
	last []byte
}

// newMergedPass continues behind the document that the pass goes on behind.
func newMergedPass(p *pass) *mergedPass { return &mergedPass{pass: p, last: bytes.Clone(p.anchor)} }

// Next implements documents.
func (p *mergedPass) Next(ctx context.Context) (bson.Raw, error) {
	for {
		doc, err := p.pass.Next(ctx)
		if doc == nil || err != nil {
			return doc, err
		}
		id, _, err := rawbson.Lookup(doc, "_id")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		key, err := event.AppendIDKey(nil, id.RawValue())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		if !bytes.Equal(key, p.last) {
			p.last = key
			return doc, nil
		}
		twice, err := p.twice(ctx, id.RawValue())
		if err != nil {
			return nil, err
		}
		if twice {
			return nil, &refusedError{reason: fmt.Sprintf(
				"collection %s.%s: two shards have documents with _id %.200s: the pipeline, and any destination that is not sharded alike, can hold one: hint: give one of them another _id, or leave the collection out with select.exclude",
				p.coll.Database().Name(), p.coll.Name(), id.RawValue())}
		}
	}
}

// twice reports whether several documents have an _id.
func (p *mergedPass) twice(ctx context.Context, id bson.RawValue) (bool, error) {
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: id}}}}
	for range looks {
		if err := p.throttle.WaitQuery(ctx); err != nil {
			return false, err
		}
		cursor, err := p.coll.Find(mongo.NewSessionContext(ctx, p.session), filter, options.Find().SetProjection(onlyID()))
		n := 0
		for err == nil && cursor.Next(ctx) {
			n++
		}
		if err == nil {
			err = errors.Join(cursor.Err(), cursor.Close(ctx))
		}
		if err != nil {
			return false, fmt.Errorf("look for documents of one _id ns=%s.%s: %w", p.coll.Database().Name(), p.coll.Name(), err)
		}
		if n < 2 {
			return false, nil
		}
	}
	return true, nil
}
