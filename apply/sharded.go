package apply

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// Writes to a collection whose shard key is more than _id. What the batch's
// events do not insert is looked up first, in one find over all shards: the held
// document tells the values that its filter carries, and whether its key
// changes. A change of the key may be one of the shard, which no update makes;
// it is a deletion and an insertion, in one transaction.

// keyOf reads the shard key of a target that is to be written.
func (t *target) keyOf(ctx context.Context, ns event.Namespace, collated bool) (*shardKey, error) {
	if !t.able.sharded {
		return nil, nil
	}
	held, ok, err := shardingOf(ctx, t.client, ns)
	if err != nil || !ok {
		return nil, err
	}
	key, err := newShardKey(held.Key)
	if key != nil {
		key.unsaid = collated
	}
	return key, err
}

// relearn reads a target's shard key again after a try that met something else
// than the events say: somebody may have sharded the collection since.
func (t *target) relearn(ctx context.Context, ns event.Namespace, how care) error {
	if how == asSaid || !t.able.sharded {
		return nil
	}
	info := t.catalog[ns]
	if info.capped {
		return nil
	}
	// Not in the transaction, which has a snapshot of its own.
	key, err := t.keyOf(mongo.NewSessionContext(ctx, nil), ns, info.collated)
	if err != nil {
		return err
	}
	info.key = key
	t.catalog[ns] = info
	return nil
}

// needs says what must be known of a document.
func (w *writer) needs(d *document, look bool) need {
	switch {
	case w.key == nil:
		return d.needs(look)
	case d.gone:
		return needID
	case d.first == event.OpInsert && d.image != nil && !look:
		return d.needs(false)
	}
	return d.needs(true)
}

// place completes a write of a looked up document with where it is; held is nil
// where there is none.
func (w *writer) place(wr *write, held bson.Raw) (err error) {
	if w.key == nil {
		return nil
	}
	if held == nil {
		switch {
		case wr.kind == writeDelete:
			wr.kind = writeNothing
		case wr.kind == writeInsert && w.clear:
			wr.kind = writeRespell // with a deletion by _id alone, on every shard
		}
		return nil
	}
	if wr.key, err = w.key.appendFilter(nil, held); err != nil || wr.kind != writeReplace {
		return err
	}
	same, err := w.key.same(held, wr.doc)
	if err != nil || same {
		return err
	}
	wr.kind = writeRespell
	if w.clear {
		wr.key = nil // on every shard, as above
	}
	return nil
}

// relocate moves one document where batches are no transactions: in one of its
// own, which every sharded cluster has, so that it is never missing.
func (w *writer) relocate(d *document, wr write) error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.guard != nil {
		if err := w.guard(w.ctx); err != nil {
			return err
		}
	}
	able := w.builder.able
	able.transactions = true
	b := newBuilder(w.builder.coll, able)
	b.key = w.key
	if err := b.add(wr); err != nil {
		return fail(d.last, err)
	}
	commands := b.drain()
	session, err := w.db.Client().StartSession()
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	defer session.EndSession(context.WithoutCancel(w.ctx))
	opts := options.Transaction().SetReadConcern(readconcern.Snapshot()).SetWriteConcern(writeconcern.Majority())
	_, err = session.WithTransaction(w.ctx, func(ctx context.Context) (any, error) {
		for _, c := range commands {
			if err := run(ctx, w.db, w.target, c); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}, opts)
	if err != nil {
		return fmt.Errorf("move document between shards ns=%s: %w", w.target, err)
	}
	return nil
}

// beyondShardKey counts a collection's indexes besides those of _id and of its
// shard key, which whoever sharded it had to have.
func beyondShardKey(ctx context.Context, client *mongo.Client, ns event.Namespace, indexes []mongo.IndexSpecification) (n int, err error) {
	if len(indexes) <= 1 {
		return 0, nil
	}
	held, sharded, err := heldKey(ctx, client, ns)
	if err != nil {
		return 0, err
	}
	for _, ix := range indexes {
		if ix.Name != "_id_" && (!sharded || !sameKeyPattern(ix.KeysDocument, held.Key)) {
			n++
		}
	}
	return n, nil
}

// heldKey is shardingOf for a destination that may be no cluster.
func heldKey(ctx context.Context, client *mongo.Client, ns event.Namespace) (heldSharding, bool, error) {
	cluster, err := mongodb.IsSharded(ctx, client)
	if err != nil || !cluster {
		return heldSharding{}, false, err
	}
	return shardingOf(ctx, client, ns)
}

// begins reports whether an index begins with a shard key.
func begins(index, key bson.Raw) bool {
	of, errIndex := index.Elements()
	wanted, errKey := key.Elements()
	if errIndex != nil || errKey != nil || len(of) < len(wanted) {
		return false
	}
	for i, f := range wanted {
		hashed, text := f.Value().StringValueOK()
		held, heldText := of[i].Value().StringValueOK()
		if of[i].Key() != f.Key() || text != heldText || hashed != held {
			return false
		}
	}
	return true
}

// servesShardKey reports whether a collection is sharded and has no index that
// begins with its key but that one: the cluster needs it, also where the source
// has dropped it.
func servesShardKey(ctx context.Context, client *mongo.Client, ns event.Namespace, name string) (bool, error) {
	held, sharded, err := heldKey(ctx, client, ns)
	if err != nil || !sharded {
		return false, err
	}
	indexes, err := client.Database(ns.DB).Collection(ns.Coll).Indexes().ListSpecifications(ctx)
	if err != nil {
		return false, fmt.Errorf("list indexes ns=%s: %w", ns, sanitize(err))
	}
	serves := false
	for _, ix := range indexes {
		if !begins(ix.KeysDocument, held.Key) {
			continue
		}
		if ix.Name != name {
			return false, nil
		}
		serves = true
	}
	return serves, nil
}

// shardable refuses a unique index that a sharded collection cannot have: each
// shard would look at its own documents alone.
func (c *converter) shardable(ctx context.Context) error {
	if !rules.UniqueIndex(c.wanted) {
		return nil
	}
	held, sharded, err := heldKey(ctx, c.client, c.target)
	if err != nil || !sharded {
		return err
	}
	if key, ok := c.wanted.Lookup("key").DocumentOK(); ok && begins(key, held.Key) {
		return nil
	}
	return fmt.Errorf("build index ns=%s index=%s: the collection is sharded by %s, and a unique index of it must begin with that key: hint: leave it as it is, or shard the collection by the index's fields",
		c.target, c.name, held.Key)
}
