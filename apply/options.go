package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// createOptions returns the options of a collection as the create command takes
// them: without what a server lists but does not let anyone ask for. The rest
// keeps its bytes and its order.
func createOptions(listed bson.Raw) (bson.Raw, error) {
	if len(listed) == 0 {
		return emptyDocument(), nil
	}
	return filterOptions(listed, func(name string) (bool, error) {
		switch name {
		case "timeseries":
			return false, errors.New("it is a time-series collection, which this version does not write: hint: exclude it")
		case "uuid", "temp", "autoIndexId", "flags", "create":
			// uuid is the server's own; temp is for internal use; the others
			// are of storage engines and versions that are gone.
			return false, nil
		}
		return true, nil
	})
}

// plainOptions are the options that matter to documents: which of them may be
// there, in which order, and which _ids are equal.
func plainOptions(opts bson.Raw) (bson.Raw, error) {
	return filterOptions(opts, func(name string) (bool, error) {
		switch name {
		case "capped", "size", "max", "collation", "clusteredIndex":
			return true, nil
		}
		return false, nil
	})
}

// filterOptions returns the options that keep says to, with their bytes and in
// their order.
func filterOptions(opts bson.Raw, keep func(name string) (bool, error)) (bson.Raw, error) {
	body, err := rawbson.Body(opts)
	if err != nil {
		return nil, fmt.Errorf("read collection options: %w", err)
	}
	dst, at := rawbson.Begin(nil)
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, fmt.Errorf("read collection options: %w", err)
		}
		body = rest
		kept, err := keep(string(e.Name))
		if err != nil {
			return nil, err
		}
		if kept {
			dst = append(dst, e.Raw...)
		}
	}
	return rawbson.End(dst, at), nil
}

// withIDIndex adds the definition of the _id index to the options of a create
// command, unless it is there. An oplog's create that has none means the first
// version of it, v: 1, and a later server would make v: 2.
func withIDIndex(opts, spec bson.Raw) (bson.Raw, error) {
	for _, name := range []string{"idIndex", "viewOn", "clusteredIndex"} {
		if _, err := opts.LookupErr(name); err == nil {
			return opts, nil
		}
	}
	spec, err := mongodb.CreatableIndex(spec)
	if err != nil {
		return nil, err
	}
	body, err := rawbson.Body(opts)
	if err != nil {
		return nil, fmt.Errorf("read collection options: %w", err)
	}
	dst, at := rawbson.Begin(nil)
	dst = append(dst, body...)
	dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "idIndex", spec)
	return rawbson.End(dst, at), nil
}

// firstIDIndex is the _id index as versions before 3.4 made it.
func firstIDIndex() bson.Raw {
	spec, at := rawbson.Begin(nil)
	spec = rawbson.AppendInt32(spec, "v", 1)
	spec = rawbson.AppendHeader(spec, bson.TypeEmbeddedDocument, "key")
	spec, key := rawbson.Begin(spec)
	spec = rawbson.AppendInt32(spec, "_id", 1)
	spec = rawbson.End(spec, key)
	spec = rawbson.AppendString(spec, "name", "_id_")
	return rawbson.End(spec, at)
}

// createCollection creates a collection or view with options from
// createOptions. That it exists is success: the caller has looked, and only its
// own earlier try can have come in between.
func createCollection(ctx context.Context, client *mongo.Client, target event.Namespace, opts bson.Raw) error {
	body, err := rawbson.Body(opts)
	if err != nil {
		return fmt.Errorf("create collection ns=%s: %w", target, err)
	}
	dst, at := rawbson.Begin(nil)
	dst = rawbson.AppendString(dst, "create", target.Coll)
	dst = append(dst, body...)
	dst = rawbson.AppendInt32(dst, "maxTimeMS", int32(commandTime.Milliseconds()))
	dst = appendMajority(dst)
	err = client.Database(target.DB).RunCommand(ctx, bson.Raw(rawbson.End(dst, at))).Err()
	if err == nil {
		return nil
	}
	if !hasCode(err, codeNamespaceExists) {
		return fmt.Errorf("create collection ns=%s: %w", target, sanitize(err))
	}
	return nil
}

// sameOptions reports whether an existing collection has those options.
func sameOptions(listed listedCollection, opts bson.Raw) (bool, error) {
	held, err := createOptions(listed.Options)
	if err != nil {
		return false, err
	}
	wanted, err := without(opts, "idIndex") // which is not listed
	return bytes.Equal(held, wanted), err
}

func without(doc bson.Raw, name string) (bson.Raw, error) {
	body, err := rawbson.Body(doc)
	if err != nil {
		return nil, err
	}
	dst, at := rawbson.Begin(nil)
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, err
		}
		if string(e.Name) != name {
			dst = append(dst, e.Raw...)
		}
		body = rest
	}
	return rawbson.End(dst, at), nil
}
