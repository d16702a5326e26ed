package oplog

import (
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// command decodes a c entry other than applyOps. Its namespace is "db.$cmd",
// and the command's first element names the collection.
func (r *run) command(op *operation, ns event.Namespace) error {
	if op.command == "modifyCollectionShardingIndexCatalog" {
		return nil // about how a cluster routes, logged under the collection's own name
	}
	if ns.Coll != commandSuffix {
		return op.malformed("namespace of a command")
	}
	switch op.command {
	case "create":
		return r.create(op, ns.DB)
	case "drop":
		return r.drop(op, ns.DB)
	case "renameCollection":
		return r.rename(op)
	case "collMod":
		return r.onCollection(op, ns.DB, event.OpModify, func(string) (bson.Raw, error) { return op.o, nil })
	case "createIndexes":
		return r.onCollection(op, ns.DB, event.OpCreateIndexes, op.createIndexes)
	case "commitIndexBuild":
		return r.onCollection(op, ns.DB, event.OpCreateIndexes, op.commitIndexBuild)
	case "dropIndexes", "deleteIndexes", "dropIndex", "deleteIndex":
		return r.onCollection(op, ns.DB, event.OpDropIndexes, op.dropIndexes)
	case "dropDatabase", "startIndexBuild", "abortIndexBuild", "dbCheck", "createGlobalIndex", "dropGlobalIndex":
		return nil
	case "convertToCapped", "emptycapped", "importCollection", "truncateRange":
		return r.unlogged(op, ns.DB)
	case "commitTransaction", "abortTransaction":
		return op.unsupported("end of a transaction, without the rest (" + op.fragment.String() + ")")
	}
	// A command on the server's own collections has no effect on others; those
	// on the whole deployment are logged in admin.
	if internalDatabase(ns.DB) && ns.DB != "admin" {
		return nil
	}
	return op.unknown("command " + op.command)
}

// unlogged refuses a command that changes documents of a selected collection
// without logging them. Some name it with its database.
func (r *run) unlogged(op *operation, db string) error {
	coll, err := op.collection()
	if err != nil {
		return err
	}
	ns := event.Namespace{DB: db, Coll: coll}
	if op.command == "importCollection" || op.command == "truncateRange" {
		if full, err := event.ParseNamespace(coll); err == nil {
			ns = full
		}
	}
	if !r.selected(ns) {
		return nil
	}
	return op.unsupported("command that changes documents without logging them, collection " + ns.String())
}

// collection returns the string in the command's first element.
func (op *operation) collection() (string, error) {
	body, err := rawbson.Body(op.o)
	if err != nil {
		return "", op.fail(err, "")
	}
	first, _, err := rawbson.Next(body)
	if err != nil {
		return "", op.fail(err, "")
	}
	name, ok := first.Text()
	if !ok || len(name) == 0 {
		return "", op.malformed("command without the name of a collection")
	}
	return string(name), nil
}

// onCollection emits the DDL event of a command on one collection, if that is
// selected. The form builds the canonical command.
func (r *run) onCollection(op *operation, db string, kind event.Op, form func(coll string) (bson.Raw, error)) error {
	coll, err := op.collection()
	if err != nil {
		return err
	}
	ns := event.Namespace{DB: db, Coll: coll}
	if !r.selected(ns) {
		return nil
	}
	ddl, err := form(coll)
	if err != nil {
		return err
	}
	r.emit(op, event.Event{Op: kind, NS: ns, UUID: op.uuid, DDL: ddl})
	return nil
}

func (r *run) create(op *operation, db string) error {
	coll, err := op.collection()
	if err != nil || coll == viewsCollection {
		return err
	}
	// The documents of a time-series collection are in its buckets.
	ns := event.Namespace{DB: db, Coll: strings.TrimPrefix(coll, bucketsPrefix)}
	if _, series, err := rawbson.Lookup(op.o, "timeseries"); err != nil {
		return op.fail(err, "")
	} else if series && r.selected(ns) {
		return op.fail(fmt.Errorf("%w: time-series collection %s", ErrUnsupported, ns), hintExclude)
	}
	return r.onCollection(op, db, event.OpCreate, func(string) (bson.Raw, error) { return op.o, nil })
}

func (r *run) drop(op *operation, db string) error {
	coll, err := op.collection()
	if err != nil {
		return err
	}
	if coll == viewsCollection && !internalDatabase(db) {
		r.emit(op, event.Event{Op: event.OpDrop, NS: event.Namespace{DB: db, Coll: coll}, UUID: op.uuid, DDL: op.o})
		return nil
	}
	return r.onCollection(op, db, event.OpDrop, func(string) (bson.Raw, error) { return op.o, nil })
}

// rename emits the event when either name is selected: a rename from a
// temporary name is how converted and moved collections come to their name.
func (r *run) rename(op *operation) error {
	name, err := op.collection()
	if err != nil {
		return err
	}
	from, err := event.ParseNamespace(name)
	if err != nil {
		return op.fail(err, "")
	}
	target, found, err := rawbson.Lookup(op.o, "to")
	if err != nil {
		return op.fail(err, "")
	}
	text, ok := target.Text()
	if !found || !ok {
		return op.malformed("rename without a target")
	}
	to, err := event.ParseNamespace(string(text))
	if err != nil {
		return op.fail(err, "")
	}
	if r.selected(from) || r.selected(to) {
		r.emit(op, event.Event{Op: event.OpRename, NS: from, UUID: op.uuid, DDL: op.o})
	}
	return nil
}

// createIndexes turns {createIndexes: coll, v, key, name, …}, which is logged
// once per index, into the form with a list.
func (op *operation) createIndexes(coll string) (bson.Raw, error) {
	spec, at := rawbson.Begin(make([]byte, 0, len(op.o)))
	body, err := rawbson.Body(op.o)
	if err != nil {
		return nil, op.fail(err, "")
	}
	first, body, err := rawbson.Next(body)
	if err != nil || len(first.Name) == 0 {
		return nil, op.malformed("createIndexes")
	}
	spec = rawbson.End(append(spec, body...), at)
	if err := op.checkSpec(spec); err != nil {
		return nil, err
	}
	list, at := rawbson.Begin(make([]byte, 0, len(spec)+16))
	list = rawbson.End(rawbson.AppendValue(list, bson.TypeEmbeddedDocument, "0", spec), at)
	return indexesCommand(coll, list), nil
}

// commitIndexBuild takes the list of {commitIndexBuild: coll, indexBuildUUID,
// indexes: [spec, …]}.
func (op *operation) commitIndexBuild(coll string) (bson.Raw, error) {
	list, found, err := rawbson.Lookup(op.o, "indexes")
	if err != nil {
		return nil, op.fail(err, "")
	}
	if !found || list.Type != bson.TypeArray {
		return nil, op.malformed("commitIndexBuild without indexes")
	}
	body, err := rawbson.Body(list.Value)
	if err != nil {
		return nil, op.fail(err, "")
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, op.fail(err, "")
		}
		if e.Type != bson.TypeEmbeddedDocument {
			return nil, op.malformed("definition of an index")
		}
		if err := op.checkSpec(e.Value); err != nil {
			return nil, err
		}
		body = rest
	}
	return indexesCommand(coll, list.Value), nil
}

