package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// preparer creates the collections of a run in the destination. One member of
// the group does so at a time; it may be repeated.
type preparer struct {
	client *mongo.Client
	store  *store
	rules  rules.Destination
	// conflicts says what documents that are there already mean.
	conflicts string
	// plain says that the schema is not this group's to bring: collections that
	// are missing are made with what matters to documents alone.
	plain bool
	// hold makes sure of the step's claim; it is asked before each creation, so
	// that a member which slept creates nothing that was dropped since.
	hold func(context.Context) error
	// shards shards what is made; nil for nothing.
	shards *sharder
}

// prepare creates what the manifest lists and the rules select: collections
// first, views after what they read. A target that somebody else made is
// refused before anything is created.
func (p *preparer) prepare(ctx context.Context, m *state.Manifest) error {
	var all []event.Namespace
	for i := range m.Collections {
		all = append(all, m.Collections[i].Namespace())
	}
	if err := p.rules.CheckTargets(all); err != nil {
		return err
	}
	var conflicts []error
	for i := range m.Collections {
		conflicts = append(conflicts, p.check(ctx, m, &m.Collections[i]))
	}
	if err := errors.Join(conflicts...); err != nil {
		return err
	}
	for i := range m.Collections {
		if c := &m.Collections[i]; !c.View {
			if err := p.create(ctx, m, c); err != nil {
				return err
			}
		}
	}
	if p.plain {
		return nil
	}
	for _, c := range orderViews(m.Collections) {
		if err := p.create(ctx, m, c); err != nil {
			return err
		}
	}
	return nil
}

// conflictError is a target that is not the group's to write.
type conflictError struct {
	target event.Namespace
	reason string
}

// Error names the target and the remedy.
func (e *conflictError) Error() string {
	return fmt.Sprintf("prepare target %s: %s: hint: drop it, rename the database in the destination's rules, or exclude the collection", e.target, e.reason)
}

// check refuses a target that exists and was not made for this run: with
// documents, other options or indexes of its own it could never become the
// source's.
func (p *preparer) check(ctx context.Context, m *state.Manifest, c *state.Collection) error {
	target, ok := p.rules.Target(c.Namespace())
	if !ok || p.plain && c.View {
		return nil
	}
	record, found, err := p.store.collection(ctx, c.Namespace())
	if err != nil || found && record.Run == m.Run {
		return err
	}
	opts, err := p.options(c)
	if err != nil {
		return fmt.Errorf("prepare target %s: %w", target, err)
	}
	listed, exists, err := lookup(ctx, p.client, target)
	if err != nil || !exists {
		return err
	}
	if p.plain {
		return fits(ctx, p.client, target, listed, opts, p.conflicts)
	}
	if p.conflicts == ConflictsFail {
		return untouched(ctx, p.client, target, listed, opts)
	}
	// Its documents and indexes may stay, if it can become the source's.
	return suits(target, listed, opts)
}

// suits returns a *conflictError unless a collection that exists has those
// options.
func suits(target event.Namespace, listed listedCollection, opts bson.Raw) error {
	same, err := sameOptions(listed, opts)
	if err != nil {
		return fmt.Errorf("look at target %s: %w", target, err)
	}
	if !same {
		return &conflictError{target, "it exists with other options than the source's"}
	}
	return nil
}

// untouched returns a *conflictError unless a collection that exists is as if
// just created with those options.
func untouched(ctx context.Context, client *mongo.Client, target event.Namespace, listed listedCollection, opts bson.Raw) error {
	if err := suits(target, listed, opts); err != nil || listed.View {
		return err
	}
	coll := client.Database(target.DB).Collection(target.Coll)
	err := coll.FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
	if err == nil {
		return &conflictError{target, "it exists and holds documents that this pipeline did not load"}
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return fmt.Errorf("look at target %s: %w", target, err)
	}
	indexes, err := coll.Indexes().ListSpecifications(ctx)
	if err != nil {
		return fmt.Errorf("look at target %s: %w", target, err)
	}
	own, err := beyondShardKey(ctx, client, target, indexes)
	if err != nil {
		return err
	}
	if own > 0 {
		return &conflictError{target, "it exists with indexes of its own"}
	}
	return nil
}

