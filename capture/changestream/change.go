package changestream

import (
	"encoding/binary"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// change is a change taken apart. Its fields alias the document.
type change struct {
	kind []byte
	at   event.Position
	wall time.Time
	// ns has no collection where the change is a database's.
	ns, to event.Namespace
	uuid   event.UUID
	token  []byte
	lsid   []byte
	number int64
	hasTxn bool

	key, full []byte
	// description is updateDescription, diff what rawUpdateDescription holds,
	// details operationDescription.
	description, diff, details []byte
	// fragment is this one's place, from 1, of fragments; 0 for a whole one.
	fragment, fragments int32
}

// readChange takes a document apart. It reads every field once and ignores those
// that it does not need.
func readChange(doc []byte) (change, error) {
	var c change
	body, err := rawbson.Body(doc)
	if err != nil {
		return c, c.fail(err, "")
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return c, c.fail(err, "")
		}
		body = rest
		if !c.setField(&e) {
			return c, c.malformed("type of field " + string(e.Name))
		}
	}
	if c.fragment > 1 {
		return c, nil // the first fragment says the rest
	}
	if len(c.kind) == 0 {
		return c, c.malformed("no operationType")
	}
	if c.at.Time.IsZero() {
		return c, c.malformed("no clusterTime")
	}
	return c, nil
}

// setField takes over one field; false says that it has a wrong type.
func (c *change) setField(e *rawbson.Element) bool {
	ok := true
	document := e.Type == bson.TypeEmbeddedDocument
	switch string(e.Name) {
	case "_id":
		c.token, ok = e.Value, document
	case "operationType":
		c.kind, ok = e.Text()
	case "clusterTime":
		c.at.Time, ok = e.Timestamp()
	case "wallTime":
		if ok = e.Type == bson.TypeDateTime; ok {
			c.wall = time.UnixMilli(int64(binary.LittleEndian.Uint64(e.Value))).UTC()
		}
	case "ns":
		c.ns, ok = readNamespace(e)
	case "to":
		c.to, ok = readNamespace(e)
	case "collectionUUID":
		c.uuid, ok = readUUID(e)
	case "documentKey":
		c.key, ok = e.Value, document
	case "fullDocument":
		c.full, ok = e.Value, document
	case "updateDescription":
		c.description, ok = e.Value, document
	case "rawUpdateDescription":
		ok = document && c.setDiff(e.Value)
	case "operationDescription":
		c.details, ok = e.Value, document
	case "lsid":
		c.lsid, ok = e.Value, document
	case "txnNumber":
		c.number, ok = e.Int64()
		c.hasTxn = true
	case "splitEvent":
		ok = c.setFragment(e)
	}
	return ok
}

// setDiff takes the diff out of {$v: 2, diff: {…}}.
func (c *change) setDiff(raw []byte) bool {
	version, _, err := rawbson.Lookup(raw, "$v")
	if n, ok := version.Int64(); err != nil || !ok || n != 2 {
		return false
	}
	diff, _, err := rawbson.Lookup(raw, "diff")
	c.diff = diff.Value
	return err == nil && diff.Type == bson.TypeEmbeddedDocument
}

func (c *change) setFragment(e *rawbson.Element) bool {
	if e.Type != bson.TypeEmbeddedDocument {
		return false
	}
	part, _, err := rawbson.Lookup(e.Value, "fragment")
	if err != nil {
		return false
	}
	of, _, err := rawbson.Lookup(e.Value, "of")
	if err != nil {
		return false
	}
	var ok, okOf bool
	c.fragment, ok = part.Int32()
	c.fragments, okOf = of.Int32()
	return ok && okOf && c.fragment >= 1 && c.fragment <= c.fragments
}

// readNamespace reads {db, coll}; coll may be missing.
func readNamespace(e *rawbson.Element) (event.Namespace, bool) {
	if e.Type != bson.TypeEmbeddedDocument {
		return event.Namespace{}, false
	}
	db, _, err := rawbson.Lookup(e.Value, "db")
	if err != nil {
		return event.Namespace{}, false
	}
	name, ok := db.Text()
	coll, found, err := rawbson.Lookup(e.Value, "coll")
	if err != nil || !ok {
		return event.Namespace{}, false
	}
	ns := event.Namespace{DB: string(name)}
	if found {
		name, ok = coll.Text()
		ns.Coll = string(name)
	}
	return ns, ok
}

func readUUID(e *rawbson.Element) (event.UUID, bool) {
	const head = 5 // length and subtype
	var id event.UUID
	if e.Type != bson.TypeBinary || len(e.Value) != head+len(id) {
		return id, false
	}
	copy(id[:], e.Value[head:])
	return id, true
}

// Header is what a change says about itself, without its content.
type Header struct {
	// Kind is its operationType: insert, drop and so on.
	Kind string
	Time bson.Timestamp
	// Namespace is the one that it happened in, without a collection for a
	// database's own; To is a rename's new one.
	Namespace, To event.Namespace
	// UUID is zero where it is not known.
	UUID event.UUID
	// Token is the document behind which the stream can be resumed.
	Token bson.Raw
	// Fragment and Fragments are the place, from 1, and the number of a split
	// change's parts; 0 for a whole one. Only the first says more than its token.
	Fragment, Fragments int
}

// ReadHeader reads a change's header. It aliases the change.
func ReadHeader(doc bson.Raw) (Header, error) {
	c, err := readChange(doc)
	if err != nil {
		return Header{}, err
	}
	return Header{
		Kind: string(c.kind), Time: c.at.Time, Namespace: c.ns, To: c.to, UUID: c.collection(),
		Token: c.token, Fragment: int(c.fragment), Fragments: int(c.fragments),
	}, nil
}

// collection returns the UUID of the change's collection. A view's definition is
// a document of another collection, whose UUID its token holds.
func (c *change) collection() event.UUID {
	if !c.uuid.IsZero() || c.details != nil {
		return c.uuid
	}
	t, err := ParseToken(c.token)
	if err != nil {
		return event.UUID{}
	}
	return t.UUID
}
