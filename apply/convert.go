package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// converter brings one index of the destination into its wanted form. It is
// idempotent: what an earlier try left behind is where the next one begins.
type converter struct {
	client *mongo.Client
	target event.Namespace
	// wanted is the index as it shall be; weak is what is put back where that
	// cannot be, nil where nothing was built before.
	wanted, weak bson.Raw
	name         string
}

// newConverter prepares the conversion of a deferred index into the form that a
// policy gives it; nothing is written.
func newConverter(ctx context.Context, client *mongo.Client, d *deferredRecord, policy rules.IndexPolicy) (*converter, error) {
	target, err := event.ParseNamespace(d.ID.NS)
	if err != nil {
		return nil, fmt.Errorf("read deferred index: %w", err)
	}
	listed, exists, err := lookup(ctx, client, target)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, fmt.Errorf("build index ns=%s index=%s: the destination does not have the collection", target, d.ID.Index)
	}
	c := &converter{client: client, target: target, name: d.ID.Index}
	if c.wanted, _, err = rules.DeferIndex(d.Spec, policy); err != nil {
		return nil, err
	}
	if c.wanted, err = mongodb.ExplicitCollation(c.wanted, listed.Options); err != nil {
		return nil, err
	}
	if d.Reason == deferredFailed {
		return c, nil
	}
	if c.weak, _, err = rules.DeferIndex(d.Spec, rules.IndexPolicy{}); err != nil {
		return nil, err
	}
	c.weak, err = mongodb.ExplicitCollation(c.weak, listed.Options)
	return c, err
}

// errDuplicates is returned, wrapped, when documents share a unique key.
var errDuplicates = errors.New("documents share a key that must be unique")