// create makes one collection or view and records it. The record comes first,
// so that a crash in between cannot make the group's own collection look like
// somebody else's.
func (p *preparer) create(ctx context.Context, m *state.Manifest, c *state.Collection) error {
	target, ok := p.rules.Target(c.Namespace())
	if !ok {
		return nil
	}
	record, found, err := p.store.collection(ctx, c.Namespace())
	if err != nil || found && record.Run == m.Run && record.Ready {
		return err
	}
	opts, err := p.options(c)
	if err != nil {
		return fmt.Errorf("prepare target %s: %w", target, err)
	}
	record = collectionRecord{
		ID: p.store.collectionID(c.Namespace()), Target: target.String(), Run: m.Run,
		Watermark: m.Watermark, SourceUUID: c.UUID.String(),
	}
	if err := p.store.putCollection(ctx, record); err != nil {
		return err
	}
	if opts, err = withListedIDIndex(opts, c.Indexes); err != nil {
		return fmt.Errorf("prepare target %s: %w", target, err)
	}
	if err := p.hold(ctx); err != nil {
		return err
	}
	if err := createCollection(ctx, p.client, target, opts); err != nil {
		return err
	}
	if err := p.shards.spread(ctx, target, opts); err != nil {
		return err
	}
	record.Ready = true
	return p.store.putCollection(ctx, record)
}

// withListedIDIndex adds the source's _id index to create options where the
// destination would make another one: an older version of it.
func withListedIDIndex(opts bson.Raw, indexes [][]byte) (bson.Raw, error) {
	for _, spec := range indexes {
		spec := bson.Raw(spec)
		name, _ := spec.Lookup("name").StringValueOK()
		if version, ok := spec.Lookup("v").AsInt64OK(); name == "_id_" && ok && version < 2 {
			return withIDIndex(opts, spec)
		}
	}
	return opts, nil
}

// orderViews returns the views so that each comes after the view it reads.
func orderViews(collections []state.Collection) []*state.Collection {
	views := map[event.Namespace]*state.Collection{}
	for i := range collections {
		if c := &collections[i]; c.View {
			views[c.Namespace()] = c
		}
	}
	var ordered []*state.Collection
	seen := map[event.Namespace]bool{}
	var visit func(c *state.Collection)
	visit = func(c *state.Collection) {
		if seen[c.Namespace()] {
			return
		}
		seen[c.Namespace()] = true
		on, _ := bson.Raw(c.Options).Lookup("viewOn").StringValueOK()
		if below, ok := views[event.Namespace{DB: c.DB, Coll: on}]; ok {
			visit(below)
		}
		ordered = append(ordered, c)
	}
	for i := range collections {
		if c := &collections[i]; c.View {
			visit(c)
		}
	}
	return ordered
}

func (s *store) collectionID(ns event.Namespace) collectionID {
	return collectionID{Pipeline: s.id.Pipeline, Group: s.id.Group, NS: ns.String()}
}

// collection reads the record of a source collection.
func (s *store) collection(ctx context.Context, ns event.Namespace) (c collectionRecord, ok bool, err error) {
	err = s.db.Collection(collectionsCollection).FindOne(ctx, byID(s.collectionID(ns))).Decode(&c)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return collectionRecord{}, false, nil
	}
	if err != nil {
		return collectionRecord{}, false, fmt.Errorf("read collection record ns=%s: %w", ns, err)
	}
	return c, true, nil
}

// putCollection writes the record of a source collection.
func (s *store) putCollection(ctx context.Context, c collectionRecord) error {
	_, err := s.db.Collection(collectionsCollection).ReplaceOne(ctx, byID(c.ID), c, options.Replace().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("write collection record ns=%s: %w", c.ID.NS, sanitize(err))
	}
	return nil
}

// dropCollection removes the record of a source collection.
func (s *store) dropCollection(ctx context.Context, ns event.Namespace) error {
	if _, err := s.db.Collection(collectionsCollection).DeleteOne(ctx, byID(s.collectionID(ns))); err != nil {
		return fmt.Errorf("remove collection record ns=%s: %w", ns, sanitize(err))
	}
	return nil
}
