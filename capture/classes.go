package capture

import (
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// classes remembers the collections whose events are keyed by namespace alone
// because their order matters as a whole. A collection's class follows from how
// it was created and never changes as long as its UUID lives, so that it is
// known before the collection's first event: from the list at the pipeline's
// start or from the create event. The set is stored with the position.
type classes struct {
	whole map[event.UUID]struct{}
	// unique says where unique indexes are enforced.
	unique uniqueRules
}

func newClasses(whole []event.UUID) *classes {
	c := &classes{whole: make(map[event.UUID]struct{}, len(whole))}
	for _, u := range whole {
		c.whole[u] = struct{}{}
	}
	return c
}

// observe takes a DDL event in its place of the stream.
func (c *classes) observe(e *event.Event) {
	if e.UUID.IsZero() {
		return
	}
	c.observeUnique(e)
	switch {
	case e.Op == event.OpCreate && orderedAsWhole(e.DDL):
		c.whole[e.UUID] = struct{}{}
	case e.Op == event.OpDrop:
		delete(c.whole, e.UUID)
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
	locale, ok := options.Lookup("collation", "locale").StringValueOK()
	return ok && locale != "simple"
}
