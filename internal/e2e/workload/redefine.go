package workload

import (
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// look reads again which collections there are, after a command of which it is
// not known whether it took effect.
func (d *definer) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	defer cancel()
	names, err := d.db.ListCollectionNames(ctx, bson.D{{Key: "name", Value: bson.D{{Key: "$regex", Value: "^" + d.prefix}}}})
	if err != nil {
		if d.live.interrupted(err) {
			return nil // the next step finds out
		}
		return fmt.Errorf("list collections: %w", err)
	}
	slices.Sort(names)
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
	if !d.live.renames.Load() {
		return d.write(ctx, from)
	}
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
	if !d.live.reloads.Load() {
		return d.write(ctx, coll)
	}
	if err := d.db.RunCommand(ctx, bson.D{{Key: "convertToCapped", Value: coll.Name()}, {Key: "size", Value: 1 << 20}}).Err(); err != nil {
		return fmt.Errorf("convert %s: %w", coll.Name(), err)
	}
	return d.write(ctx, coll)
}

// renameAcross moves a collection to another database and back.
func (d *definer) renameAcross(ctx context.Context, i int) error {
	if !d.live.reloads.Load() {
		return d.write(ctx, d.db.Collection(d.names[i]))
	}
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
