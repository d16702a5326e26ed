package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// errHeldDiffers is returned when the destination holds something else than the
// events say: then everything is looked up first.
var errHeldDiffers = errors.New("the destination holds another document than expected")

// errNoTarget is returned, wrapped in an *eventError, when the destination does
// not have the collection of an event although it should.
var errNoTarget = errors.New("its collection does not exist in the destination: it was dropped there: hint: load the destination again")

// target executes the writes of one worker. Its methods take the context of a
// transaction where there is one.
type target struct {
	client *mongo.Client
	able   abilities
	// catalog is what this worker knows of the destination's collections; it
	// is forgotten after each barrier, since only DDL changes it.
	catalog map[event.Namespace]targetInfo
	// shards shards what ensure makes; nil for nothing.
	shards *sharder
	// uniques says which collections have unique indexes, of those asked for.
	uniques map[event.Namespace]bool
	// builder is used by one write at a time, which leaves it empty.
	builder commandBuilder
	// guard, if set, fails when the worker has lost its partition. It is asked
	// before every write that no transaction guards.
	guard func(context.Context) error
}

// targetInfo is what writing needs to know of a collection.
type targetInfo struct {
	capped bool
	// collated says that _id values of other bytes may be equal there: the
	// collection has a collation.
	collated bool
	// key is its shard key; nil where there is none but _id.
	key *shardKey
}

func newTarget(client *mongo.Client, able abilities) *target {
	return &target{client: client, able: able, catalog: map[event.Namespace]targetInfo{}, uniques: map[event.Namespace]bool{}, builder: newBuilder("", able)}
}

// forget drops what is known of the destination's collections.
func (t *target) forget() {
	clear(t.catalog)
	clear(t.uniques)
}

// capped reports what ensure has found out.
func (t *target) capped(ns event.Namespace) bool { return t.catalog[ns].capped }

// ensure looks up every target of a batch that is not known yet, and creates
// the missing ones where that is right: the source keeps no record of creations
// (its events carry no UUID), or history is replayed that a later drop ends. It
// runs outside of the batch's transaction, which may not create collections.
func (t *target) ensure(ctx context.Context, changes []change, mode event.ApplyMode) error {
	for _, c := range changes {
		if _, ok := t.catalog[c.target]; ok {
			continue
		}
		listed, ok, err := lookup(ctx, t.client, c.target)
		if err != nil {
			return err
		}
		if ok && listed.View {
			return fail(c, fmt.Errorf("target %s is a view in the destination", c.target))
		}
		if !ok {
			if mode == event.Strict && !c.UUID.IsZero() {
				return fail(c, errNoTarget)
			}
			if err := t.client.Database(c.target.DB).CreateCollection(ctx, c.target.Coll); err != nil && !hasCode(err, codeNamespaceExists) {
				return fmt.Errorf("create collection ns=%s: %w", c.target, err)
			}
			if err := t.shards.spread(ctx, c.target, listed.Options); err != nil {
				return err
			}
		}
		info := targetInfo{capped: listed.Capped(), collated: listed.Collated()}
		if info.key, err = t.keyOf(ctx, c.target, info.collated); err != nil {
			return err
		}
		t.catalog[c.target] = info
	}
	return nil
}

// write brings a plan's documents to their final states. A try that may meet
// half of the one before cannot tell what that has written from what does not
// fit, and asks for the document where it does not.
func (t *target) write(ctx context.Context, p *plan, how care, fx *effects) error {
	w, err := t.writer(ctx, p, how, fx)
	if err != nil {
		return err
	}
	groups := map[need][]*document{}
	for _, d := range p.documents {
		if d.unfit != nil {
			if err := fx.unfit(d.last, d.unfit); err != nil {
				return err
			}
			continue
		}
		look := how != asSaid || d.look
		n := w.needs(d, look)
		if n == needImage && w.key == nil && !look && len(d.deltas) == 1 {
			if o, ok := operatorsOf(d.deltas[0]); ok {
				if err := w.operate(d, &o); err != nil {
					return err
				}
				continue
			}
		}
		groups[n] = append(groups[n], d)
	}
	for _, d := range groups[needNothing] {
		if err := w.add(d, d.resolve()); err != nil {
			return err
		}
	}
	if err := w.lookUp(groups[needID], needID); err != nil {
		return err
	}
	if err := w.lookUp(groups[needImage], needImage); err != nil {
		return err
	}
	return w.flush()
}

// writer prepares the writing of a plan by the target's builder.
func (t *target) writer(ctx context.Context, p *plan, how care, fx *effects) (*writer, error) {
	if err := t.relearn(ctx, p.target, how); err != nil {
		return nil, err
	}
	info := t.catalog[p.target]
	w := &writer{ctx: ctx, db: t.client.Database(p.target.DB), target: p.target, fx: fx, builder: &t.builder, guard: t.guard, collated: info.collated, key: info.key}
	w.clear = how != asSaid
	w.builder.coll, w.builder.able, w.builder.key = p.target.Coll, t.able, w.key
	w.builder.drain() // of a try that failed
	return w, nil
}

