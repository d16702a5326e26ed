package workload

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// loadBatch is how many documents are inserted at one time.
const loadBatch = 500

// Load writes the data set into an empty source: collections, indexes, a view
// and documents. It calls progress, where set, with the number of documents
// written so far, from several goroutines.
func Load(ctx context.Context, cfg Config, progress func(documents int64)) error {
	for _, k := range cfg.kinds() {
		if k.late {
			continue
		}
		if err := cfg.create(ctx, k); err != nil {
			return fmt.Errorf("create ns=%s.%s: %w", k.db, k.coll, err)
		}
	}
	if err := cfg.insertAll(ctx, progress); err != nil {
		return err
	}
	if cfg.Standin {
		return nil
	}
	if err := cfg.loadStock(ctx); err != nil {
		return err
	}
	open := bson.A{bson.D{{Key: "$match", Value: bson.D{{Key: "status", Value: "open"}}}}}
	if err := cfg.Client.Database("shop").CreateView(ctx, "open_orders", "orders", open); err != nil {
		return fmt.Errorf("create view: %w", err)
	}
	return nil
}

const (
	// stock begins the names of small collections that are there when a load
	// begins, for Config.DDL to rename, convert and drop; stocks is how many.
	stock  = "stock_"
	stocks = 6
)

// loadStock makes them, with indexes.
func (c Config) loadStock(ctx context.Context) error {
	random := c.random(stock, 0)
	for i := range stocks {
		coll := c.Client.Database("archive").Collection(fmt.Sprintf("%s%d", stock, i))
		docs := make([]any, 10+c.Documents/50)
		for j := range docs {
			docs[j] = bson.D{{Key: "_id", Value: int32(j)}, {Key: "n", Value: random.IntN(1000)}, {Key: "word", Value: text(random, 20)}, {Key: "at", Value: date(random)}}
		}
		if _, err := coll.InsertMany(ctx, docs); err != nil {
			return fmt.Errorf("load ns=archive.%s: %w", coll.Name(), err)
		}
		if _, err := coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}}}); err != nil {
			return fmt.Errorf("load ns=archive.%s: %w", coll.Name(), err)
		}
	}
	return nil
}

// insertAll inserts the documents of every kind.
func (c Config) insertAll(ctx context.Context, progress func(documents int64)) error {
	var written atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.writers())
	for _, k := range c.kinds() {
		documents := c.initial(k)
		for first := uint64(0); first < documents; first += loadBatch {
			g.Go(func() error {
				n, err := c.insertRange(ctx, k, first, min(first+loadBatch, documents))
				if err != nil {
					return fmt.Errorf("load ns=%s.%s: %w", k.db, k.coll, err)
				}
				total := written.Add(n)
				if progress != nil {
					progress(total)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// initial is how many documents of a kind the data set has.
func (c Config) initial(k kind) uint64 {
	if k.late {
		return 0
	}
	return uint64(c.Documents * k.share / 100)
}

// create makes a collection with its indexes, so that they are there before its
// documents.
func (c Config) create(ctx context.Context, k kind) error {
	db := c.Client.Database(k.db)
	opts := options.CreateCollection()
	if k.capped {
		opts.SetCapped(true).SetSizeInBytes(64 << 20)
	}
	if err := db.CreateCollection(ctx, k.coll, opts); err != nil {
		return err
	}
	if len(k.indexes) == 0 {
		return nil
	}
	_, err := db.Collection(k.coll).Indexes().CreateMany(ctx, k.indexes)
	return err
}

// insertRange inserts the documents numbered from first to before end.
func (c Config) insertRange(ctx context.Context, k kind, first, end uint64) (int64, error) {
	docs := make([]any, 0, end-first)
	for number := first; number < end; number++ {
		docs = append(docs, c.document(k, number))
	}
	_, err := c.collection(k).InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	return int64(len(docs)), err
}

// document is the first image of a numbered document.
func (c Config) document(k kind, number uint64) bson.D {
	fields := k.fields(c.random(k.coll, number), number)
	return append(bson.D{{Key: "_id", Value: k.id(number)}}, fields...)
}

func (c Config) collection(k kind) *mongo.Collection {
	return c.Client.Database(k.db).Collection(k.coll)
}
