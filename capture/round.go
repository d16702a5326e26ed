package capture

import (
	"bytes"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// imageDocuments and imageBytes bound one read of documents, and with it
	// what of them is in memory and in one transaction.
	imageDocuments = 1000
	imageBytes     = 8 << 20
	// maxRangeIDs bounds the _ids of one range: those whose documents changed
	// meanwhile are stored with the reload's progress.
	maxRangeIDs = 1 << 20
	// maxTouched bounds the keys noted of a round; beyond it every document
	// counts as changed.
	maxTouched = 8 << 20
	// maxNamings bounds the DDL events noted of a round.
	maxNamings = 10_000
)

// round is one read, and what the stream did since it was asked for.
//
// What a read saw at some time between from and through is the state at every
// place between them for the documents without an event there; so it is at the
// place where the round is completed, if no event came up to that place.
type round struct {
	job job
	// of are the requests that it serves: several where the same collection's
	// documents are wanted.
	of []*request
	// hold says that the stream waits at the round's beginning: its events are
	// looked at before they are published.
	hold bool
	// through is how far the stream has been looked at.
	through bson.Timestamp

	// prefix is "db.coll|" of the collection whose documents are read.
	prefix []byte
	// touched are the keys of its documents that events came for.
	touched      map[string]struct{}
	touchedBytes int
	// everything says that no document is certain.
	everything bool
	namings    []naming
	// result is nil until the reader has answered.
	result *result
}

// newRound returns a round of documents of a collection.
func newRound(at *located) *round {
	return &round{prefix: append([]byte(at.NS.String()), '|'), touched: map[string]struct{}{}}
}

// see takes note of a batch's events. Its records have the keys of documents
// still, whatever their class.
func (r *round) see(b *batch) {
	for i := range b.ddl {
		if len(r.namings) < maxNamings {
			r.namings = append(r.namings, namingOf(&b.ddl[i].event))
		} else {
			r.everything = true
		}
	}
	if !b.last.IsZero() && !b.partial && b.err == nil {
		r.through = b.last.Time
	}
	if r.prefix == nil || r.everything {
		return
	}
	for i := range b.records {
		key := b.records[i].Key
		if b.routes[i].prefix != len(r.prefix) || !bytes.HasPrefix(key, r.prefix) {
			continue
		}
		if _, ok := r.touched[string(key)]; ok {
			continue
		}
		r.touched[string(key)] = struct{}{}
		if r.touchedBytes += len(key); r.touchedBytes > maxTouched {
			r.everything = true
			return
		}
	}
}

// changed reports whether an event came for a document, or for one that its
// collection may hold to be the same.
func (r *round) changed(at *located, id bson.Raw) (bool, error) {
	if r.everything || at.collated && len(r.touched) > 0 {
		return true, nil
	}
	if len(r.touched) == 0 {
		return false, nil
	}
	v, err := id.LookupErr("_id")
	if err != nil {
		return false, err
	}
	key, err := route.AppendKey(nil, at.NS, v, route.ByDocument)
	if err != nil {
		return false, err
	}
	_, ok := r.touched[string(key)]
	return ok, nil
}

// moved reports whether the collection may have become another one meanwhile.
func (r *round) moved(ns event.Namespace, uuid event.UUID) bool {
	if len(r.namings) >= maxNamings {
		return true
	}
	for i := range r.namings {
		if r.namings[i].moves(ns, uuid) {
			return true
		}
	}
	return false
}

// altered reports whether the collection's options or indexes may have changed
// meanwhile.
func (r *round) altered(ns event.Namespace, uuid event.UUID) bool {
	if len(r.namings) >= maxNamings {
		return true
	}
	for i := range r.namings {
		if r.namings[i].concerns(ns, uuid) {
			return true
		}
	}
	return false
}
