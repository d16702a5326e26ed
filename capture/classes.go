package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// classes remembers the collections whose events are keyed by namespace alone
// because their order matters as a whole. A collection's class follows from how
// it was created and never changes as long as its UUID lives, so that it is
// known before the collection's first event: from the list at the pipeline's
// start and at each start of capture, from the create event, or from a look at
// the collection when a rename brings it into the selection. The set is stored
// with the position.
type classes struct {
	whole map[event.UUID]struct{}
	// unique says where unique indexes are enforced.
	unique uniqueRules
	// listed are those that existed at listedThrough; nil once what is gone was
	// forgotten.
	listed        map[event.UUID]struct{}
	listedThrough bson.Timestamp
}

func newClasses(whole []event.UUID) *classes {
	c := &classes{whole: make(map[event.UUID]struct{}, len(whole))}
	for _, u := range whole {
		c.whole[u] = struct{}{}
	}
	return c
}

// complete takes the list of all collections. Those that are selected and
// ordered as a whole are in the set from now on, for they may have come into the
// selection with the configuration. Those of the set that are no longer there
// are forgotten when the stream has passed the list.
func (c *classes) complete(catalogue []mongodb.CatalogEntry, through bson.Timestamp, selected func(db, coll string) bool) {
	c.listed, c.listedThrough = make(map[event.UUID]struct{}, len(catalogue)), through
	for i := range catalogue {
		e := &catalogue[i]
		if e.UUID.IsZero() {
			continue
		}
		c.listed[e.UUID] = struct{}{}
		if selected(e.NS.DB, e.NS.Coll) && orderedAsWhole(e.Options) {
			c.whole[e.UUID] = struct{}{}
		}
	}
}

// passed notes that the stream has come to t.
func (c *classes) passed(t bson.Timestamp) {
	if c.listed == nil || event.CompareTimes(t, c.listedThrough) < 0 {
		return
	}
	for u := range c.whole {
		if _, ok := c.listed[u]; !ok {
			delete(c.whole, u)
		}
	}
	c.listed = nil
}

// observe takes a DDL event in its place of the stream.
func (c *classes) observe(e *event.Event, n *naming) {
	delete(c.whole, n.replaces)
	if e.UUID.IsZero() {
		return
	}
	c.observeUnique(e)
	switch {
	case e.Op == event.OpCreate && orderedAsWhole(e.DDL):
		c.add(e.UUID)
	case e.Op == event.OpDrop:
		delete(c.whole, e.UUID)
	}
}

// add puts a collection into the set.
func (c *classes) add(u event.UUID) {
	c.whole[u] = struct{}{}
	if c.listed != nil {
		c.listed[u] = struct{}{} // it may be younger than the list
	}
}

// contains reports whether a collection's events are keyed by namespace.
func (c *classes) contains(u event.UUID) bool {
	if len(c.whole) == 0 {
		return false
	}
	_, ok := c.whole[u]
	return ok
}

// list returns the set in a fixed order, nil when it is empty.
func (c *classes) list() []event.UUID {
	if len(c.whole) == 0 {
		return nil
	}
	list := make([]event.UUID, 0, len(c.whole))
	for u := range c.whole {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b event.UUID) int { return slices.Compare(a[:], b[:]) })
	return list
}

// lookTimeout bounds the look at a collection that comes into the selection, for
// which the stream waits.
const lookTimeout = 30 * time.Second

// class takes a DDL event in its place of the stream. A rename may bring in a
// collection whose create event was not selected; what has been dropped since
// may have either class.
func (p *publisher) class(ctx context.Context, e *event.Event) error {
	n := namingOf(e)
	p.classes.observe(e, &n)
	if e.Op != event.OpRename || e.UUID.IsZero() {
		return nil
	}
	selected := p.cfg.Select.Match
	if !selected(n.to.DB, n.to.Coll) {
		delete(p.classes.whole, e.UUID)
		return nil
	}
	if selected(e.NS.DB, e.NS.Coll) || p.classes.contains(e.UUID) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found, _, err := p.images.locate(ctx, p.position.Time, n.to, e.UUID)
	if err != nil {
		return fmt.Errorf("look at collection ns=%s: %w", n.to, err)
	}
	if found != nil && orderedAsWhole(found.Options) {
		p.classes.add(e.UUID)
	}
	return nil
}

// orderedAsWhole reports whether a collection with these options is capped, so
// that the order of insertion matters, or compares strings by a collation, so
// that different _id values can be equal.
func orderedAsWhole(options bson.Raw) bool {
	if v, err := options.LookupErr("capped"); err == nil {
		if b, ok := v.BooleanOK(); ok && b {
			return true
		}
		if n, ok := v.AsFloat64OK(); ok && n != 0 {
			return true
		}
	}
	return collated(options)
}

// collated reports whether a collection with these options compares strings by
// a collation.
func collated(options bson.Raw) bool {
	locale, ok := options.Lookup("collation", "locale").StringValueOK()
	return ok && locale != "simple"
}
