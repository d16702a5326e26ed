package apply

import (
	"context"
	"hash/maphash"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// maxWanted is how many documents of one collection a worker wants whole at
	// a time; one more, and the collection is asked for instead.
	maxWanted = 10_000
	// maxShaken is how many documents a worker remembers to have taken fields
	// from; one more, and it takes that of all.
	maxShaken = 100_000
)

// watch is what a worker knows of documents and collections that the
// destination does not hold as the events say: the group's outbox and the states
// of its collections, as of the last barrier and what this worker has committed
// since. It belongs to one worker.
type watch struct {
	store     *store
	partition int32
	docs      map[string]watched
	// most is how many documents of one collection may be wanted.
	most int
	// wanted counts the wanted documents by collection.
	wanted map[event.Namespace]int
	// settling counts the others.
	settling int
	// colls holds the collections that are not simply there.
	colls map[event.Namespace]collectionState
	// shaken are hashes: two documents that share one are both taken for it.
	// Once there are too many, shakenAll stands for every document.
	shaken    map[uint64]struct{}
	shakenAll bool
	seed      maphash.Seed
	// key is scratch.
	key []byte
}

// watched is what is known of one document.
type watched struct {
	// id is that of its entry.
	id requestID
	// place is that of the event since which the document is wanted.
	place event.Position
	// through, if set, says that the document is not wanted but later than its
	// events, up to that time.
	through bson.Timestamp
	// dead says that it is wanted because of a dead letter.
	dead bool
}

// collectionState is how a source collection stands in the destination.
type collectionState struct {
	// awaiting: the destination does not have it until its reload.
	awaiting bool
	// asked: it is held, and its reload was asked for.
	asked bool
	// reloading: its images are coming. Through, once known, ends that.
	reloading bool
	through   bson.Timestamp
	// capped: the order of its documents is part of its state, and every event
	// of it is taken leniently anyway.
	capped bool
}

// over reports whether the stream has passed a reload at an event's time.
func (c *collectionState) over(at bson.Timestamp) bool {
	return !c.through.IsZero() && event.CompareTimes(at, c.through) > 0
}

func newWatch(s *store, partition int32) *watch {
	return &watch{
		store: s, partition: partition, most: maxWanted, docs: map[string]watched{}, wanted: map[event.Namespace]int{},
		colls: map[event.Namespace]collectionState{}, shaken: map[uint64]struct{}{}, seed: maphash.MakeSeed(),
	}
}

// load reads everything from the destination; the partition has passed the
// watermark.
func (w *watch) load(ctx context.Context, watermark bson.Timestamp) error {
	fresh := newWatch(w.store, w.partition)
	fresh.most = w.most
	var err error
	if fresh.colls, err = w.store.collectionStates(ctx); err != nil {
		return err
	}
	entries, err := w.store.requests(ctx, 0)
	if err != nil {
		return err
	}
	for i := range entries {
		if err := fresh.take(&entries[i]); err != nil {
			return err
		}
	}
	fresh.pass(watermark)
	*w = *fresh
	return nil
}

// pass forgets what ends with a watermark. Its entries are harmless until the
// sender removes them.
func (w *watch) pass(watermark bson.Timestamp) {
	for ns, c := range w.colls {
		if !c.reloading || c.through.IsZero() || event.CompareTimes(watermark, c.through) < 0 {
			continue
		}
		c.reloading = false
		w.colls[ns] = c
		if !c.awaiting && !c.asked {
			delete(w.colls, ns)
		}
	}
	if w.settling == 0 {
		return
	}
	for key, d := range w.docs {
		if !d.through.IsZero() && event.CompareTimes(watermark, d.through) >= 0 {
			delete(w.docs, key)
			w.settling--
		}
	}
}

// caughtUp forgets what history did to documents: there is no more of it.
func (w *watch) caughtUp() {
	clear(w.shaken)
	w.shakenAll = false
}

// take takes over an entry of the outbox.
func (w *watch) take(r *requestRecord) error {
	ns, err := event.ParseNamespace(r.NS)
	if err != nil {
		return &stateError{err}
	}
	if r.whole() {
		if r.State == requestShaken {
			w.shakenAll = true
			return nil
		}
		state := w.colls[ns]
		state.asked = !state.awaiting && r.State == requestWanted
		w.colls[ns] = state
		return nil
	}
	key := w.keyOf(ns, r.ID.Key)
	switch r.State {
	case requestShaken:
		if r.Partition == w.partition {
			w.shake(key)
		}
	case requestSettling:
		w.put(ns, key, watched{id: r.ID, through: r.Through})
	default:
		w.put(ns, key, watched{id: r.ID, place: r.Place.position(), dead: r.Dead})
	}
	return nil
}

// keyOf names a document of a source collection. It is valid until the next
// call.
func (w *watch) keyOf(ns event.Namespace, kept []byte) []byte {
	w.key = append(append(append(append(w.key[:0], ns.DB...), '.'), ns.Coll...), 0)
	w.key = append(w.key, kept...)
	return w.key
}

func (w *watch) put(ns event.Namespace, key []byte, d watched) {
	w.remove(ns, key)
	w.docs[string(key)] = d
	if d.through.IsZero() {
		w.wanted[ns]++
	} else {
		w.settling++
	}
}

func (w *watch) remove(ns event.Namespace, key []byte) {
	d, ok := w.docs[string(key)]
	if !ok {
		return
	}
	delete(w.docs, string(key))
	if d.through.IsZero() {
		w.wanted[ns]--
	} else {
		w.settling--
	}
}

func (w *watch) shake(key []byte) { w.shaken[maphash.Bytes(w.seed, key)] = struct{}{} }

func (w *watch) isShaken(key []byte) bool {
	_, ok := w.shaken[maphash.Bytes(w.seed, key)]
	return ok || w.shakenAll
}

// idle reports whether there is nothing to watch for.
func (w *watch) idle() bool { return len(w.docs) == 0 && len(w.colls) == 0 }

// pending returns how many documents and collections this worker waits for.
func (w *watch) pending() (documents, collections int) {
	for _, n := range w.wanted {
		documents += n
	}
	for _, c := range w.colls {
		if c.awaiting || c.asked || c.reloading && c.through.IsZero() {
			collections++
		}
	}
	return documents, collections
}