// writer writes one plan.
type writer struct {
	ctx    context.Context //nolint:containedctx // A writer lives inside one call.
	db     *mongo.Database
	target event.Namespace
	// missing and misfit are as in resolveHeld, for all documents.
	missing, misfit event.ApplyMode
	// fx takes over what only whole images mend; nil for a load.
	fx *effects
	// ordered says that the collection is capped.
	ordered bool
	builder *commandBuilder
	// guard is the target's.
	guard func(context.Context) error
	// collated and key are as in targetInfo.
	collated bool
	key      *shardKey
	// clear says that a document which is not found may be in the way all the
	// same: one that a migration between shards has left behind.
	clear bool
	// settle, if set, decides about looked up documents instead of the events.
	settle func(d *document, held bson.Raw) error
}

func (w *writer) addHeld(d *document, held bson.Raw) error {
	if w.settle != nil {
		return w.settle(d, held)
	}
	resolved, removed, err := d.resolveHeld(held, max(w.missing, d.missing), max(w.misfit, d.misfit))
	if err == nil {
		err = w.place(&resolved, held)
	}
	if err != nil && w.ordered {
		return w.fx.unfitOrdered(d.last, err)
	}
	if err != nil {
		return w.fx.unfit(d.last, err)
	}
	if removed && !w.ordered {
		if err := w.fx.removed(d.last); err != nil {
			return err
		}
	}
	return w.add(d, resolved)
}

func (w *writer) add(d *document, wr write) error {
	if w.key != nil && wr.kind == writeRespell && !w.builder.able.transactions {
		return w.relocate(d, wr)
	}
	if w.builder.full(len(wr.doc) + len(wr.id.Value)) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if err := w.builder.add(wr); err != nil {
		return fail(d.last, err)
	}
	return nil
}

// operate adds an update by operators, which needs no look at the document.
func (w *writer) operate(d *document, o *operators) error {
	if w.builder.full(len(d.deltas[0]) + len(d.id.Value)) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.builder.operate(d.id, o)
	return nil
}

// flush runs the commands so far.
func (w *writer) flush() error {
	for _, c := range w.builder.drain() {
		if w.guard != nil && !w.builder.able.transactions {
			if err := w.guard(w.ctx); err != nil {
				return err
			}
		}
		if err := run(w.ctx, w.db, w.target, c); err != nil {
			return err
		}
	}
	return nil
}

// run executes one write command and checks what it did.
func run(ctx context.Context, db *mongo.Database, ns event.Namespace, c command) error {
	answer, err := db.RunCommand(ctx, c.raw).Raw()
	if err != nil {
		return fmt.Errorf("write ns=%s: %w", ns, err)
	}
	if c.matches < 0 {
		return nil
	}
	n, ok := answer.Lookup("n").AsInt64OK()
	if !ok {
		return fmt.Errorf("write ns=%s: the destination's answer has no count", ns)
	}
	if n != int64(c.matches) {
		return fmt.Errorf("write ns=%s: %w: %d of %d found", ns, errHeldDiffers, n, c.matches)
	}
	return nil
}

// classify decides about errors of a batch.
func classify(verdict func(error) retry.Verdict) func(error) retry.Verdict {
	return func(err error) retry.Verdict {
		var (
			inEvent *eventError
			state   *stateError
		)
		switch {
		case errors.As(err, &inEvent), errors.As(err, &state), errors.Is(err, errLost), errors.Is(err, errTooLarge):
			return retry.Stop
		case errors.Is(err, errHeldDiffers):
			return retry.Other
		}
		return verdict(err)
	}
}

// listedCollection is one entry of listCollections.
type listedCollection struct {
	View    bool
	Options bson.Raw
	// UUID is the collection's, as a value; of no type where there is none.
	UUID bson.RawValue
}

// Capped reports whether the collection is capped.
func (l *listedCollection) Capped() bool {
	v, err := l.Options.LookupErr("capped")
	if err != nil {
		return false
	}
	capped, _ := v.BooleanOK()
	return capped
}

// Collated reports whether the collection has a collation of its own.
func (l *listedCollection) Collated() bool {
	_, err := l.Options.LookupErr("collation")
	return err == nil
}

// lookup asks the destination for one collection or view; ok is false when
// there is none.
func lookup(ctx context.Context, client *mongo.Client, ns event.Namespace) (listedCollection, bool, error) {
	cursor, err := client.Database(ns.DB).ListCollections(ctx, bson.D{{Key: "name", Value: ns.Coll}}, options.ListCollections().SetBatchSize(2))
	if err != nil {
		return listedCollection{}, false, fmt.Errorf("look up collection ns=%s: %w", ns, err)
	}
	var list []struct {
		Type    string   `bson:"type"`
		Options bson.Raw `bson:"options"`
		Info    struct {
			UUID bson.RawValue `bson:"uuid"`
		} `bson:"info"`
	}
	if err := cursor.All(ctx, &list); err != nil {
		return listedCollection{}, false, fmt.Errorf("look up collection ns=%s: %w", ns, err)
	}
	if len(list) == 0 {
		return listedCollection{Options: emptyDocument()}, false, nil
	}
	if list[0].Type == "timeseries" {
		return listedCollection{}, false, fmt.Errorf("look up collection ns=%s: it is a time-series collection, which this version does not write: hint: exclude it", ns)
	}
	l := listedCollection{View: list[0].Type == "view", Options: list[0].Options, UUID: list[0].Info.UUID}
	if len(l.Options) == 0 {
		l.Options = emptyDocument()
	}
	return l, true, nil
}

func emptyDocument() bson.Raw { return bson.Raw{5, 0, 0, 0, 0} }