// run returns nil when the index is there as wanted, and whatever happens leaves
// it there in one of the two forms; only a process that ends between a drop and
// its build leaves none, which the next run begins with.
func (c *converter) run(ctx context.Context) error {
	held, err := c.held(ctx)
	if err != nil {
		return err
	}
	if held == nil {
		return c.build(ctx)
	}
	same, err := sameIndex(held, c.wanted)
	if err != nil || same {
		return err
	}
	if err := c.shardable(ctx); err != nil {
		return err
	}
	done, err := c.modify(ctx)
	if err != nil || done {
		return err
	}
	// The server cannot change the index in place. Duplicates are looked for
	// first, so that the index is not taken away in vain.
	if found, err := c.duplicates(ctx, 1); err != nil {
		return err
	} else if len(found) > 0 {
		return fmt.Errorf("build index ns=%s index=%s: %w", c.target, c.name, errDuplicates)
	}
	if c.weak == nil {
		c.weak = held
	}
	drop := bson.D{{Key: "dropIndexes", Value: c.target.Coll}, {Key: "index", Value: c.name}, {Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}}}
	if err := c.db().RunCommand(ctx, drop).Err(); err != nil && !hasCode(err, codeIndexNotFound) {
		return fmt.Errorf("drop index ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	return c.build(ctx)
}

// build creates the index, or its weaker form where the server refuses it.
func (c *converter) build(ctx context.Context) error {
	err := createIndexes(ctx, c.db(), c.target.Coll, []bson.Raw{c.wanted})
	if err == nil || c.weak == nil {
		return err
	}
	if ctx.Err() != nil {
		// The claim is another's, or the process ends: the record says that
		// the index is missing.
		return err
	}
	return errors.Join(err, createIndexes(ctx, c.db(), c.target.Coll, []bson.Raw{c.weak}))
}

// modify changes the index in place; done is false where the server has no such
// thing, which is found by asking it: expiry on an index without is of 5.1,
// uniqueness of 6.0.
func (c *converter) modify(ctx context.Context) (done bool, err error) {
	unique := rules.UniqueIndex(c.wanted)
	if unique {
		if err := c.collMod(ctx, field("prepareUnique", true)); err != nil {
			return false, ifPassing(err)
		}
	}
	var changes []bson.E
	if unique {
		changes = append(changes, field("unique", true))
	}
	if v, err := c.wanted.LookupErr("expireAfterSeconds"); err == nil {
		changes = append(changes, field("expireAfterSeconds", v))
	}
	if len(changes) == 0 {
		return false, nil
	}
	err = c.collMod(ctx, changes...)
	if err == nil {
		held, err := c.held(ctx)
		if err != nil || held == nil {
			return false, err
		}
		return sameIndex(held, c.wanted)
	}
	if unique {
		if undo := c.collMod(context.WithoutCancel(ctx), field("prepareUnique", false)); undo != nil {
			return false, errors.Join(err, undo)
		}
	}
	return false, ifPassing(err)
}

// ifPassing keeps errors that another try may mend; any other says that the
// server cannot change the index in place.
func ifPassing(err error) error {
	var answer mongo.CommandError
	if !errors.As(err, &answer) {
		return err
	}
	if verdict := mongodb.Classify(err); verdict == retry.Stop || verdict == retry.Other {
		return nil
	}
	return err
}

func (c *converter) collMod(ctx context.Context, changes ...bson.E) error {
	index := append(bson.D{{Key: "name", Value: c.name}}, changes...)
	err := c.db().RunCommand(ctx, bson.D{
		{Key: "collMod", Value: c.target.Coll},
		{Key: "index", Value: index},
		{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
	}).Err()
	if err != nil {
		return fmt.Errorf("modify index ns=%s index=%s: %w", c.target, c.name, sanitize(err))
	}
	return nil
}

func (c *converter) db() *mongo.Database { return c.client.Database(c.target.DB) }

// held returns the destination's index of that name in creatable form, nil if
// there is none.
func (c *converter) held(ctx context.Context) (bson.Raw, error) {
	cursor, err := c.db().Collection(c.target.Coll).Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return nil, nil
	}
	var list []bson.Raw
	if err == nil {
		err = cursor.All(ctx, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("list indexes ns=%s: %w", c.target, err)
	}
	for _, held := range list {
		if name, _ := held.Lookup("name").StringValueOK(); name == c.name {
			return mongodb.CreatableIndex(held)
		}
	}
	return nil, nil
}

// sameIndex reports whether two indexes in creatable form are the same: fields
// may stand in another order, and what says nothing may be left out.
func sameIndex(a, b bson.Raw) (bool, error) {
	left, err := saying(a)
	if err != nil {
		return false, err
	}
	right, err := saying(b)
	if err != nil || len(left) != len(right) {
		return false, err
	}
	for name, value := range left {
		other, ok := right[name]
		if !ok {
			return false, nil
		}
		if name == "unique" || name == "sparse" {
			continue // both are set
		}
		if n, numeric := value.AsFloat64OK(); numeric {
			if m, ok := other.AsFloat64OK(); !ok || n != m {
				return false, nil
			}
			continue
		}
		if !sameBytes(value, other) {
			return false, nil
		}
	}
	return true, nil
}

// saying returns the fields of an index that say something about it.
func saying(spec bson.Raw) (map[string]bson.RawValue, error) {
	body, err := rawbson.Body(spec)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	fields := map[string]bson.RawValue{}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		body = rest
		switch name := string(e.Name); {
		case slices.Contains([]string{"background", "prepareUnique"}, name):
		case (name == "unique" || name == "sparse") && !isTrue(e.RawValue()):
		case name == "collation" && simple(e.RawValue()):
		default:
			fields[name] = e.RawValue()
		}
	}
	return fields, nil
}

// isTrue is the server's reading of a flag.
func isTrue(v bson.RawValue) bool {
	if b, ok := v.BooleanOK(); ok {
		return b
	}
	n, ok := v.AsFloat64OK()
	return ok && n != 0
}

// simple reports whether a collation is the binary one, which servers do not
// list.
func simple(collation bson.RawValue) bool {
	doc, ok := collation.DocumentOK()
	if !ok {
		return false
	}
	locale, _ := doc.Lookup("locale").StringValueOK()
	return locale == "simple"
}
