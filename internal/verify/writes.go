package verify

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tributarydb/tributary/internal/event"
)

// maxEntries is how many oplog entries are looked at for a write; a deployment
// that is busy with other things is then taken for written to.
const maxEntries = 1_000_000

// errBusy says that the oplog holds too many entries to look at.
var errBusy = errors.New("too many oplog entries")

// writtenSince returns the first namespace that the oplog shows as written to
// after a cluster time, the zero namespace if there is none. matches says which
// namespaces count. The oplog must be readable.
func writtenSince(ctx context.Context, client *mongo.Client, since bson.Timestamp, matches func(event.Namespace) bool) (written event.Namespace, err error) {
	cursor, err := client.Database("local").Collection("oplog.rs").Find(ctx,
		bson.D{{Key: "ts", Value: bson.D{{Key: "$gt", Value: since}}}})
	if err != nil {
		return event.Namespace{}, fmt.Errorf("read oplog: %w", err)
	}
	defer func() { err = errors.Join(err, cursor.Close(context.WithoutCancel(ctx))) }()
	for n := 0; cursor.Next(ctx); n++ {
		if n >= maxEntries {
			return event.Namespace{}, errBusy
		}
		if ns, ok := touched(cursor.Current, matches); ok {
			return ns, nil
		}
	}
	if err := cursor.Err(); err != nil {
		return event.Namespace{}, fmt.Errorf("read oplog: %w", err)
	}
	return event.Namespace{}, nil
}

// touched returns a namespace that an oplog entry writes to and that counts.
func touched(entry bson.Raw, matches func(event.Namespace) bool) (event.Namespace, bool) {
	name, _ := entry.Lookup("ns").StringValueOK()
	ns, err := event.ParseNamespace(name)
	if err != nil {
		return event.Namespace{}, false
	}
	switch entry.Lookup("op").StringValue() {
	case "i", "u", "d":
		if ns.Coll == viewsCollection {
			ns = viewOf(entry)
		}
		return ns, matches(ns)
	case "c":
		return touchedByCommand(ns, entry.Lookup("o"), matches)
	}
	return event.Namespace{}, false
}

// viewsCollection holds the views of a database, by name.
const viewsCollection = "system.views"

// viewOf is the view whose definition an entry changes; the zero namespace if
// the entry does not say.
func viewOf(entry bson.Raw) event.Namespace {
	for _, field := range []string{"o2", "o"} {
		name, _ := entry.Lookup(field, "_id").StringValueOK()
		if ns, err := event.ParseNamespace(name); err == nil {
			return ns
		}
	}
	return event.Namespace{}
}

// touchedByCommand is touched for a command entry, whose first field names the
// command and mostly the collection. The commit of a prepared transaction does
// not say what it wrote and always counts.
func touchedByCommand(ns event.Namespace, o bson.RawValue, matches func(event.Namespace) bool) (event.Namespace, bool) {
	command, ok := o.DocumentOK()
	if !ok {
		return event.Namespace{}, false
	}
	first, err := command.IndexErr(0)
	if err != nil {
		return event.Namespace{}, false
	}
	switch first.Key() {
	case "applyOps":
		return touchedBy(first.Value(), matches)
	case "commitTransaction":
		return ns, true
	}
	ns.Coll, ok = first.Value().StringValueOK()
	if !ok {
		return event.Namespace{}, false
	}
	if first.Key() == "renameCollection" {
		if ns, err = event.ParseNamespace(ns.Coll); err != nil {
			return event.Namespace{}, false
		}
		name, _ := command.Lookup("to").StringValueOK()
		if to, err := event.ParseNamespace(name); err == nil && matches(to) {
			return to, true
		}
	}
	return ns, matches(ns)
}

// touchedBy is touched for the operations of a transaction.
func touchedBy(operations bson.RawValue, matches func(event.Namespace) bool) (event.Namespace, bool) {
	list, ok := operations.ArrayOK()
	if !ok {
		return event.Namespace{}, false
	}
	values, err := list.Values()
	if err != nil {
		return event.Namespace{}, false
	}
	for _, v := range values {
		operation, ok := v.DocumentOK()
		if !ok {
			continue
		}
		name, _ := operation.Lookup("ns").StringValueOK()
		if ns, err := event.ParseNamespace(name); err == nil && matches(ns) {
			return ns, true
		}
	}
	return event.Namespace{}, false
}
