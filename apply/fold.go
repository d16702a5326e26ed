package apply

import (
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// errMissing is returned, wrapped, when a delta meets no document although
// nothing is being caught up with.
var errMissing = errors.New("the destination does not hold the document that the update was made on")

// change is one data event of a batch with its target and where it came from.
type change struct {
	*event.Event
	target event.Namespace
	offset int64
	// record is what carried the event; nil for a load's.
	record *kgo.Record
	// What admit has found out of the event's document. look: the destination
	// may hold another one than the event says. missing and misfit: how a delta
	// that meets none, or one that it does not fit, is taken. later: it is later
	// than the event. shaken: history took a field from it.
	look            bool
	missing, misfit event.ApplyMode
	later, shaken   bool
}

// document is what a batch does to one document: the effect of its events,
// folded. Exactly one of image, gone and deltas holds it.
type document struct {
	// id is the _id in the spelling of the last event that carried it.
	id bson.RawValue
	// first is the batch's first operation on the document. It tells, outside
	// of catching up, whether the document was there before.
	first event.Op
	// respelled says that the events spelled the _id differently (1 and 1.0).
	respelled bool
	// image is the whole document at the end of the batch.
	image bson.Raw
	// gone says that the document does not exist at the end of the batch.
	gone bool
	// deltas are updates of the document that the destination holds, in order.
	deltas []event.Delta
	// last is the last event folded in, for messages.
	last change
	// look, missing and misfit are the batch's and the events' together.
	look            bool
	missing, misfit event.ApplyMode
	// shaken says that history took a field from the document before the batch.
	shaken bool
	// later says that the image is later than the events behind it.
	later bool
	// unfit is why the event last cannot be folded in: a whole image is needed.
	unfit error
}

// docID is the _id of the event's document; documents of a full load carry no
// document key.
func (c change) docID() bson.RawValue {
	if c.DocumentKey != nil || c.Document == nil {
		return c.ID()
	}
	return c.Document.Lookup("_id")
}

// plan is what a batch does to one target.
type plan struct {
	target event.Namespace
	// documents in the order of their first events; each stands once, so that
	// no order among them matters.
	documents []*document
	// ordered holds the events of a capped collection, unfolded: there the
	// order of documents is part of the state.
	ordered []change
}

// folder gathers a batch's events into plans. It is pure: no server, no clock.
type folder struct {
	// mode is how deltas are taken that do not fit, missing how those are that
	// meet no document.
	mode, missing event.ApplyMode
	// capped reports whether a target is a capped collection.
	capped  func(event.Namespace) bool
	plans   []*plan
	targets map[event.Namespace]*plan
	keys    map[string]*document
	key     []byte
}

func newFolder(mode event.ApplyMode, capped func(event.Namespace) bool) *folder {
	return &folder{mode: mode, missing: mode, capped: capped, targets: map[event.Namespace]*plan{}, keys: map[string]*document{}}
}

// fold folds events into plans, in the order of the targets' first events. The
// plans alias the events.
func fold(changes []change, mode event.ApplyMode, capped func(event.Namespace) bool) ([]*plan, error) {
	return newFolder(mode, capped).all(changes)
}

func (f *folder) all(changes []change) ([]*plan, error) {
	for _, c := range changes {
		if err := f.add(c); err != nil {
			return nil, err
		}
	}
	return f.plans, nil
}

// add folds in the next event.
func (f *folder) add(c change) error {
	p := f.planOf(c.target)
	if f.capped(c.target) {
		p.ordered = append(p.ordered, c)
		return nil
	}
	id := c.docID()
	if id.Type == 0 {
		return fail(c, errors.New("the event has no _id"))
	}
	key, err := f.keyOf(c.target, id)
	if err != nil {
		return fail(c, err)
	}
	d, ok := f.keys[string(key)]
	if !ok {
		d = &document{id: id, first: c.Op, look: f.mode == event.Lenient, missing: f.missing, misfit: f.mode, shaken: c.shaken}
		f.keys[string(key)] = d
		p.documents = append(p.documents, d)
	}
	if !sameBytes(d.id, id) {
		d.respelled = true
		d.id = id
	}
	d.look, d.missing, d.misfit = d.look || c.look, max(d.missing, c.missing), max(d.misfit, c.misfit)
	if d.unfit != nil && c.Op == event.OpUpdate {
		return nil
	}
	d.last, d.unfit = c, nil
	err = d.apply(c)
	if refreshable(err) {
		d.image, d.gone, d.deltas, d.unfit = nil, false, nil, fail(c, err)
		return nil
	}
	if err != nil {
		return fail(c, err)
	}
	return nil
}

func (f *folder) planOf(target event.Namespace) *plan {
	p, ok := f.targets[target]
	if !ok {
		p = &plan{target: target}
		f.targets[target] = p
		f.plans = append(f.plans, p)
	}
	return p
}

// keyOf names a document of a target so that _id values that a server takes for
// equal are equal. The key is valid until the next call.
func (f *folder) keyOf(target event.Namespace, id bson.RawValue) ([]byte, error) {
	f.key = append(f.key[:0], target.DB...)
	f.key = append(f.key, '.')
	f.key = append(f.key, target.Coll...)
	f.key = append(f.key, 0)
	var err error
	f.key, err = event.AppendIDKey(f.key, id)
	return f.key, err
}

// apply folds one event into what is known of its document.
func (d *document) apply(c change) error {
	switch c.Op {
	case event.OpInsert, event.OpReplace, event.OpRefresh:
		if c.Document == nil && c.Op == event.OpRefresh {
			d.image, d.gone, d.deltas = nil, true, nil
			return nil
		}
		if c.Document == nil {
			return errors.New("the event has no document")
		}
		d.image, d.gone, d.deltas = c.Document, false, nil
		d.later = !c.AsOf.IsZero()
	case event.OpDelete:
		d.image, d.gone, d.deltas = nil, true, nil
	case event.OpUpdate:
		return d.update(c.Delta)
	case event.OpCreate, event.OpCreateIndexes, event.OpDropIndexes, event.OpModify, event.OpRename,
		event.OpDrop, event.OpReload, event.OpReloadEnd, event.OpWatermark:
		return errors.New("not an event of one document")
	}
	return nil
}

func (d *document) update(delta event.Delta) error {
	switch {
	case d.gone && d.missing == event.Lenient:
		return nil
	case d.gone:
		return errMissing
	case d.image != nil && d.later:
		image, _, err := patch(d.image, []event.Delta{delta}, d.misfit, d.shaken)
		if err != nil {
			return err
		}
		d.image = image
	case d.image != nil:
		image, err := delta.Apply(d.image, d.misfit)
		if err != nil {
			return err
		}
		d.image = image
	default:
		d.deltas = append(d.deltas, delta)
	}
	return nil
}

// patch applies deltas to a document that may be later than they are where mode
// says so. It returns whether they took a field from it; a field that is added
// afterwards, or with shaken at all, is errOrder.
func patch(doc bson.Raw, deltas []event.Delta, mode event.ApplyMode, shaken bool) (after bson.Raw, removed bool, err error) {
	for _, delta := range deltas {
		if mode == event.Strict || !delta.Ambiguous() {
			if doc, err = delta.Apply(doc, mode); err != nil {
				return nil, false, err
			}
			continue
		}
		var trace event.Trace
		if doc, trace, err = delta.ApplyTraced(doc, mode); err != nil {
			return nil, false, err
		}
		if trace.Added && (shaken || removed) {
			return nil, false, errOrder
		}
		removed = removed || trace.Removed
	}
	return doc, removed, nil
}

// eventError says which event could not be applied, and why. It names the
// document's _id, never its content.
type eventError struct {
	change change
	err    error
}

func fail(c change, err error) error { return &eventError{change: c, err: err} }

// Error names operation, namespace, _id, position and offset.
func (e *eventError) Error() string {
	c := e.change
	return fmt.Sprintf("apply %s ns=%s _id=%s position=%s offset=%d: %v", c.Op, c.NS, idText(c.docID()), c.Position, c.offset, e.err)
}

// Unwrap returns the cause.
func (e *eventError) Unwrap() error { return e.err }

// idText is an _id for messages, as Extended JSON of bounded length.
func idText(id bson.RawValue) string {
	const longest = 200
	if id.Type == 0 {
		return "?"
	}
	text := id.String()
	if len(text) > longest {
		return text[:longest] + "…"
	}
	return text
}
