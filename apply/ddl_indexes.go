package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func (x *executor) createIndexes(ctx context.Context) (string, error) {
	target := x.target()
	listed, exists, err := lookup(ctx, x.client, target)
	if err != nil {
		return "", err
	}
	if !exists && x.lenient {
		return "the collection does not exist", nil
	}
	if !exists {
		return x.missing(ctx, target)
	}
	indexes, err := x.indexes()
	if err != nil {
		return "", &ddlError{x.event, err}
	}
	for i := range indexes {
		if indexes[i], err = x.settle(ctx, target, indexes[i]); err != nil {
			return "", err
		}
	}
	failed, goesOn, err := x.build(ctx, target, &listed, indexes)
	if err != nil {
		return "", err
	}
	return builtText(len(indexes), failed, goesOn), nil
}

// build builds the indexes of the event, in its barrier for those that are
// unique at once: their order to later changes is part of what the source has
// said. All others go on behind it where they take long.
func (x *executor) build(ctx context.Context, target event.Namespace, listed *listedCollection, indexes []index) (failed int, goesOn bool, err error) {
	if err := x.hold(ctx); err != nil {
		return 0, false, err
	}
	behind := x.builder != nil && len(indexes) > 0
	for _, ix := range indexes {
		behind = behind && !rules.UniqueIndex(ix.built)
	}
	if !behind {
		failed, err = x.store.buildIndexes(ctx, x.client, target, indexes, x.lenient)
	} else {
		r := buildRecord{ID: x.barrier, NS: target.String(), UUID: uuidText(listed), Lenient: x.lenient}
		r.put(indexes)
		failed, goesOn, err = x.builder.begin(ctx, r)
	}
	if failed > 0 && err == nil {
		x.log.Warn().Str("event", x.event.String()).Int("failed", failed).
			Msg("indexes could not be built; they are recorded as deferred in tributary.deferred of the destination")
	}
	return failed, goesOn, err
}

// builtText says what became of indexes.
func builtText(n, failed int, goesOn bool) string {
	switch {
	case goesOn:
		return fmt.Sprintf("builds %d indexes", n)
	case failed > 0:
		return fmt.Sprintf("built %d indexes, %d failed and are deferred", n-failed, failed)
	}
	return fmt.Sprintf("built %d indexes", n)
}

// indexes reads {createIndexes: coll, indexes: [spec, …]}.
func (x *executor) indexes() ([]index, error) {
	list, found, err := rawbson.Lookup(x.event.DDL, "indexes")
	if err != nil || !found {
		return nil, errors.Join(errors.New("create_indexes without indexes"), err)
	}
	body, err := rawbson.Body(list.Value)
	if err != nil {
		return nil, err
	}
	var indexes []index
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, err
		}
		body = rest
		ix, ok, err := indexOfSpec(e.Value, rules.IndexPolicy{})
		if err != nil {
			return nil, err
		}
		if ok {
			indexes = append(indexes, ix)
		}
	}
	return indexes, nil
}

func (x *executor) dropIndexes(ctx context.Context) (string, error) {
	target := x.target()
	name, ok := x.event.DDL.Lookup("index").StringValueOK()
	if !ok {
		return "", x.refuse("drop_indexes without the index's name")
	}
	outcome := "dropped index " + name
	needed, err := servesShardKey(ctx, x.client, target, name)
	if err != nil {
		return "", err
	}
	if needed {
		return "index " + name + " stays: it is the only one of the shard key", x.store.forgetIndexes(ctx, target, name)
	}
	err = x.command(ctx, target, target.DB, bson.D{{Key: "dropIndexes", Value: target.Coll}, {Key: "index", Value: name}})
	if hasCode(err, codeIndexNotFound, codeNamespaceNotFound) {
		outcome, err = "index "+name+" does not exist", nil
	}
	if err != nil {
		return "", err
	}
	return outcome, x.store.forgetIndexes(ctx, target, name)
}
