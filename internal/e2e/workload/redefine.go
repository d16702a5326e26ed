package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// look reads again which collections there are, after a command of which it is
// not known whether it took effect.
func (d *definer) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	own := fmt.Sprintf("^(%s|%s)", stock, d.prefix)
	names, err := d.db.ListCollectionNames(ctx, bson.D{{Key: "name", Value: bson.D{{Key: "$regex", Value: own}}}})
	if err != nil {
		if d.live.interrupted(err) {
			return nil // the next step finds out
		}
		return fmt.Errorf("list collections: %w", err)
	}
	slices.Sort(names)
	at := slices.Index(names, d.viewName())
	if d.view = at >= 0; d.view {
		names = slices.Delete(names, at, at+1)
	}
	d.names = names
	return nil
}

// modify changes a collection's validator.
func (d *definer) modify(ctx context.Context, coll *mongo.Collection) error {
	level := []string{"off", "moderate", "strict"}[d.random.IntN(3)]
	validator := bson.D{{Key: "n", Value: bson.D{{Key: "$type", Value: "number"}}}}
	command := bson.D{{Key: "collMod", Value: coll.Name()}, {Key: "validator", Value: validator}, {Key: "validationLevel", Value: level}}
	if err := d.db.RunCommand(ctx, command).Err(); err != nil {
		return fmt.Errorf("modify %s: %w", coll.Name(), err)
	}
	return nil
}

// dropDatabase makes a database with two collections and drops it.
func (d *definer) dropDatabase(ctx context.Context) error {
	db := d.second()
	for _, name := range []string{"a", "b"} {
		if err := d.write(ctx, db.Collection(name)); err != nil {
			return err
		}
	}
	if err := db.Drop(ctx); err != nil {
		return fmt.Errorf("drop database %s: %w", db.Name(), err)
	}
	return d.write(ctx, db.Collection("a"))
}

// second is a database beside the definer's own.
func (d *definer) second() *mongo.Database { return d.live.cfg.Client.Database("archive_2") }

// out replaces a collection by what an aggregation finds, which the server does
// with a temporary collection and a rename.
func (d *definer) out(ctx context.Context, from *mongo.Collection) error {
	to := d.prefix + "_out"
	cursor, err := from.Aggregate(ctx, mongo.Pipeline{{{Key: "$match", Value: bson.D{{Key: "n", Value: bson.D{{Key: "$gt", Value: 100}}}}}}, {{Key: "$out", Value: to}}})
	if err != nil {
		return fmt.Errorf("aggregate %s into %s: %w", from.Name(), to, err)
	}
	if err := cursor.Close(ctx); err != nil {
		return fmt.Errorf("aggregate %s into %s: %w", from.Name(), to, err)
	}
	return d.write(ctx, d.db.Collection(to))
}

// convert makes a collection a capped one.
func (d *definer) convert(ctx context.Context, coll *mongo.Collection) error {
	if err := d.db.RunCommand(ctx, bson.D{{Key: "convertToCapped", Value: coll.Name()}, {Key: "size", Value: 1 << 20}}).Err(); err != nil {
		return fmt.Errorf("convert %s: %w", coll.Name(), err)
	}
	return d.write(ctx, coll)
}

// renameAcross moves a collection to another database and back.
func (d *definer) renameAcross(ctx context.Context, i int) error {
	here, there := d.db.Name()+"."+d.names[i], d.second().Name()+".visitor"
	for _, way := range [][2]string{{here, there}, {there, here}} {
		err := d.live.cfg.Client.Database("admin").RunCommand(ctx, bson.D{
			{Key: "renameCollection", Value: way[0]}, {Key: "to", Value: way[1]}, {Key: "dropTarget", Value: true},
		}).Err()
		if err != nil {
			return fmt.Errorf("rename %s to %s: %w", way[0], way[1], err)
		}
	}
	return d.write(ctx, d.db.Collection(d.names[i]))
}

// viewName is that of the definer's one view.
func (d *definer) viewName() string { return d.prefix + "_view" }

// changeView makes the view, has it show another collection, or drops it.
func (d *definer) changeView(ctx context.Context, on string) error {
	name := d.viewName()
	large := mongo.Pipeline{{{Key: "$match", Value: bson.D{{Key: "n", Value: bson.D{{Key: "$gt", Value: d.random.IntN(1000)}}}}}}}
	var err error
	switch {
	case !d.view:
		err = d.db.CreateView(ctx, name, on, large)
		d.view = err == nil
	case d.random.IntN(2) == 0:
		err = d.db.RunCommand(ctx, bson.D{{Key: "collMod", Value: name}, {Key: "viewOn", Value: on}, {Key: "pipeline", Value: large}}).Err()
	default:
		err = d.db.Collection(name).Drop(ctx)
		d.view = err != nil
	}
	if err != nil {
		return fmt.Errorf("change view %s: %w", name, err)
	}
	return nil
}

// longTime is so long, in seconds, that no document expires while anybody looks.
const longTime = 50 * 365 * 24 * 3600

// createRestrictive makes an index that is unique, or one that lets documents
// expire.
func (d *definer) createRestrictive(ctx context.Context, coll *mongo.Collection) error {
	index := mongo.IndexModel{Keys: bson.D{{Key: "n", Value: 1}, {Key: "_id", Value: 1}}, Options: options.Index().SetUnique(true)}
	if d.random.IntN(2) == 0 {
		index = mongo.IndexModel{Keys: bson.D{{Key: "at", Value: -1}}, Options: options.Index().SetExpireAfterSeconds(longTime)}
		capped, err := d.capped(ctx, coll)
		if err != nil || capped {
			return err // a capped collection takes none
		}
	}
	_, err := coll.Indexes().CreateOne(ctx, index)
	if refused, ok := errors.AsType[mongo.CommandError](err); ok && refused.HasErrorCode(codeIndexOptionsConflict) {
		return nil // it has been modified since it was made
	}
	if err != nil {
		return fmt.Errorf("create index of %s: %w", coll.Name(), err)
	}
	return nil
}

// capped reports whether a collection is a capped one.
func (d *definer) capped(ctx context.Context, coll *mongo.Collection) (bool, error) {
	found, err := d.db.ListCollectionSpecifications(ctx, bson.D{{Key: "name", Value: coll.Name()}, {Key: "options.capped", Value: true}})
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", coll.Name(), err)
	}
	return len(found) > 0, nil
}

// modifyIndex hides or shows an index, or changes when documents expire.
func (d *definer) modifyIndex(ctx context.Context, coll *mongo.Collection) error {
	index := bson.D{{Key: "name", Value: d.field() + "_1"}, {Key: "hidden", Value: d.random.IntN(2) == 0}}
	if d.random.IntN(2) == 0 {
		index = bson.D{{Key: "name", Value: "at_-1"}, {Key: "expireAfterSeconds", Value: longTime + d.random.IntN(1000)}}
	}
	err := d.db.RunCommand(ctx, bson.D{{Key: "collMod", Value: coll.Name()}, {Key: "index", Value: index}}).Err()
	if err = unlessMissing(err); err != nil {
		return fmt.Errorf("modify index of %s: %w", coll.Name(), err)
	}
	return nil
}
