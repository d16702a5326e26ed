package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// deferredReload is the reason of an index that is built at the end of its
// collection's reload.
const deferredReload = "reload"

// reloadNames reports whether a reload is for a destination: it names it, or
// nobody, which means all. For the others it is nothing, and its images are the
// documents' true states.
func reloadNames(e *event.Event, destination string) (bool, error) {
	list, found, err := rawbson.Lookup(e.DDL, "destinations")
	if err != nil {
		return false, &ddlError{e, err}
	}
	if !found || list.Type != bson.TypeArray {
		return true, nil
	}
	values, err := bson.RawArray(list.Value).Values()
	if err != nil {
		return false, &ddlError{e, err}
	}
	return len(values) == 0 || slices.ContainsFunc(values, func(v bson.RawValue) bool {
		name, _ := v.StringValueOK()
		return name == destination
	}), nil
}

// reload makes the event's collection anew, empty, with the options of the
// source. The documents follow, and at last the indexes. Repeated from its
// beginning by whoever takes the barrier over: nothing has passed it, so nothing
// of what follows is there to be lost.
func (x *executor) reload(ctx context.Context) (string, error) {
	ns, target := x.event.NS, x.target()
	store := x.storeOf(ns)
	opts, indexes, err := x.reloaded()
	if err != nil {
		return "", &ddlError{x.event, err}
	}
	if err := x.sole(ctx, target, ns); err != nil {
		return "", err
	}
	if err := x.replaceable(ctx, ns, target, opts); err != nil {
		return "", err
	}
	request := stringOf(x.event.DDL, "request")
	listed := listedCollection{Options: opts}
	record := collectionRecord{
		ID: store.collectionID(ns), Target: target.String(), SourceUUID: x.event.UUID.String(),
		Reload: &reloadRecord{Request: request, Begun: placeOf(x.event.Position), Capped: listed.Capped()},
	}
	// From here on what stands there is the pipeline's own.
	if err := store.putCollection(ctx, record); err != nil {
		return "", err
	}
	err = x.command(ctx, target, target.DB, bson.D{{Key: "drop", Value: target.Coll}})
	if err != nil && !hasCode(err, codeNamespaceNotFound) {
		return "", err
	}
	if err := x.store.forgetIndexes(ctx, target, ""); err != nil {
		return "", err
	}
	if opts, err = withListedIDIndex(opts, indexes); err != nil {
		return "", &ddlError{x.event, err}
	}
	if err := x.hold(ctx); err != nil {
		return "", err
	}
	if err := createCollection(ctx, x.client, target, opts); err != nil {
		return "", err
	}
	if err := x.spread(ctx, target, opts); err != nil {
		return "", err
	}
	for _, spec := range indexes {
		ix, ok, err := indexOfSpec(spec, rules.IndexPolicy{})
		if err != nil {
			return "", &ddlError{x.event, err}
		}
		if !ok {
			continue
		}
		if err := x.store.deferIndex(ctx, target, ix, deferredReload, ""); err != nil {
			return "", err
		}
	}
	if err := store.beginReload(ctx, ns, request); err != nil {
		return "", err
	}
	record.Ready = true
	return "empty, its documents follow", store.putCollection(ctx, record)
}

// reloaded reads {reload: coll, options, indexes: [spec, …]}.
func (x *executor) reloaded() (opts bson.Raw, indexes [][]byte, err error) {
	options, _, err := rawbson.Lookup(x.event.DDL, "options")
	if err != nil {
		return nil, nil, err
	}
	if options.Type == bson.TypeEmbeddedDocument {
		opts = options.Value
	}
	if opts, err = createOptions(opts); err != nil {
		return nil, nil, err
	}
	list, found, err := rawbson.Lookup(x.event.DDL, "indexes")
	if err != nil || !found {
		return opts, nil, err
	}
	values, err := bson.RawArray(list.Value).Values()
	if err != nil {
		return nil, nil, err
	}
	for _, v := range values {
		doc, ok := v.DocumentOK()
		if !ok {
			return nil, nil, errors.New("an index that is no document")
		}
		indexes = append(indexes, doc)
	}
	return opts, indexes, nil
}

// replaceable refuses a target that the pipeline has not made, unless there is
// nothing in it.
func (x *executor) replaceable(ctx context.Context, ns, target event.Namespace, opts bson.Raw) error {
	_, found, err := x.storeOf(ns).collection(ctx, ns)
	if err != nil || found {
		return err
	}
	listed, exists, err := lookup(ctx, x.client, target)
	if err != nil || !exists {
		return err
	}
	var conflict *conflictError
	err = untouched(ctx, x.client, target, listed, opts)
	if errors.As(err, &conflict) {
		return &ddlError{x.event, err}
	}
	return err
}

