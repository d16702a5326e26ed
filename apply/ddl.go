package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// viewsCollection is a database's catalogue of views; its drop is the drop of
// all of them.
const viewsCollection = "system.views"

// ddlError is a DDL event that cannot be applied however often it is tried.
type ddlError struct {
	event *event.Event
	err   error
}

// Error names the event and the cause.
func (e *ddlError) Error() string { return fmt.Sprintf("apply %s: %v", e.event, e.err) }

// Unwrap returns the cause.
func (e *ddlError) Unwrap() error { return e.err }

// concerns reports whether a DDL event touches a namespace that the rules
// select. All members of a group answer alike, so that one that is passed over
// needs no barrier.
func concerns(r rules.Destination, destination string, e *event.Event) (bool, error) {
	if e.Op == event.OpReload || e.Op == event.OpReloadEnd {
		if _, ok := r.Target(e.NS); !ok {
			return false, nil
		}
		return reloadNames(e, destination)
	}
	if e.Op == event.OpDrop && e.NS.Coll == viewsCollection {
		return true, nil
	}
	if _, ok := r.Target(e.NS); ok {
		return true, nil
	}
	if e.Op != event.OpRename {
		return false, nil
	}
	to, _, err := renameOf(e)
	if err != nil {
		return false, &ddlError{e, err}
	}
	_, ok := r.Target(to)
	return ok, nil
}

// renameOf reads {renameCollection: "db.a", to: "db.b", dropTarget}.
func renameOf(e *event.Event) (to event.Namespace, dropTarget bool, err error) {
	text, ok := e.DDL.Lookup("to").StringValueOK()
	if !ok {
		return event.Namespace{}, false, errors.New("rename without a target")
	}
	if to, err = event.ParseNamespace(text); err != nil {
		return event.Namespace{}, false, err
	}
	drop, err := e.DDL.LookupErr("dropTarget")
	if err != nil {
		return to, false, nil
	}
	// True, or the UUID of the collection that the rename replaced.
	if b, ok := drop.BooleanOK(); ok {
		return to, b, nil
	}
	return to, drop.Type == bson.TypeBinary, nil
}

// executor applies one DDL event. It is idempotent: a claimant that failed half
// way is followed by another one, or by itself, and nothing passes the barrier
// in between.
type executor struct {
	client *mongo.Client
	store  *store
	rules  rules.Destination
	// groups are those of the destination that the event touches.
	groups []groupRules
	log    zerolog.Logger
	event  *event.Event
	// barrier is the event's; builder takes the builds that outlast it, and is
	// nil where none may.
	barrier barrierID
	builder *indexBuilder
	// hold is asked before every command: it makes sure of the claim, which
	// lasts longer than the command then.
	hold func(context.Context) error
	// uuids says that commands may name the collection that they mean.
	uuids bool
	// lenient says that the event is history which is replayed over the later
	// state that was loaded: what it makes may be there already, in a later
	// form, and what it works on may be gone. What the loaded state lacks for
	// that reason, a later event of the stream brings.
	lenient bool
	// shards shards what is made; nil for nothing.
	shards *sharder
}

// run applies the event and says in a few words what was done.
func (x *executor) run(ctx context.Context) (outcome string, err error) {
	switch x.event.Op {
	case event.OpCreate:
		outcome, err = x.create(ctx)
	case event.OpDrop:
		outcome, err = x.drop(ctx)
	case event.OpRename:
		outcome, err = x.rename(ctx)
	case event.OpCreateIndexes:
		outcome, err = x.createIndexes(ctx)
	case event.OpDropIndexes:
		outcome, err = x.dropIndexes(ctx)
	case event.OpModify:
		outcome, err = x.modify(ctx)
	case event.OpReload:
		outcome, err = x.reload(ctx)
	case event.OpReloadEnd:
		outcome, err = x.reloadEnd(ctx)
	case event.OpInsert, event.OpUpdate, event.OpReplace, event.OpDelete, event.OpRefresh, event.OpWatermark:
		err = x.refuse("it is no DDL")
	}
	var own *ddlError
	if err == nil || errors.As(err, &own) {
		return outcome, err
	}
	return "", fmt.Errorf("apply %s: %w", x.event, sanitize(err))
}

