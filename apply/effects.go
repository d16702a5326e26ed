package apply

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// effects are what a batch does beside its documents: to the outbox, and to what
// the worker watches. Those that follow from the events alone are fixed by
// admit; those that the writing finds out are found out anew by every try.
type effects struct {
	w *watch
	// changes are those of the batch that take effect.
	changes []change
	skipped int
	// letters are the skipped ones that follow a dead letter.
	letters []letter

	// fixed holds, by document, what the events themselves change: an entry to
	// write, or one to remove (no State).
	fixed map[string]effect
	// lacking are collections that the destination was found not to have.
	lacking map[event.Namespace]lack

	// found and reloads are the last try's.
	found   map[string]effect
	reloads map[event.Namespace]requestRecord
	// ordered are the reloads of capped collections, found out before the
	// transaction.
	ordered map[event.Namespace]requestRecord
	// shakenAll says that the last try shook more than can be remembered.
	shakenAll bool
}

// effect is one document's entry.
type effect struct {
	ns    event.Namespace
	entry requestRecord
	// change made it.
	change change
	cause  error
}

// lack is a collection that is gone from the destination.
type lack struct {
	record  collectionRecord
	request requestRecord
}

// admit decides which events of a batch take effect and how.
func (w *watch) admit(changes []change, lacking map[event.Namespace]lack) (*effects, error) {
	fx := &effects{w: w, changes: changes, lacking: lacking}
	if w.idle() && len(lacking) == 0 && !w.shakes() && !anyAsOf(changes) {
		return fx, nil
	}
	fx.fixed = map[string]effect{}
	fx.changes = make([]change, 0, len(changes))
	for _, c := range changes {
		ok, err := fx.admit(&c)
		if err != nil {
			return nil, fail(c, err)
		}
		if !ok {
			fx.skipped++
			continue
		}
		fx.changes = append(fx.changes, c)
	}
	return fx, nil
}

func (w *watch) shakes() bool { return len(w.shaken) > 0 || w.shakenAll }

func anyAsOf(changes []change) bool {
	for i := range changes {
		if !changes[i].AsOf.IsZero() {
			return true
		}
	}
	return false
}

// admit decides about one event; ok is false where it takes no effect.
func (fx *effects) admit(c *change) (ok bool, err error) {
	state := fx.w.colls[c.NS]
	if _, lacks := fx.lacking[c.NS]; lacks || state.awaiting {
		// Its reload comes later in the stream and holds everything.
		return false, nil
	}
	switch {
	case state.reloading && !state.over(c.Position.Time):
		// An image is exact at its place; a document without one may come.
		c.look, c.missing = true, event.Lenient
	case state.asked:
		c.look, c.missing, c.misfit = true, event.Lenient, event.Lenient
	}
	if c.docID().Type == 0 {
		return true, nil // fold says so
	}
	kept, err := keptKey(c.docID())
	if err != nil {
		return false, err
	}
	key := fx.w.keyOf(c.NS, kept)
	c.shaken = fx.w.isShaken(key)
	d, watched := fx.watched(key)
	whole := c.Op != event.OpUpdate
	switch {
	case !watched:
	case d.through.IsZero() && (!whole || before(c, d.place)):
		if d.dead && !before(c, d.place) {
			fx.letters = append(fx.letters, letter{*c, errBuried})
		}
		return false, nil
	case d.through.IsZero():
		// The image that was wanted, or another one, or its end.
		c.look = true
		fx.fixed[string(key)] = effect{ns: c.NS, entry: requestRecord{ID: d.id}}
	case event.CompareTimes(c.Position.Time, d.through) <= 0:
		c.look, c.missing, c.misfit, c.later = true, event.Lenient, event.Lenient, true
	}
	if !c.AsOf.IsZero() && (!state.reloading || (!state.capped && fx.w.settling+len(fx.fixed) < fx.w.most)) {
		entry := fx.w.store.documentRequest(*c, kept, requestSettling, "its image is later than its place")
		entry.Through, entry.Partition = c.AsOf, fx.w.partition
		if watched {
			entry.ID = d.id
		}
		fx.fixed[string(key)] = effect{ns: c.NS, entry: entry}
	}
	return true, nil
}

// before reports whether an event came before the one at place, or is that one.
// An image has the position of the last change that it stands behind.
func before(c *change, place event.Position) bool {
	order := c.Position.Compare(place)
	return order < 0 || order == 0 && c.Op != event.OpRefresh
}

// watched returns what is known of a document at this place in the batch.
func (fx *effects) watched(key []byte) (watched, bool) {
	if e, ok := fx.fixed[string(key)]; ok {
		return watched{id: e.entry.ID, through: e.entry.Through}, e.entry.State != ""
	}
	d, ok := fx.w.docs[string(key)]
	return d, ok
}

// beginOrdered forgets what the writing before the transaction found out.
func (fx *effects) beginOrdered() { fx.ordered = map[event.Namespace]requestRecord{} }

// begin forgets what the try before found out.
func (fx *effects) begin() {
	fx.found, fx.reloads, fx.shakenAll = map[string]effect{}, map[event.Namespace]requestRecord{}, false
}

// unfit takes over an event that cannot be applied to the held document, if a
// whole image mends that: one is asked for. It returns the error otherwise.
func (fx *effects) unfit(c change, cause error) error {
	if fx == nil || !refreshable(cause) {
		return cause
	}
	if fx.w.colls[c.NS].asked {
		return nil // comes with the collection
	}
	if _, ok := fx.reloads[c.NS]; ok {
		return nil
	}
	if fx.w.wanted[c.NS]+fx.countFound(c.NS) >= fx.w.most {
		fx.reloads[c.NS] = fx.w.store.reloadRequest(c.NS, c.UUID, c.Position, "too many of its documents are needed whole")
		return nil
	}
	return fx.note(c, requestWanted, cause)
}

