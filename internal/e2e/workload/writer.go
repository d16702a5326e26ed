package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
)

// operationTimeout bounds one operation; it is finished also when the writer is
// told to stop, so that nothing is left half done.
const operationTimeout = 30 * time.Second

// Stats counts what was written.
type Stats struct {
	Inserts, Updates, Deletes, Bulks, Transactions, Aborted, DDL int64
	// Lost are operations that a failover has interrupted, or that the server
	// has refused because the _id exists.
	Lost int64
}

// Operations is all of them together.
func (s Stats) Operations() int64 {
	return s.Inserts + s.Updates + s.Deletes + s.Bulks + s.Transactions + s.DDL
}

// Live keeps writing to a loaded data set.
type Live struct {
	cfg                                                                Config
	inserts, updates, deletes, bulks, transactions, aborted, ddl, lost atomic.Int64
}

// NewLive returns a workload that has not begun.
func NewLive(cfg Config) *Live { return &Live{cfg: cfg} }

// Stats returns what has been written so far. It is safe for concurrent use.
func (l *Live) Stats() Stats {
	return Stats{
		Inserts: l.inserts.Load(), Updates: l.updates.Load(), Deletes: l.deletes.Load(),
		Bulks: l.bulks.Load(), Transactions: l.transactions.Load(), Aborted: l.aborted.Load(), DDL: l.ddl.Load(), Lost: l.lost.Load(),
	}
}

