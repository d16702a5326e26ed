package changestream

import (
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// timeOf is the wall time of a change that does not say it: that of its cluster
// time.
func timeOf(at event.Position) time.Time { return time.Unix(int64(at.Time.T), 0).UTC() }

// ddl builds the event of a change of one collection or view.
func (c *change) ddl(kind string) (event.Event, error) {
	e := event.Event{NS: c.ns, UUID: c.collection()}
	var err error
	switch kind {
	case "drop":
		e.Op = event.OpDrop
		e.DDL, err = c.command("drop", nil)
	case "create":
		e.Op = event.OpCreate
		e.DDL, err = c.command("create", c.details, "type")
	case "modify":
		e.Op = event.OpModify
		if c.details == nil {
			return e, c.malformed("no operationDescription")
		}
		e.DDL, err = c.command("collMod", c.details)
	case "createIndexes":
		e.Op = event.OpCreateIndexes
		var list rawbson.Element
		if list, _, err = c.specs(); err == nil {
			dst, at := rawbson.Begin(make([]byte, 0, len(list.Raw)+len(c.ns.Coll)+48))
			dst = rawbson.AppendString(dst, "createIndexes", c.ns.Coll)
			e.DDL = rawbson.End(append(dst, list.Raw...), at)
		}
	case "dropIndexes":
		e.Op = event.OpDropIndexes
		e.DDL, err = c.dropIndexes()
	}
	if err != nil {
		return event.Event{}, err
	}
	return e, nil
}

// command builds {<name>: coll, …} with the elements of details but those
// excepted.
func (c *change) command(name string, details []byte, except ...string) (bson.Raw, error) {
	dst, at := rawbson.Begin(make([]byte, 0, len(details)+len(name)+len(c.ns.Coll)+16))
	dst = rawbson.AppendString(dst, name, c.ns.Coll)
	if details == nil {
		return rawbson.End(dst, at), nil
	}
	body, err := rawbson.Body(details)
	if err != nil {
		return nil, c.fail(err, "")
	}
next:
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, c.fail(err, "")
		}
		body = rest
		for _, other := range except {
			if string(e.Name) == other {
				continue next
			}
		}
		dst = append(dst, e.Raw...)
	}
	return rawbson.End(dst, at), nil
}

// specs returns the list operationDescription.indexes and its first definition,
// once every one of them looks like a definition.
func (c *change) specs() (list, first rawbson.Element, err error) {
	list, found, err := rawbson.Lookup(c.details, "indexes")
	if c.details == nil || err == nil && (!found || list.Type != bson.TypeArray) {
		return list, first, c.malformed("no list of indexes")
	}
	if err != nil {
		return list, first, c.fail(err, "")
	}
	body, err := rawbson.Body(list.Value)
	if err != nil {
		return list, first, c.fail(err, "")
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return list, first, c.fail(err, "")
		}
		if e.Type != bson.TypeEmbeddedDocument {
			return list, first, c.malformed("definition of an index")
		}
		key, _, err := rawbson.Lookup(e.Value, "key")
		if err != nil {
			return list, first, c.fail(err, "")
		}
		name, _, err := rawbson.Lookup(e.Value, "name")
		if err != nil {
			return list, first, c.fail(err, "")
		}
		if key.Type != bson.TypeEmbeddedDocument || name.Type != bson.TypeString {
			return list, first, c.unknown("form of an index's definition")
		}
		if first.Raw == nil {
			first = e
		}
		body = rest
	}
	if first.Raw == nil {
		return list, first, c.malformed("empty list of indexes")
	}
	return list, first, nil
}

// dropIndexes builds the canonical form from the old definition: a server logs
// the drop of each index by itself.
func (c *change) dropIndexes() (bson.Raw, error) {
	list, spec, err := c.specs()
	if err != nil {
		return nil, err
	}
	if body, err := rawbson.Body(list.Value); err != nil || len(body) != len(spec.Raw) {
		return nil, c.unknown("drop of several indexes in one event")
	}
	name, _, err := rawbson.Lookup(spec.Value, "name")
	if err != nil {
		return nil, c.fail(err, "")
	}
	dst, at := rawbson.Begin(make([]byte, 0, len(spec.Raw)+len(c.ns.Coll)+64))
	dst = rawbson.AppendString(dst, "dropIndexes", c.ns.Coll)
	dst = rawbson.AppendValue(dst, bson.TypeString, "index", name.Value)
	dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "spec", spec.Value)
	return rawbson.End(dst, at), nil
}

// rename builds {renameCollection: "db.a", to: "db.b", dropTarget: …}.
func (c *change) rename() (event.Event, error) {
	dst, at := rawbson.Begin(nil)
	dst = rawbson.AppendString(dst, "renameCollection", c.ns.String())
	dst = rawbson.AppendString(dst, "to", c.to.String())
	if c.details == nil {
		// It replaced its target, if there was one.
		dst = append(rawbson.AppendHeader(dst, bson.TypeBoolean, "dropTarget"), 1)
	} else {
		target, found, err := rawbson.Lookup(c.details, "dropTarget")
		if err != nil {
			return event.Event{}, c.fail(err, "")
		}
		if found {
			dst = append(dst, target.Raw...)
		}
	}
	return event.Event{Op: event.OpRename, NS: c.ns, UUID: c.collection(), DDL: rawbson.End(dst, at)}, nil
}