// unfitOrdered is unfit for a capped collection, in which no document can be put
// back into its place: the whole collection is asked for.
func (fx *effects) unfitOrdered(c change, cause error) error {
	if fx == nil || !refreshable(cause) {
		return cause
	}
	if _, ok := fx.ordered[c.NS]; !ok && !fx.w.colls[c.NS].asked {
		fx.ordered[c.NS] = fx.w.store.reloadRequest(c.NS, c.UUID, c.Position, refreshReason(cause))
	}
	return nil
}

func (fx *effects) countFound(ns event.Namespace) int {
	if len(fx.found) == 0 {
		return 0
	}
	n := 0
	for _, e := range fx.found {
		if e.ns == ns && e.entry.State == requestWanted {
			n++
		}
	}
	return n
}

// removed takes note that history took a field from a document.
func (fx *effects) removed(c change) error {
	if fx == nil || fx.w.shakenAll || fx.shakenAll {
		return nil
	}
	if len(fx.w.shaken)+len(fx.found) >= maxShaken {
		fx.shakenAll = true
		return nil
	}
	return fx.note(c, requestShaken, nil)
}

func (fx *effects) note(c change, state string, cause error) error {
	kept, err := keptKey(c.docID())
	if err != nil {
		return fail(c, err)
	}
	reason := "history took a field from it"
	if cause != nil {
		reason = refreshReason(cause)
	}
	entry := fx.w.store.documentRequest(c, kept, state, reason)
	entry.Partition = fx.w.partition
	key := fx.w.keyOf(c.NS, kept)
	if d, ok := fx.watched(key); ok {
		entry.ID = d.id
	}
	fx.found[string(key)] = effect{ns: c.NS, entry: entry, change: c, cause: cause}
	return nil
}

// save writes the effects; in the transaction of the batch, or before its
// offset.
func (fx *effects) save(ctx context.Context) error {
	var (
		gone []requestID
		put  []requestRecord
	)
	for key, e := range fx.fixed {
		if _, again := fx.found[key]; again {
			continue
		}
		if e.entry.State == "" {
			gone = append(gone, e.entry.ID)
			continue
		}
		put = append(put, e.entry)
	}
	for _, e := range fx.found {
		put = append(put, e.entry)
	}
	for _, reloads := range []map[event.Namespace]requestRecord{fx.reloads, fx.ordered} {
		for _, r := range reloads {
			put = append(put, r)
		}
	}
	if fx.shakenAll {
		put = append(put, requestRecord{
			ID: requestID{Pipeline: fx.w.store.id.Pipeline, Group: fx.w.store.id.Group, Coll: "", Key: []byte{}}, State: requestShaken,
			NS: ownDatabase + "." + requestsCollection, Reason: "history took fields from too many documents", Asked: time.Now().UTC(),
		})
	}
	for _, l := range fx.lacking {
		if err := fx.w.store.putCollection(ctx, l.record); err != nil {
			return err
		}
		put = append(put, l.request)
	}
	return fx.w.store.writeRequests(ctx, gone, put)
}

// commit has the worker watch as the effects say; they are durable.
func (fx *effects) commit() {
	w := fx.w
	for key, e := range fx.fixed {
		w.remove(e.ns, []byte(key))
		if e.entry.State != "" {
			w.put(e.ns, []byte(key), watched{id: e.entry.ID, through: e.entry.Through})
		}
	}
	for key, e := range fx.found {
		if e.entry.State == requestShaken {
			w.shake([]byte(key))
			continue
		}
		w.put(e.ns, []byte(key), watched{id: e.entry.ID, place: e.entry.Place.position(), dead: e.entry.Dead})
	}
	for _, reloads := range []map[event.Namespace]requestRecord{fx.reloads, fx.ordered} {
		for ns := range reloads {
			state := w.colls[ns]
			state.asked = true
			w.colls[ns] = state
		}
	}
	for ns := range fx.lacking {
		w.colls[ns] = collectionState{awaiting: true}
	}
	w.shakenAll = w.shakenAll || fx.shakenAll
}

// asks returns how many documents and collections the effects ask for.
func (fx *effects) asks() (documents, collections int) {
	for _, e := range fx.found {
		if e.entry.State == requestWanted {
			documents++
		}
	}
	return documents, len(fx.reloads) + len(fx.ordered) + len(fx.lacking)
}

// lacks takes down that the destination does not have the collection of an
// event any more.
func (w *watch) lacks(c change) lack {
	const reason = "the collection is gone from the destination"
	return lack{
		record: collectionRecord{
			ID: w.store.collectionID(c.NS), Target: c.target.String(), SourceUUID: c.UUID.String(), Awaiting: true,
		},
		request: w.store.reloadRequest(c.NS, c.UUID, c.Position, reason),
	}
}

// reloadRecord is what a collection's record says of its reload.
type reloadRecord struct {
	// Request is the ID of the request that it answers.
	Request string `bson:"request"`
	// Begun is its place in the stream.
	Begun placeRecord `bson:"begun"`
	// Through is how late its images can be; zero until its end.
	Through bson.Timestamp `bson:"through"`
	// Capped says that the collection is.
	Capped bool `bson:"capped"`
}

// state is how the collection stands for workers.
func (c *collectionRecord) state() collectionState {
	s := collectionState{awaiting: c.Awaiting}
	if c.Reload != nil {
		s.reloading, s.through, s.capped = true, c.Reload.Through, c.Reload.Capped
	}
	return s
}