// Run writes until ctx ends, then finishes what it is doing and returns nil; an
// operation that fails ends it with an error.
func (l *Live) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	writers := l.cfg.writers()
	for i := range writers {
		g.Go(func() error {
			w := l.writer(i, writers)
			if err := w.run(ctx); err != nil {
				return fmt.Errorf("writer %d: %w", i, err)
			}
			return nil
		})
	}
	if l.cfg.DDL && !l.cfg.Standin {
		g.Go(func() error {
			d := newDefiner(l)
			if err := d.run(ctx); err != nil {
				return fmt.Errorf("change definitions: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// writer owns every document whose number is congruent to its own.
type writer struct {
	live     *Live
	random   *rand.Rand
	own      uint64
	writers  uint64
	kinds    []*owned
	weights  int
	interval time.Duration
}

// owned is a writer's part of a kind.
type owned struct {
	kind
	coll *mongo.Collection
	// initial is how many documents the data set has; inserted counts those
	// that this writer has added behind base.
	initial, base, inserted uint64
	// deleted are a few that may be inserted once more.
	deleted []uint64
}

func (l *Live) writer(own, writers int) *writer {
	w := &writer{
		live: l, random: l.cfg.random("writer", uint64(own)),
		own: uint64(own), writers: uint64(writers),
	}
	if l.cfg.Rate > 0 {
		w.interval = time.Second * time.Duration(writers) / time.Duration(l.cfg.Rate)
	}
	// Far behind the data set, and elsewhere for every seed, so that a second
	// run on the same source does not meet the first one's documents.
	base := 1<<32 + l.cfg.random("base", 0).Uint64N(1<<20)<<24
	for _, k := range l.cfg.kinds() {
		w.kinds = append(w.kinds, &owned{kind: k, coll: l.cfg.collection(k), initial: l.cfg.initial(k), base: base - base%w.writers})
		w.weights += k.weight
	}
	return w
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) error {
	if w.interval == 0 {
		for ctx.Err() == nil {
			if err := w.step(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := w.step(ctx); err != nil {
			return err
		}
	}
}

// step is one operation.
func (w *writer) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	k := w.pick()
	var err error
	switch choice := w.random.IntN(100); {
	case choice < 25 || k.updates == nil && choice < 80:
		err = w.insert(ctx, k)
	case choice < 35 && !k.capped:
		err = w.delete(ctx, k)
	case choice < 40 && !w.live.cfg.Standin:
		err = w.transaction(ctx)
	case choice < 42 && !w.live.cfg.Standin:
		err = w.abort(ctx)
	case choice < 46 && !w.live.cfg.Standin && !k.capped && k.updates != nil:
		err = w.bulk(ctx, k)
	default:
		err = w.update(ctx, k)
	}
	if w.live.interrupted(err) || mongo.IsDuplicateKeyError(err) {
		// Nothing was written: an _id may have been written by a bulk or a
		// transaction before.
		w.live.lost.Add(1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("write ns=%s.%s: %w", k.db, k.kind.coll, err)
	}
	return nil
}

// pick chooses a kind by weight.
func (w *writer) pick() *owned {
	n := w.random.IntN(w.weights)
	for _, k := range w.kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	return w.kinds[0]
}

// number chooses one of the writer's documents of a kind, which may have been
// deleted; ok is false while there is none.
func (w *writer) number(k *owned) (number uint64, ok bool) {
	mine := (k.initial + w.writers - 1 - w.own) / w.writers
	n := mine + k.inserted
	if n == 0 {
		return 0, false
	}
	i := w.random.Uint64N(n)
	if i < mine {
		return i*w.writers + w.own, true
	}
	return k.base + (i-mine)*w.writers + w.own, true
}

// insert adds a new document, or one that was deleted before.
func (w *writer) insert(ctx context.Context, k *owned) error {
	number := k.base + k.inserted*w.writers + w.own
	if n := len(k.deleted); n > 0 && w.random.IntN(4) == 0 {
		number = k.deleted[n-1]
		k.deleted = k.deleted[:n-1]
	} else {
		k.inserted++
	}
	doc := append(bson.D{{Key: "_id", Value: k.id(number)}}, k.fields(w.random, number)...)
	if _, err := k.coll.InsertOne(ctx, doc); err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	w.live.inserts.Add(1)
	return nil
}

// maxDeleted is how many deleted documents a writer remembers of a kind.
const maxDeleted = 64

func (w *writer) delete(ctx context.Context, k *owned) error {
	number, ok := w.number(k)
	if !ok {
		return nil
	}
	result, err := k.coll.DeleteOne(ctx, w.filter(k, number))
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if result.DeletedCount > 0 && len(k.deleted) < maxDeleted {
		k.deleted = append(k.deleted, number)
	}
	w.live.deletes.Add(1)
	return nil
}

func (w *writer) update(ctx context.Context, k *owned) error {
	number, ok := w.number(k)
	if !ok || len(k.updates) == 0 {
		return nil
	}
	shape := w.random.IntN(len(k.updates))
	if err := k.updates[shape](ctx, k.coll, w.filter(k, number), w.random); err != nil {
		return fmt.Errorf("update of shape %d: %w", shape, err)
	}
	w.live.updates.Add(1)
	return nil
}

// filter selects a document by _id. One that is a document itself is compared
// with $eq, as it may look like an operator; the stand-in finds by index only
// what is compared without.
func (w *writer) filter(k *owned, number uint64) bson.D {
	id := k.id(number)
	if _, ok := id.(bson.D); ok {
		id = bson.D{{Key: "$eq", Value: id}}
	}
	return bson.D{{Key: "_id", Value: id}}
}

// transaction changes a few documents of several kinds together.
func (w *writer) transaction(ctx context.Context) error {
	var changes []func(context.Context) error
	for range 2 + w.random.IntN(3) {
		k := w.pick()
		number, ok := w.number(k)
		if !ok || len(k.updates) == 0 {
			continue
		}
		filter, value := w.filter(k, number), text(w.random, 2)
		changes = append(changes, func(ctx context.Context) error {
			_, err := k.coll.UpdateOne(ctx, filter, one("$set", "together", value))
			return err
		})
	}
	if len(changes) == 0 {
		return nil
	}
	session, err := w.live.cfg.Client.StartSession()
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	defer session.EndSession(ctx)
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		for _, change := range changes {
			if err := change(ctx); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("run transaction: %w", err)
	}
	w.live.transactions.Add(1)
	return nil
}
