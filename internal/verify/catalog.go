package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// pair is a source collection and what the rules make of it.
type pair struct {
	source mongodb.CatalogEntry
	target event.Namespace
	held   mongodb.CatalogEntry
	// shardKey is the destination's, {field: 1 or "hashed", …}; nil where it is
	// not sharded.
	shardKey bson.Raw
}

// catalog is both sides' collections, paired.
type catalog struct {
	pairs []*pair
	// missing are the pairs whose target does not exist; extra are the
	// destination's collections that belong to no pair.
	missing []*pair
	extra   []event.Namespace
}

// readCatalog lists both sides and pairs them.
func readCatalog(ctx context.Context, cfg *Config) (*catalog, error) {
	sources, err := mongodb.ListCollections(ctx, cfg.Source, cfg.Rules.Selection.Match)
	if err != nil {
		return nil, fmt.Errorf("list source collections: %w", err)
	}
	held, err := mongodb.ListCollections(ctx, cfg.Target, func(string, string) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("list destination collections: %w", err)
	}
	owners, err := readOwners(ctx, cfg.Target)
	if err != nil {
		return nil, err
	}
	keys, err := mongodb.ShardKeys(ctx, cfg.Target)
	if err != nil {
		return nil, fmt.Errorf("list destination's shard keys: %w", err)
	}
	byTarget := make(map[event.Namespace]mongodb.CatalogEntry, len(held))
	for _, entry := range held {
		byTarget[entry.NS] = entry
	}
	c := &catalog{}
	for _, source := range sources {
		target, ok := cfg.Rules.Target(source.NS)
		if !ok {
			continue
		}
		p := &pair{source: source, target: target}
		entry, ok := byTarget[target]
		delete(byTarget, target)
		if !ok {
			c.missing = append(c.missing, p)
			continue
		}
		p.held, p.shardKey = entry, keys[target]
		c.pairs = append(c.pairs, p)
	}
	origins := originsOf(sources, owners, cfg.Pipeline)
	for ns := range byTarget {
		if belongs(cfg, owners[ns], origins, ns) {
			c.extra = append(c.extra, ns)
		}
	}
	slices.SortFunc(c.extra, func(a, b event.Namespace) int { return strings.Compare(a.String(), b.String()) })
	return c, nil
}

// owner is who brought a destination collection there.
type owner struct {
	pipeline string
	source   event.Namespace
}

// readOwners reads which pipelines have loaded or created which collections of
// the destination.
func readOwners(ctx context.Context, client *mongo.Client) (map[event.Namespace]owner, error) {
	cursor, err := client.Database(stateDatabase).Collection(collectionsCollection).Find(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("read destination's record of collections: %w", err)
	}
	var rows []struct {
		ID struct {
			Pipeline string `bson:"pipeline"`
			NS       string `bson:"ns"`
		} `bson:"_id"`
		Target string `bson:"target"`
	}
	if err := cursor.All(ctx, &rows); err != nil {
		return nil, fmt.Errorf("read destination's record of collections: %w", err)
	}
	owners := make(map[event.Namespace]owner, len(rows))
	for _, row := range rows {
		source, err := event.ParseNamespace(row.ID.NS)
		target, targetErr := event.ParseNamespace(row.Target)
		if err := errors.Join(err, targetErr); err != nil {
			return nil, fmt.Errorf("read destination's record of collections: %w", err)
		}
		owners[target] = owner{pipeline: row.ID.Pipeline, source: source}
	}
	return owners, nil
}

// originsOf is every database of the source that the pipeline is known to have
// read: those that exist and those that the destination remembers.
func originsOf(sources []mongodb.CatalogEntry, owners map[event.Namespace]owner, pipeline string) map[string]bool {
	origins := map[string]bool{}
	for _, source := range sources {
		origins[source.NS.DB] = true
	}
	for _, o := range owners {
		if o.pipeline == pipeline {
			origins[o.source.DB] = true
		}
	}
	return origins
}

// belongs reports whether a destination collection without a counterpart would
// have one if this pipeline's source had it: then it is extra, otherwise it is
// somebody else's.
func belongs(cfg *Config, o owner, origins map[string]bool, ns event.Namespace) bool {
	if o.pipeline != "" && o.pipeline != cfg.Pipeline {
		return false
	}
	maps := func(db string) bool {
		target, ok := cfg.Rules.Target(event.Namespace{DB: db, Coll: ns.Coll})
		return ok && target == ns
	}
	for db := range origins {
		if maps(db) {
			return true
		}
	}
	return maps(ns.DB)
}

// compareCatalog reports what differs in collections, options and indexes.
func compareCatalog(c *catalog, waiting *waiting, found *collector) error {
	for _, p := range c.missing {
		found.add(Difference{Kind: KindCollectionMissing, Source: p.source.NS.String(), Target: p.target.String()})
	}
	for _, ns := range c.extra {
		found.add(Difference{Kind: KindCollectionExtra, Target: ns.String()})
	}
	for _, p := range c.pairs {
		if p.source.View != p.held.View {
			found.add(p.difference(KindOptions, "one side is a view, the other a collection"))
			continue
		}
		names, err := differingFields(p.source.Options, p.held.Options)
		if err != nil {
			return fmt.Errorf("compare options ns=%s: %w", p.source.NS, err)
		}
		if len(names) > 0 {
			found.add(p.difference(KindOptions, strings.Join(names, ", ")))
		}
		if err := compareIndexes(p, waiting, found); err != nil {
			return fmt.Errorf("compare indexes ns=%s: %w", p.source.NS, err)
		}
	}
	return nil
}