// reloadEnd builds the indexes that the reload has left, and ends the catching
// up of the collection with the time that no image is later than.
func (x *executor) reloadEnd(ctx context.Context) (string, error) {
	ns, target := x.event.NS, x.target()
	store := x.storeOf(ns)
	record, found, err := store.collection(ctx, ns)
	if err != nil {
		return "", err
	}
	if !found || record.Reload == nil || record.Reload.Request != stringOf(x.event.DDL, "request") {
		return "there is no such reload", nil
	}
	through, found, err := rawbson.Lookup(x.event.DDL, "through")
	if err != nil || !found || through.Type != bson.TypeTimestamp {
		return "", &ddlError{x.event, errors.Join(errors.New("reload_end without its time"), err)}
	}
	waiting, err := x.store.deferredOf(ctx, target, deferredReload)
	if err != nil {
		return "", err
	}
	indexes := make([]index, 0, len(waiting))
	for _, d := range waiting {
		ix, _, err := indexOfSpec(d.Spec, rules.IndexPolicy{})
		if err != nil {
			return "", &ddlError{x.event, err}
		}
		indexes = append(indexes, ix)
	}
	listed, _, err := lookup(ctx, x.client, target)
	if err != nil {
		return "", err
	}
	failed, goesOn, err := x.build(ctx, target, &listed, indexes)
	if err != nil {
		return "", err
	}
	// What was built as it is, and is not deferred for another reason now.
	if err := x.store.forgetDeferred(ctx, target, deferredReload); err != nil {
		return "", err
	}
	if err := store.endReload(ctx, ns); err != nil {
		return "", err
	}
	t, i := through.RawValue().Timestamp()
	record.Reload.Through = bson.Timestamp{T: t, I: i}
	return "complete, " + builtText(len(indexes), failed, goesOn), store.putCollection(ctx, record)
}

// await writes down that the destination does not have a collection until its
// reload, drops what stands in its place, and asks for the reload. It asks over
// history too: a run asks for what was renamed before the end of its own reads,
// and the reloads that it waits for let history go on for longer than that.
func (x *executor) await(ctx context.Context, ns, target event.Namespace, reason string) error {
	if err := x.sole(ctx, target, ns); err != nil {
		return err
	}
	if err := x.replaceable(ctx, ns, target, emptyDocument()); err != nil {
		return err
	}
	store := x.storeOf(ns)
	if err := store.askReload(ctx, store.reloadRequest(ns, x.event.UUID, x.event.Position, reason)); err != nil {
		return err
	}
	record := collectionRecord{ID: store.collectionID(ns), Target: target.String(), SourceUUID: x.event.UUID.String(), Awaiting: true}
	if err := store.putCollection(ctx, record); err != nil {
		return err
	}
	err := x.command(ctx, target, target.DB, bson.D{{Key: "drop", Value: target.Coll}})
	if err != nil && !hasCode(err, codeNamespaceNotFound) {
		return err
	}
	return x.store.forgetIndexes(ctx, target, "")
}

// awaiting reports whether the destination does not have a collection until its
// reload, which brings everything that an event could change in it.
func (x *executor) awaiting(ctx context.Context, ns event.Namespace) (bool, error) {
	record, found, err := x.storeOf(ns).collection(ctx, ns)
	return err == nil && found && record.Awaiting, err
}

// missing takes down that the target of an index is gone from the destination.
func (x *executor) missing(ctx context.Context, target event.Namespace) (string, error) {
	awaiting, err := x.awaiting(ctx, x.event.NS)
	if err != nil || awaiting {
		return awaitsReload, err
	}
	return "the collection is gone: its reload follows", x.await(ctx, x.event.NS, target, "the collection is gone from the destination")
}

// modifyWaiting makes a collMod's change to an index that its collection's
// reload has not built yet; done says whether it is one.
func (x *executor) modifyWaiting(ctx context.Context, target event.Namespace, spec bson.Raw) (done bool, err error) {
	waiting, err := x.store.deferredOf(ctx, target, deferredReload)
	if err != nil {
		return false, err
	}
	for _, d := range waiting {
		held := bson.Raw(d.Spec)
		if name := stringOf(spec, "name"); name != d.ID.Index && (name != "" || !sameBytes(held.Lookup("key"), spec.Lookup("keyPattern"))) {
			continue
		}
		body, err := rawbson.Body(spec)
		if err != nil {
			return false, &ddlError{x.event, err}
		}
		var fields []rawbson.Element
		for len(body) > 0 {
			var e rawbson.Element
			if e, body, err = rawbson.Next(body); err != nil {
				return false, &ddlError{x.event, err}
			}
			switch string(e.Name) {
			case "name", "keyPattern", "prepareUnique":
			default:
				fields = append(fields, e)
			}
		}
		changed, err := withFields(held, fields)
		if err != nil {
			return false, &ddlError{x.event, err}
		}
		return true, x.store.deferIndex(ctx, target, index{name: d.ID.Index, spec: changed}, deferredReload, "")
	}
	return false, nil
}

const awaitsReload = "the collection awaits its reload"

func stringOf(doc bson.Raw, name string) string {
	text, _ := doc.Lookup(name).StringValueOK()
	return text
}

// deferredOf reads the deferred indexes of a target with that reason.
func (s *store) deferredOf(ctx context.Context, target event.Namespace, reason string) ([]deferredRecord, error) {
	cursor, err := s.db.Collection(deferredCollection).Find(ctx, s.deferredFilter(target, reason))
	if err != nil {
		return nil, fmt.Errorf("read deferred indexes ns=%s: %w", target, err)
	}
	var list []deferredRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read deferred indexes ns=%s: %w", target, err)
	}
	return list, nil
}

// forgetDeferred takes the deferred indexes of a target with that reason off the
// record.
func (s *store) forgetDeferred(ctx context.Context, target event.Namespace, reason string) error {
	if _, err := s.db.Collection(deferredCollection).DeleteMany(ctx, s.deferredFilter(target, reason)); err != nil {
		return fmt.Errorf("forget deferred indexes ns=%s: %w", target, sanitize(err))
	}
	return nil
}

func (s *store) deferredFilter(target event.Namespace, reason string) bson.D {
	return bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.ns", Value: target.String()}, {Key: "reason", Value: reason}}
}