func (x *executor) refuse(format string, args ...any) error {
	return &ddlError{x.event, fmt.Errorf(format, args...)}
}

// targetOf returns the target of a namespace, by the rules of the group that
// selects it.
func (x *executor) targetOf(ns event.Namespace) (event.Namespace, bool) {
	for _, g := range x.groups {
		if target, ok := g.rules.Target(ns); ok {
			return target, true
		}
	}
	return event.Namespace{}, false
}

// storeOf is the store of the group that selects a namespace.
func (x *executor) storeOf(ns event.Namespace) *store {
	for _, g := range x.groups {
		if _, ok := g.rules.Target(ns); ok {
			return x.store.as(g.group)
		}
	}
	return x.store
}

// target returns the event's target; concerns has made sure that there is one.
func (x *executor) target() event.Namespace {
	target, _ := x.targetOf(x.event.NS)
	return target
}

func (x *executor) create(ctx context.Context) (string, error) {
	target := x.target()
	opts, err := createOptions(x.event.DDL)
	if err == nil {
		opts, err = withIDIndex(opts, firstIDIndex())
	}
	if err != nil {
		return "", &ddlError{x.event, err}
	}
	if err := x.sole(ctx, target, x.event.NS); err != nil {
		return "", err
	}
	listed, exists, err := lookup(ctx, x.client, target)
	if err != nil {
		return "", err
	}
	outcome := "created"
	switch {
	case exists && x.lenient:
		outcome = "exists in the form that was loaded"
	case exists:
		if err := x.ours(ctx, target, listed, opts); err != nil {
			return "", err
		}
		outcome = "exists already"
	default:
		// The record comes first, so that what a try made that did not live to
		// tell does not look like somebody else's.
		if err := x.begin(ctx, target); err != nil {
			return "", err
		}
		if err := x.hold(ctx); err != nil {
			return "", err
		}
		if err := createCollection(ctx, x.client, target, opts); err != nil {
			return "", err
		}
	}
	if err := x.spread(ctx, target, opts); err != nil {
		return "", err
	}
	return outcome, x.record(ctx, x.event.NS, target)
}

// ours refuses a collection that exists unless an earlier try of this event made
// it, or it is the very collection of the event, which the load may have found
// before, or it is as if just created with the event's options.
func (x *executor) ours(ctx context.Context, target event.Namespace, listed listedCollection, opts bson.Raw) error {
	held, found, err := x.storeOf(x.event.NS).collection(ctx, x.event.NS)
	same := found && held.SourceUUID == x.event.UUID.String()
	if err != nil || same && (!held.Ready || !x.event.UUID.IsZero()) {
		return err
	}
	var conflict *conflictError
	err = untouched(ctx, x.client, target, listed, opts)
	if errors.As(err, &conflict) {
		return &ddlError{x.event, err}
	}
	return err
}

// begin writes down that the pipeline is about to make the event's collection.
func (x *executor) begin(ctx context.Context, target event.Namespace) error {
	store := x.storeOf(x.event.NS)
	return store.putCollection(ctx, collectionRecord{
		ID: store.collectionID(x.event.NS), Target: target.String(), SourceUUID: x.event.UUID.String(),
	})
}

// record writes down that the pipeline made a collection, unless its load has.
func (x *executor) record(ctx context.Context, ns, target event.Namespace) error {
	store := x.storeOf(ns)
	held, found, err := store.collection(ctx, ns)
	if err != nil || found && held.Ready && held.SourceUUID == x.event.UUID.String() {
		return err
	}
	return store.putCollection(ctx, collectionRecord{
		ID: store.collectionID(ns), Target: target.String(), SourceUUID: x.event.UUID.String(), Ready: true,
	})
}

// sole refuses a target that another source collection is written to.
func (x *executor) sole(ctx context.Context, target, source event.Namespace) error {
	other, found, err := x.storeOf(source).otherSource(ctx, target, source)
	if err != nil || !found {
		return err
	}
	return x.refuse("%s and %s would both be written to %s: hint: rename one of the databases to another name, or exclude one", other, source, target)
}

