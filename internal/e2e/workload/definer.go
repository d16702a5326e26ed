package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// definer creates, renames and drops collections and indexes of its own, so
// that its commands and other writers' operations do not refuse each other. It
// begins with the stock of the data set, which a full load meets.
type definer struct {
	live   *Live
	random *rand.Rand
	db     *mongo.Database
	// names are the collections that exist; serial numbers the next one.
	names  []string
	serial int
	prefix string
	// view says that its view exists.
	view bool
}

// definerInterval is the time between two steps.
const definerInterval = 300 * time.Millisecond

func newDefiner(l *Live) *definer {
	random := l.cfg.random("definer", 0)
	return &definer{
		live: l, random: random, db: l.cfg.Client.Database("archive"),
		prefix: fmt.Sprintf("part_%05x", random.Uint32()&0xfffff),
	}
}

// run makes a step now and then until ctx ends.
func (d *definer) run(ctx context.Context) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(definerInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		err := d.step(ctx)
		if d.live.interrupted(err) {
			d.live.lost.Add(1)
			err = d.look(ctx)
		}
		if err != nil {
			return err
		}
		d.live.ddl.Add(1)
	}
}

// step changes one definition and writes around it, so that the order of the
// two matters.
func (d *definer) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	if len(d.names) < 3 {
		return d.create(ctx)
	}
	i := d.random.IntN(len(d.names))
	coll := d.db.Collection(d.names[i])
	switch d.random.IntN(16) {
	case 0:
		return d.create(ctx)
	case 1:
		return d.rename(ctx, i)
	case 2:
		return d.drop(ctx, i)
	case 3:
		return d.createIndex(ctx, coll, d.field())
	case 4:
		return d.dropIndex(ctx, coll, d.field())
	case 5:
		// On a large collection that others write to.
		return d.createIndex(ctx, d.live.cfg.Client.Database("shop").Collection("orders"), "reference")
	case 6:
		return d.dropIndex(ctx, d.live.cfg.Client.Database("shop").Collection("orders"), "reference")
	case 7:
		return d.modify(ctx, coll)
	case 8:
		return d.dropDatabase(ctx)
	case 9:
		return d.out(ctx, coll)
	case 10:
		return d.convert(ctx, coll)
	case 11:
		return d.renameAcross(ctx, i)
	case 12:
		return d.changeView(ctx, coll.Name())
	case 13:
		return d.createRestrictive(ctx, coll)
	case 14:
		return d.modifyIndex(ctx, coll)
	}
	return d.write(ctx, coll)
}

// field is one that documents of the definer's have.
func (d *definer) field() string { return []string{"n", "word", "at"}[d.random.IntN(3)] }

// create makes a collection, with options or by its first insert, and writes to
// it.
func (d *definer) create(ctx context.Context) error {
	d.serial++
	name := fmt.Sprintf("%s_%d", d.prefix, d.serial)
	var opts *options.CreateCollectionOptionsBuilder
	switch d.random.IntN(4) {
	case 0:
		opts = options.CreateCollection().SetValidator(bson.D{{Key: "n", Value: bson.D{{Key: "$exists", Value: true}}}}).SetValidationLevel("moderate")
	case 1:
		opts = options.CreateCollection().SetCollation(&options.Collation{Locale: "de", Strength: 2})
	case 2:
		opts = options.CreateCollection().SetCapped(true).SetSizeInBytes(1 << 20)
	}
	if opts != nil {
		if err := d.db.CreateCollection(ctx, name, opts); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
	}
	d.names = append(d.names, name)
	return d.write(ctx, d.db.Collection(name))
}

// rename gives a collection a new name or, now and then, that of another one,
// which is dropped by it.
func (d *definer) rename(ctx context.Context, i int) error {
	d.serial++
	from, to := d.names[i], fmt.Sprintf("%s_%d", d.prefix, d.serial)
	if other := d.random.IntN(len(d.names)); other != i && d.random.IntN(3) == 0 {
		to = d.names[other]
	}
	err := d.live.cfg.Client.Database("admin").RunCommand(ctx, bson.D{
		{Key: "renameCollection", Value: d.db.Name() + "." + from},
		{Key: "to", Value: d.db.Name() + "." + to},
		{Key: "dropTarget", Value: true},
	}).Err()
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	d.names = slices.DeleteFunc(d.names, func(name string) bool { return name == from || name == to })
	d.names = append(d.names, to)
	return d.write(ctx, d.db.Collection(to))
}

// drop drops a collection and, now and then, makes another one of its name.
func (d *definer) drop(ctx context.Context, i int) error {
	name := d.names[i]
	if err := d.db.Collection(name).Drop(ctx); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	if d.random.IntN(2) == 0 {
		return d.write(ctx, d.db.Collection(name))
	}
	d.names = slices.Delete(d.names, i, i+1)
	return nil
}

func (d *definer) createIndex(ctx context.Context, coll *mongo.Collection, field string) error {
	_, err := coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: field, Value: 1}}})
	if err != nil {
		return fmt.Errorf("create index %s of %s: %w", field, coll.Name(), err)
	}
	return nil
}

// Codes of the server.
const (
	codeIndexNotFound        = 27
	codeIndexOptionsConflict = 85
)

func (d *definer) dropIndex(ctx context.Context, coll *mongo.Collection, field string) error {
	if err := unlessMissing(coll.Indexes().DropOne(ctx, field+"_1")); err != nil {
		return fmt.Errorf("drop index %s of %s: %w", field, coll.Name(), err)
	}
	return nil
}

// unlessMissing returns the error unless it says that there is no such index.
func unlessMissing(err error) error {
	if refused, ok := errors.AsType[mongo.CommandError](err); ok && refused.HasErrorCode(codeIndexNotFound) {
		return nil
	}
	return err
}

// write adds a few documents and changes one that is there.
func (d *definer) write(ctx context.Context, coll *mongo.Collection) error {
	docs := make([]any, 0, 5)
	for range cap(docs) {
		docs = append(docs, bson.D{
			{Key: "_id", Value: bson.NewObjectID()},
			{Key: "n", Value: d.random.IntN(1000)},
			{Key: "word", Value: word(d.random)},
			{Key: "at", Value: date(d.random)},
		})
	}
	if _, err := coll.InsertMany(ctx, docs); err != nil {
		return fmt.Errorf("insert into %s: %w", coll.Name(), err)
	}
	if _, err := coll.UpdateOne(ctx, bson.D{}, one("$inc", "n", 1)); err != nil {
		return fmt.Errorf("update in %s: %w", coll.Name(), err)
	}
	return nil
}
