package capture

import (
	"bytes"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// change builds the event that later servers report by themselves; details is
// its operationDescription, nil for none.
func change(kind string, ns event.Namespace, uuid event.UUID, at bson.Timestamp, details bson.Raw) bson.Raw {
	doc := bson.D{
		{Key: "operationType", Value: kind},
		{Key: "clusterTime", Value: at},
		{Key: "ns", Value: bson.D{{Key: "db", Value: ns.DB}, {Key: "coll", Value: ns.Coll}}},
	}
	if !uuid.IsZero() {
		doc = append(doc, bson.E{Key: "collectionUUID", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: uuid[:]}})
	}
	if details != nil {
		doc = append(doc, bson.E{Key: "operationDescription", Value: details})
	}
	return marshal(doc)
}

// marshal encodes what can always be encoded: texts, numbers, raw documents.
func marshal(doc bson.D) bson.Raw {
	raw, err := bson.Marshal(doc)
	if err != nil {
		return nil // decoding refuses it with a name
	}
	return raw
}

// createChange tells of a listed collection or view, with the definition of its
// _id index, as an oplog has it.
func createChange(e *mongodb.CatalogEntry, at bson.Timestamp) bson.Raw {
	details := e.Options
	for _, spec := range e.Indexes {
		if name, _ := spec.Lookup("name").StringValueOK(); name == idIndex {
			dst, start := rawbson.Begin(nil)
			if body, err := rawbson.Body(details); err == nil {
				dst = append(dst, body...)
			}
			details = rawbson.End(rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "idIndex", spec), start)
		}
	}
	uuid := e.UUID
	if e.View {
		uuid = event.UUID{}
	}
	return change("create", e.NS, uuid, at, details)
}

// modifiable are the options that collMod sets, with what it takes for none.
func modifiable() []bson.E {
	return []bson.E{
		{Key: "validator", Value: bson.D{}},
		{Key: "validationLevel", Value: "strict"},
		{Key: "validationAction", Value: "error"},
		{Key: "recordPreImages", Value: false},
	}
}

// changesOf returns the events that make one definition of a collection or view
// another. Whole is false if they do not make all of it.
func changesOf(held, now *state.CatalogItem, at bson.Timestamp) (changes []bson.Raw, whole bool) {
	ns := now.Namespace()
	whole = true
	if !bytes.Equal(held.Options, now.Options) {
		var details bson.Raw
		if now.View {
			details = bson.Raw(now.Options)
		} else {
			details, whole = modification(held.Options, now.Options)
		}
		if details != nil {
			changes = append(changes, change("modify", ns, now.UUID, at, details))
		}
	}
	if now.View && len(changes) > 0 && !sameField(held.Options, now.Options, "collation") {
		return []bson.Raw{change("drop", ns, now.UUID, at, nil), change("create", ns, now.UUID, at, now.Options)}, true
	}
	return append(changes, indexChanges(held, now, at)...), whole
}

// modification returns what collMod is to set, nil for nothing, and whether that
// is all that differs.
func modification(held, now bson.Raw) (details bson.Raw, whole bool) {
	var set bson.D
	names := map[string]bool{}
	for _, option := range modifiable() {
		names[option.Key] = true
		if sameField(held, now, option.Key) {
			continue
		}
		if v, err := now.LookupErr(option.Key); err == nil {
			option.Value = v
		}
		set = append(set, option)
	}
	if len(set) > 0 {
		details = marshal(set)
	}
	return details, bytes.Equal(without(held, names), without(now, names))
}

// without returns the elements of a document but those named.
func without(doc bson.Raw, names map[string]bool) []byte {
	var rest []byte
	body, err := rawbson.Body(doc)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err == nil && !names[string(e.Name)] {
			rest = append(rest, e.Raw...)
		}
	}
	return rest
}

func sameField(a, b bson.Raw, name string) bool { return a.Lookup(name).Equal(b.Lookup(name)) }

// indexChanges drops what is gone or is defined in another way, and creates what
// is not there. What collMod changes of an index is changed so.
func indexChanges(held, now *state.CatalogItem, at bson.Timestamp) []bson.Raw {
	var changes []bson.Raw
	var created bson.A
	tell := func(kind string, details bson.D) {
		changes = append(changes, change(kind, now.Namespace(), now.UUID, at, marshal(details)))
	}
	for _, spec := range held.Indexes {
		if i := indexNamed(now.Indexes, spec); i < 0 || !alike(spec, now.Indexes[i]) {
			tell("dropIndexes", bson.D{{Key: "indexes", Value: bson.A{bson.Raw(spec)}}})
		}
	}
	for _, spec := range now.Indexes {
		i := indexNamed(held.Indexes, spec)
		switch {
		case i < 0 || !alike(held.Indexes[i], spec):
			created = append(created, bson.Raw(spec))
		case !bytes.Equal(held.Indexes[i], spec):
			tell("modify", bson.D{{Key: "index", Value: indexModification(held.Indexes[i], spec)}})
		}
	}
	if len(created) > 0 {
		tell("createIndexes", bson.D{{Key: "indexes", Value: created}})
	}
	return changes
}

func indexNamed(list [][]byte, spec bson.Raw) int {
	return slices.IndexFunc(list, func(other []byte) bool { return sameField(other, spec, "name") })
}

// alike reports whether two definitions differ in nothing but what collMod
// changes.
func alike(a, b bson.Raw) bool {
	modified := map[string]bool{"expireAfterSeconds": true, "hidden": true}
	return bytes.Equal(without(a, modified), without(b, modified)) &&
		a.Lookup("expireAfterSeconds").IsZero() == b.Lookup("expireAfterSeconds").IsZero()
}

// indexModification is the index of a collMod.
func indexModification(held, now bson.Raw) bson.D {
	index := bson.D{{Key: "name", Value: now.Lookup("name")}}
	if v := now.Lookup("expireAfterSeconds"); !sameField(held, now, "expireAfterSeconds") {
		index = append(index, bson.E{Key: "expireAfterSeconds", Value: v})
	}
	if !sameField(held, now, "hidden") {
		hidden, _ := now.Lookup("hidden").BooleanOK()
		index = append(index, bson.E{Key: "hidden", Value: hidden})
	}
	return index
}