func (p *pair) difference(kind Kind, detail string) Difference {
	return Difference{Kind: kind, Source: p.source.NS.String(), Target: p.target.String(), Detail: detail}
}

// compareIndexes reports indexes that are missing, extra or other, and those
// that wait for the operator.
func compareIndexes(p *pair, waiting *waiting, found *collector) error {
	held := map[string]bson.Raw{}
	for _, raw := range p.held.Indexes {
		spec, name, err := indexSpec(raw)
		if err != nil {
			return err
		}
		held[name] = spec
	}
	for _, raw := range p.source.Indexes {
		spec, name, err := indexSpec(raw)
		if err != nil {
			return err
		}
		there := held[name]
		delete(held, name)
		if there == nil {
			p.missingIndex(name, waiting, found)
			continue
		}
		if err := p.compareIndex(name, spec, there, waiting, found); err != nil {
			return err
		}
	}
	for name, spec := range held {
		if p.servesShardKey(spec) {
			continue
		}
		found.add(p.difference(KindIndexes, fmt.Sprintf("index %s exists at the destination alone", name)))
	}
	return nil
}

// missingIndex reports an index that the destination does not hold.
func (p *pair) missingIndex(name string, waiting *waiting, found *collector) {
	if reason, ok := waiting.reasons[deferredKey{ns: p.target.String(), index: name}]; ok {
		found.add(p.difference(KindDeferred, fmt.Sprintf("index %s waits to be built: %s", name, reason)))
		return
	}
	found.add(p.difference(KindIndexes, fmt.Sprintf("index %s exists at the source alone", name)))
}

// compareIndex compares an index of the source with the one of that name that the
// destination holds.
func (p *pair) compareIndex(name string, spec, held bson.Raw, waiting *waiting, found *collector) error {
	names, err := differingFields(spec, held)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	built, isDeferred, err := rules.DeferIndex(spec, rules.IndexPolicy{})
	if err != nil {
		return fmt.Errorf("defer index %s: %w", name, err)
	}
	if isDeferred {
		isDeferred, err = waiting.may(deferredKey{ns: p.target.String(), index: name}, spec)
		if err != nil {
			return fmt.Errorf("defer index %s: %w", name, err)
		}
	}
	if isDeferred {
		rest, err := differingFields(built, held)
		if err != nil {
			return err
		}
		if len(rest) == 0 {
			found.add(p.difference(KindDeferred, fmt.Sprintf("index %s is built without %s", name, strings.Join(names, ", "))))
			return nil
		}
	}
	found.add(p.difference(KindIndexes, fmt.Sprintf("index %s differs in %s", name, strings.Join(names, ", "))))
	return nil
}

// indexSpec is an index in the form in which it would be created, and its name.
func indexSpec(raw bson.Raw) (spec bson.Raw, name string, err error) {
	if spec, err = mongodb.CreatableIndex(raw); err != nil {
		return nil, "", err
	}
	name, ok := spec.Lookup("name").StringValueOK()
	if !ok {
		return nil, "", errors.New("read index: it has no name")
	}
	return spec, name, nil
}

// differingFields names the top-level fields whose values differ in their bytes
// or that one document lacks, in order. The order of the fields does not count:
// servers choose it.
func differingFields(a, b bson.Raw) ([]string, error) {
	left, err := fieldsOf(a)
	if err != nil {
		return nil, err
	}
	right, err := fieldsOf(b)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, value := range left {
		other, ok := right[name]
		if !ok || !sameValue(name, value, other) {
			names = append(names, name)
		}
	}
	for name := range right {
		if _, ok := left[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// sameValue reports whether two values of a field of options or of an index are
// the same. Servers with normalised wildcard projections (found on 4.9) store
// the fields of one in any order, another one at every creation.
func sameValue(name string, a, b bson.RawValue) bool {
	if a.Type != b.Type || bytes.Equal(a.Value, b.Value) {
		return a.Type == b.Type
	}
	if name != "wildcardProjection" {
		return false
	}
	left, ok := a.DocumentOK()
	right, okRight := b.DocumentOK()
	return ok && okRight && sameProjection(left, right)
}

// sameProjection compares documents whatever the order of their fields, at every
// level.
func sameProjection(a, b bson.Raw) bool {
	left, err := fieldsOf(a)
	if err != nil {
		return false
	}
	right, err := fieldsOf(b)
	if err != nil || len(left) != len(right) {
		return false
	}
	for name, value := range left {
		other, ok := right[name]
		if !ok || value.Type != other.Type {
			return false
		}
		if inner, is := value.DocumentOK(); is {
			held, _ := other.DocumentOK()
			if !sameProjection(inner, held) {
				return false
			}
		} else if !bytes.Equal(value.Value, other.Value) {
			return false
		}
	}
	return true
}

func fieldsOf(doc bson.Raw) (map[string]bson.RawValue, error) {
	if len(doc) == 0 {
		return nil, nil
	}
	elements, err := doc.Elements()
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	fields := make(map[string]bson.RawValue, len(elements))
	for _, e := range elements {
		fields[e.Key()] = e.Value()
	}
	return fields, nil
}
