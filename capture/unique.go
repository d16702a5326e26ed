package capture

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// uniqueRules are, by destination, the selections under which unique indexes are
// enforced: there documents of a collection hand keys to one another, so that
// its events keep one order. A collection gets into that class where the stream
// says that it has a unique index (at its creation, a change of an index, a
// rename into such a selection), and never leaves it. Each of those events is a
// barrier at every destination that has the collection: what came before, keyed
// by document, is applied before anything that comes after, keyed by namespace.
type uniqueRules map[string]*rules.Selection

// enforce reports whether any destination enforces the collection's unique
// indexes.
func (u uniqueRules) enforce(ns event.Namespace) bool {
	for _, selection := range u {
		if selection.Match(ns.DB, ns.Coll) {
			return true
		}
	}
	return false
}

// orders reports whether a collection that exists keeps one order because of its
// indexes.
func (u uniqueRules) orders(e *mongodb.CatalogEntry) bool {
	return len(u) > 0 && u.enforce(e.NS) && slices.ContainsFunc(e.Indexes, rules.UniqueIndex)
}

// names lists the destinations in order.
func (u uniqueRules) names() []string { return slices.Sorted(maps.Keys(u)) }

// check refuses destinations that enforce unique indexes since later than the
// pipeline began: events of collections that have such indexes stand in the
// topic keyed by document, and no barrier divides them from those to come.
func (u uniqueRules) check(pipeline string, since []string) error {
	var late []string
	for _, name := range u.names() {
		if !slices.Contains(since, name) {
			late = append(late, name)
		}
	}
	if len(late) == 0 {
		return nil
	}
	return fmt.Errorf("capture pipeline %s: unique indexes are enforced at destination %s since later than the pipeline began, and its events were not kept in the order that this needs: "+
		"hint: set indexes.unique to deferred there, or begin under a new pipeline name", pipeline, strings.Join(late, ", "))
}

// observeUnique takes a DDL event in its place of the stream.
func (c *classes) observeUnique(e *event.Event) {
	if len(c.unique) == 0 || e.UUID.IsZero() {
		return
	}
	ordered := false
	switch e.Op { //nolint:exhaustive // No other event brings a unique index.
	case event.OpCreateIndexes:
		ordered = c.unique.enforce(e.NS) && anyUnique(e.DDL.Lookup("indexes"))
	case event.OpModify:
		index, ok := e.DDL.Lookup("index").DocumentOK()
		ordered = ok && rules.UniqueIndex(index) && c.unique.enforce(e.NS)
	case event.OpRename:
		text, _ := e.DDL.Lookup("to").StringValueOK()
		to, err := event.ParseNamespace(text)
		// Which indexes it brings along is not known.
		ordered = err == nil && c.unique.enforce(to) && !c.unique.enforce(e.NS)
	}
	if ordered {
		c.add(e.UUID)
	}
}

func anyUnique(list bson.RawValue) bool {
	array, ok := list.ArrayOK()
	if !ok {
		return false
	}
	values, err := array.Values()
	return err == nil && slices.ContainsFunc(values, func(v bson.RawValue) bool {
		spec, ok := v.DocumentOK()
		return ok && rules.UniqueIndex(spec)
	})
}