// checkSpec refuses what does not look like the definition of an index: a
// later server may log it in another form.
func (op *operation) checkSpec(spec []byte) error {
	key, _, err := rawbson.Lookup(spec, "key")
	if err != nil {
		return op.fail(err, "")
	}
	name, _, err := rawbson.Lookup(spec, "name")
	if err != nil {
		return op.fail(err, "")
	}
	if key.Type != bson.TypeEmbeddedDocument || name.Type != bson.TypeString {
		return op.unknown("form of an index's definition")
	}
	return nil
}

func indexesCommand(coll string, list []byte) bson.Raw {
	dst, at := rawbson.Begin(make([]byte, 0, len(list)+len(coll)+48))
	dst = rawbson.AppendString(dst, "createIndexes", coll)
	dst = rawbson.AppendValue(dst, bson.TypeArray, "indexes", list)
	return rawbson.End(dst, at)
}

// dropIndexes adds the old definition, where logged, to the index's name.
func (op *operation) dropIndexes(coll string) (bson.Raw, error) {
	index, found, err := rawbson.Lookup(op.o, "index")
	if err != nil {
		return nil, op.fail(err, "")
	}
	if !found {
		return nil, op.malformed("dropIndexes without an index")
	}
	dst, at := rawbson.Begin(make([]byte, 0, len(op.o)+len(op.o2)+32))
	dst = rawbson.AppendString(dst, "dropIndexes", coll)
	dst = append(dst, index.Raw...)
	if op.o2 != nil {
		dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "spec", op.o2)
	}
	return rawbson.End(dst, at), nil
}
