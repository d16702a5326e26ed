package capture

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// model is what collections hold after some events.
type model struct {
	t     testing.TB
	colls map[event.Namespace]*modelColl
}

type modelColl struct {
	uuid    event.UUID
	options bson.Raw
	docs    map[string]bson.Raw
}

func newModel(t testing.TB) *model { return &model{t: t, colls: map[event.Namespace]*modelColl{}} }

func modelKey(t testing.TB, id bson.RawValue) string {
	t.Helper()
	key, err := event.AppendIDKey(nil, id)
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

func (m *model) coll(ns event.Namespace) *modelColl {
	if m.colls[ns] == nil {
		m.colls[ns] = &modelColl{docs: map[string]bson.Raw{}}
	}
	return m.colls[ns]
}

// byUUID returns a collection whatever its name; it is empty if there is none.
func (m *model) byUUID(uuid event.UUID) *modelColl {
	for _, c := range m.colls {
		if c.uuid == uuid {
			return c
		}
	}
	return &modelColl{}
}

// apply does to the collections what an event says; an update of a document
// that is not there does nothing.
func (m *model) apply(e *event.Event) {
	m.t.Helper()
	switch e.Op {
	case event.OpCreate:
		*m.coll(e.NS) = modelColl{uuid: e.UUID, options: bytes.Clone(e.DDL), docs: map[string]bson.Raw{}}
	case event.OpReload:
		m.colls[e.NS] = &modelColl{uuid: e.UUID, docs: map[string]bson.Raw{}}
	case event.OpDrop:
		delete(m.colls, e.NS)
	case event.OpRename:
		n := namingOf(e)
		if c := m.colls[e.NS]; c != nil {
			m.colls[n.to] = c
			delete(m.colls, e.NS)
		}
	case event.OpInsert, event.OpReplace:
		m.coll(e.NS).docs[modelKey(m.t, e.ID())] = bytes.Clone(e.Document)
	case event.OpDelete:
		delete(m.coll(e.NS).docs, modelKey(m.t, e.ID()))
	case event.OpRefresh:
		key := modelKey(m.t, e.ID())
		if e.Document == nil {
			delete(m.coll(e.NS).docs, key)
			return
		}
		m.coll(e.NS).docs[key] = bytes.Clone(e.Document)
	case event.OpUpdate:
		key := modelKey(m.t, e.ID())
		held, ok := m.coll(e.NS).docs[key]
		if !ok {
			return
		}
		after, err := e.Delta.Apply(held, event.Lenient)
		if err != nil {
			m.t.Fatal(err)
		}
		m.coll(e.NS).docs[key] = after
	case event.OpCreateIndexes, event.OpDropIndexes, event.OpModify, event.OpReloadEnd, event.OpWatermark:
	}
}

// inOrder merges the partitions by position, each DDL event once: a refresh
// comes behind what happened at its place.
func inOrder(t testing.TB, records []record) []event.Event {
	t.Helper()
	var events []event.Event
	seen := map[event.Position]bool{}
	last := map[int32]event.Position{}
	for _, r := range records {
		e := r.event
		if e.Op == event.OpWatermark {
			continue
		}
		if e.Position.Compare(last[r.partition]) < 0 {
			t.Errorf("partition %d goes back to %s behind %s", r.partition, &e, last[r.partition])
		}
		last[r.partition] = e.Position
		if e.Op.IsDDL() {
			if seen[e.Position] {
				continue
			}
			seen[e.Position] = true
		}
		events = append(events, e)
	}
	rank := func(e *event.Event) int {
		if e.Op == event.OpRefresh {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(events, func(a, b event.Event) int {
		return cmp.Or(a.Position.Compare(b.Position), cmp.Compare(rank(&a), rank(&b)))
	})
	return events
}

// promised is an image of a later state: one that the document has up to the
// cluster time that the image names.
type promised struct {
	event event.Event
	ns    event.Namespace
	seen  bool
}

// exactness counts what checkImages saw.
type exactness struct{ images, missing, later, reloads int }

// checkImages replays the stream. Every refresh must be the state at its place,
// or at the cluster time that it names. What a destination would have that
// starts with nothing and is lenient is returned.
func checkImages(t testing.TB, records []record) (*model, exactness) {
	t.Helper()
	truth, replica := newModel(t), newModel(t)
	var seen exactness
	var due []promised
	matches := func(e *event.Event, ns event.Namespace) bool {
		return bytes.Equal(e.Document, truth.coll(ns).docs[modelKey(t, e.ID())])
	}
	look := func() {
		for i := range due {
			due[i].seen = due[i].seen || matches(&due[i].event, due[i].ns)
		}
	}
	settle := func(next bson.Timestamp, end bool) {
		due = slices.DeleteFunc(due, func(p promised) bool {
			if !end && event.CompareTimes(next, p.event.AsOf) <= 0 {
				return false
			}
			if !p.seen {
				t.Errorf("%s _id %s as of %v: image %s was no state until then", &p.event, p.event.ID(), p.event.AsOf, p.event.Document)
			}
			return true
		})
	}
	for _, e := range inOrder(t, records) {
		settle(e.Position.Time, false)
		replica.apply(&e)
		switch e.Op {
		case event.OpRefresh:
			seen.images++
			if e.Document == nil {
				seen.missing++
			}
			if e.AsOf.IsZero() {
				if !matches(&e, e.NS) {
					t.Errorf("%s _id %s: image %s, the state is %s", &e, e.ID(), e.Document, truth.coll(e.NS).docs[modelKey(t, e.ID())])
				}
			} else {
				seen.later++
				due = append(due, promised{event: e, ns: e.NS})
			}
		case event.OpReload:
			seen.reloads++
		case event.OpRename:
			n := namingOf(&e)
			for i := range due {
				if due[i].ns == e.NS {
					due[i].ns = n.to
				}
			}
			truth.apply(&e)
		default:
			truth.apply(&e)
		}
		look()
	}
	settle(bson.Timestamp{}, true)
	return replica, seen
}

// equal compares two models' documents of selected collections.
func equalModels(t testing.TB, got, want *model, selected func(db, coll string) bool) {
	t.Helper()
	for ns, w := range want.colls {
		if !selected(ns.DB, ns.Coll) {
			continue
		}
		g := got.coll(ns)
		for key, doc := range w.docs {
			if !bytes.Equal(g.docs[key], doc) {
				t.Errorf("%s %s: replayed %s, the source has %s", ns, key, g.docs[key], doc)
			}
		}
		for key := range g.docs {
			if _, ok := w.docs[key]; !ok {
				t.Errorf("%s %s: replayed, the source has none", ns, key)
			}
		}
	}
}
