package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// modify forwards a collMod as the source logged it. What it says of uniqueness
// and expiry of an index goes into the record of deferred indexes instead, since
// the destination has neither before the operator finalises.
func (x *executor) modify(ctx context.Context) (string, error) {
	target := x.target()
	if awaiting, err := x.awaiting(ctx, x.event.NS); err != nil || awaiting {
		return awaitsReload, err
	}
	cmd, kept, err := x.forwardable(ctx, target)
	if err != nil {
		return "", err
	}
	if kept == 0 {
		return "recorded for deferred indexes", nil
	}
	if err := x.hold(ctx); err != nil {
		return "", err
	}
	err = x.client.Database(target.DB).RunCommand(ctx, cmd).Err()
	switch {
	case err == nil:
		return "modified", nil
	case hasCode(err, codeCollectionUUIDMismatch):
		return "", fmt.Errorf("run collMod: %w: %w", errClaimLost, sanitize(err))
	case x.lenient && hasCode(err, codeNamespaceNotFound, codeIndexNotFound):
		return "what it modifies does not exist", nil
	}
	if other, looked := x.otherKind(ctx, target); looked != nil || other {
		return "what it modifies has become of another kind", looked
	}
	return "", fmt.Errorf("run collMod: %w", sanitize(err))
}

// otherKind reports whether history is being replayed and the event's view is a
// collection by now, or the other way round: its drop and creation follow.
func (x *executor) otherKind(ctx context.Context, target event.Namespace) (bool, error) {
	if !x.lenient {
		return false, nil
	}
	listed, exists, err := lookup(ctx, x.client, target)
	_, view := x.event.DDL.LookupErr("viewOn")
	return exists && listed.View != (view == nil), err
}

// forwardable builds the command for the destination and counts the changes in
// it.
func (x *executor) forwardable(ctx context.Context, target event.Namespace) (cmd bson.Raw, kept int, err error) {
	body, err := rawbson.Body(x.event.DDL)
	if err != nil {
		return nil, 0, &ddlError{x.event, err}
	}
	dst, at := rawbson.Begin(nil)
	for first := true; len(body) > 0; first = false {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, 0, &ddlError{x.event, err}
		}
		body = rest
		switch {
		case first:
			dst = rawbson.AppendString(dst, "collMod", target.Coll)
			continue
		case string(e.Name) == "collation":
			// A view's definition is logged as a whole; its collation never
			// changes, and collMod does not take it.
			continue
		case string(e.Name) == "index":
			spec, n, err := x.modifyIndex(ctx, target, e.Value)
			if err != nil {
				return nil, 0, err
			}
			if n == 0 {
				continue
			}
			dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, "index", spec)
		default:
			dst = append(dst, e.Raw...)
		}
		kept++
	}
	uuid, err := x.uuidOf(ctx, target)
	if err != nil {
		return nil, 0, err
	}
	if uuid.Type != 0 {
		dst = rawbson.AppendValue(dst, uuid.Type, "collectionUUID", uuid.Value)
	}
	dst = rawbson.AppendInt32(dst, "maxTimeMS", int32(commandTime.Milliseconds()))
	dst = appendMajority(dst)
	return rawbson.End(dst, at), kept, nil
}

// modifyIndex takes uniqueness and expiry off a collMod's index, into the record
// of the deferred index. It returns what is left and how many changes that
// holds.
func (x *executor) modifyIndex(ctx context.Context, target event.Namespace, spec []byte) (left []byte, changes int, err error) {
	if done, err := x.modifyWaiting(ctx, target, spec); done || err != nil {
		return nil, 0, err
	}
	body, err := rawbson.Body(spec)
	if err != nil {
		return nil, 0, &ddlError{x.event, err}
	}
	direct, err := x.modifiesDirectly(ctx, target, spec)
	if err != nil {
		return nil, 0, err
	}
	left, at := rawbson.Begin(nil)
	var weakened []rawbson.Element
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, 0, &ddlError{x.event, err}
		}
		body = rest
		switch string(e.Name) {
		case "expireAfterSeconds", "unique":
			if direct {
				changes++
				break
			}
			weakened = append(weakened, e)
			continue
		case "prepareUnique":
			if !direct {
				continue
			}
			changes++
		case "name", "keyPattern":
		default:
			changes++
		}
		left = append(left, e.Raw...)
	}
	left = rawbson.End(left, at)
	if len(weakened) > 0 {
		if err := x.deferModified(ctx, target, spec, weakened); err != nil {
			return nil, 0, err
		}
	}
	return left, changes, nil
}

// deferModified writes the changed fields into the record of the index that spec
// names, which is made from the destination's index if there is none yet.
func (x *executor) deferModified(ctx context.Context, target event.Namespace, spec bson.Raw, fields []rawbson.Element) error {
	held, err := x.heldIndex(ctx, target, spec)
	if err != nil {
		return err
	}
	if held == nil {
		if x.lenient {
			return nil
		}
		return x.refuse("the index that it modifies does not exist in target %s: hint: load the destination again under a new pipeline name", target)
	}
	name, _ := held.Lookup("name").StringValueOK()
	if record, found, err := x.store.deferredIndex(ctx, target, name); err != nil {
		return err
	} else if found {
		held = record.Spec
	}
	changed, err := withFields(held, fields)
	if err != nil {
		return &ddlError{x.event, err}
	}
	ix, _, err := indexOfSpec(changed, rules.IndexPolicy{})
	if err != nil {
		return &ddlError{x.event, err}
	}
	return x.store.deferIndex(ctx, target, ix, ix.reason, "")
}

// heldIndex returns the destination's index that {name} or {keyPattern} names;
// nil if there is none.
func (x *executor) heldIndex(ctx context.Context, target event.Namespace, spec bson.Raw) (bson.Raw, error) {
	cursor, err := x.client.Database(target.DB).Collection(target.Coll).Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list indexes ns=%s: %w", target, err)
	}
	var list []bson.Raw
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("list indexes ns=%s: %w", target, err)
	}
	for _, held := range list {
		for own, other := range map[string]string{"name": "name", "key": "keyPattern"} {
			wanted, err := spec.LookupErr(other)
			if err == nil && sameBytes(held.Lookup(own), wanted) {
				return held, nil
			}
		}
	}
	return nil, nil
}

// withFields returns spec with fields set, in their places or at the end.
func withFields(spec bson.Raw, fields []rawbson.Element) (bson.Raw, error) {
	body, err := rawbson.Body(spec)
	if err != nil {
		return nil, err
	}
	dst, at := rawbson.Begin(nil)
	written := map[string]bool{}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, err
		}
		body = rest
		raw := e.Raw
		for _, f := range fields {
			if string(f.Name) == string(e.Name) {
				raw, written[string(f.Name)] = f.Raw, true
			}
		}
		dst = append(dst, raw...)
	}
	for _, f := range fields {
		if !written[string(f.Name)] {
			dst = append(dst, f.Raw...)
		}
	}
	return rawbson.End(dst, at), nil
}

// deferredIndex reads the record of a deferred index.
func (s *store) deferredIndex(ctx context.Context, target event.Namespace, name string) (d deferredRecord, ok bool, err error) {
	id := deferredID{Pipeline: s.id.Pipeline, NS: target.String(), Index: name}
	err = s.db.Collection(deferredCollection).FindOne(ctx, byID(id)).Decode(&d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return deferredRecord{}, false, nil
	}
	if err != nil {
		return deferredRecord{}, false, fmt.Errorf("read deferred index ns=%s index=%s: %w", target, name, err)
	}
	return d, true, nil
}