func (x *executor) drop(ctx context.Context) (string, error) {
	if x.event.NS.Coll == viewsCollection {
		return x.dropViews(ctx)
	}
	return x.dropOne(ctx, x.event.NS, x.target())
}

func (x *executor) dropOne(ctx context.Context, ns, target event.Namespace) (string, error) {
	outcome := "dropped"
	err := x.command(ctx, target, target.DB, bson.D{{Key: "drop", Value: target.Coll}})
	if hasCode(err, codeNamespaceNotFound) {
		outcome, err = "does not exist", nil
	}
	if err != nil {
		return "", err
	}
	if err := x.store.forgetIndexes(ctx, target, ""); err != nil {
		return "", err
	}
	if err := x.storeOf(ns).dropRequests(ctx, ns, x.event.UUID); err != nil {
		return "", err
	}
	return outcome, x.storeOf(ns).dropCollection(ctx, ns)
}

// dropViews drops every selected view of the database.
func (x *executor) dropViews(ctx context.Context) (string, error) {
	n := 0
	for _, g := range x.groups {
		db := g.rules.Rename.Namespace(x.event.NS).DB
		views, err := x.client.Database(db).ListCollectionNames(ctx, bson.D{{Key: "type", Value: "view"}})
		if err != nil {
			return "", fmt.Errorf("list views db=%s: %w", db, err)
		}
		for _, name := range views {
			source := event.Namespace{DB: x.event.NS.DB, Coll: name}
			target, ok := g.rules.Target(source)
			if !ok || target.Coll != name {
				continue
			}
			if _, err := x.dropOne(ctx, source, target); err != nil {
				return "", err
			}
			n++
		}
	}
	return fmt.Sprintf("dropped %d views", n), nil
}

// command runs a DDL command on target that ends, one way or the other, before
// the claim of the barrier can pass to another member. Where the server takes
// it, the command names the collection that is there now, before the claim is
// looked at: a member that freezes after that look finds another collection
// when it wakes, or none, and the command fails.
func (x *executor) command(ctx context.Context, target event.Namespace, db string, cmd bson.D) error {
	uuid, err := x.uuidOf(ctx, target)
	if err != nil {
		return err
	}
	if uuid.Type != 0 {
		cmd = append(cmd, bson.E{Key: "collectionUUID", Value: uuid})
	}
	cmd = append(cmd,
		bson.E{Key: "maxTimeMS", Value: commandTime.Milliseconds()},
		bson.E{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}})
	if err := x.hold(ctx); err != nil {
		return err
	}
	err = x.client.Database(db).RunCommand(ctx, cmd).Err()
	if hasCode(err, codeCollectionUUIDMismatch) {
		return fmt.Errorf("run %s: %w: %w", cmd[0].Key, errClaimLost, sanitize(err))
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", cmd[0].Key, sanitize(err))
	}
	return nil
}

// uuidOf returns the UUID of a target, if commands may name it.
func (x *executor) uuidOf(ctx context.Context, target event.Namespace) (bson.RawValue, error) {
	if !x.uuids {
		return bson.RawValue{}, nil
	}
	listed, exists, err := lookup(ctx, x.client, target)
	if err != nil || !exists || listed.View {
		return bson.RawValue{}, err
	}
	return listed.UUID, nil
}

// otherSource returns another source collection that is written to a target.
func (s *store) otherSource(ctx context.Context, target, source event.Namespace) (other string, found bool, err error) {
	var c collectionRecord
	err = s.db.Collection(collectionsCollection).FindOne(ctx, bson.D{
		{Key: "_id.pipeline", Value: s.id.Pipeline},
		{Key: "_id.group", Value: s.id.Group},
		{Key: "target", Value: target.String()},
		{Key: "_id.ns", Value: bson.D{{Key: "$ne", Value: source.String()}}},
	}).Decode(&c)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read collection records: %w", err)
	}
	return c.ID.NS, true, nil
}
