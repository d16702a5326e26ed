package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// requestsCollection is the outbox: what the group needs whole from the source,
// and what it must know of documents until that has come.
const requestsCollection = "requests"

// The states of an entry of the outbox.
const (
	// requestWanted: the image of the document, or the whole collection, is
	// needed. Until it comes, deltas of the document are passed over.
	requestWanted = "wanted"
	// requestBegun: the reload of the collection has begun.
	requestBegun = "begun"
	// requestSettling: the document has an image as of a later time; until the
	// stream has passed that, its events are history.
	requestSettling = "settling"
	// requestShaken: history was replayed over the document that took a field
	// from it. A field that is added before its end may not be new.
	requestShaken = "shaken"
	// requestDead: the image that was asked for is a dead letter itself. It is
	// not asked for again, except by the operator.
	requestDead = "dead"
)

// requestID names an entry.
type requestID struct {
	Pipeline string `bson:"pipeline"`
	Group    string `bson:"group"`
	// Coll is the source collection's UUID, which renames keep, or its name
	// where the source has none.
	Coll string `bson:"coll"`
	// Key is the document's _id in normal form, or a hash of a long one; empty
	// for the collection itself.
	Key []byte `bson:"key"`
}

// requestRecord is an entry of the outbox. It is written in the transaction that
// moves the offset past the event which made it necessary (where there are no
// transactions: before the offset), and removed in that of the event which makes
// it good.
type requestRecord struct {
	ID    requestID `bson:"_id"`
	State string    `bson:"state"`
	// NS is the collection's present name at the source, UUID its UUID.
	NS   string `bson:"ns"`
	UUID string `bson:"uuid"`
	// Doc is {_id: …} of a document, as bytes: no server stores every _id's
	// field names.
	Doc    []byte `bson:"doc,omitempty"`
	Reason string `bson:"reason"`
	// Dead says that an event of the document is a dead letter, and so are its
	// updates until an image is applied. Discarded says that the operator knows.
	Dead      bool `bson:"dead,omitempty"`
	Discarded bool `bson:"discarded,omitempty"`
	// Place is the event that made the entry; only later ones make it good.
	Place placeRecord `bson:"place"`
	// Through ends the state requestSettling.
	Through bson.Timestamp `bson:"through,omitempty"`
	// Partition is where the event came from.
	Partition int32     `bson:"partition"`
	Asked     time.Time `bson:"asked"`
	// Request is the ID under which the need was sent last; Sent is the offset
	// of that record in the control topic plus one, zero before.
	Request string    `bson:"request"`
	Sent    int64     `bson:"sent"`
	SentAt  time.Time `bson:"sent_at"`
	// fresh says that the entry was not read from the outbox.
	fresh bool
}

// whole reports whether the entry is about a collection.
func (r *requestRecord) whole() bool { return len(r.ID.Key) == 0 }

// maxKeptKey is the longest _id in normal form that stands in an entry's _id.
const maxKeptKey = 256

// keptKey is what stands for an _id in an entry.
func keptKey(id bson.RawValue) ([]byte, error) {
	key, err := event.AppendIDKey(nil, id)
	if err != nil {
		return nil, err
	}
	if len(key) > maxKeptKey {
		sum := sha256.Sum256(key)
		return sum[:], nil
	}
	return key, nil
}

// collKey is what stands for a source collection in an entry.
func collKey(ns event.Namespace, uuid event.UUID) string {
	if uuid.IsZero() {
		return ns.String()
	}
	return uuid.String()
}

func (s *store) requestID(ns event.Namespace, uuid event.UUID, key []byte) requestID {
	return requestID{Pipeline: s.id.Pipeline, Group: s.id.Group, Coll: collKey(ns, uuid), Key: key}
}

// documentRequest makes an entry about the document of a change.
func (s *store) documentRequest(c change, key []byte, state, reason string) requestRecord {
	id := c.docID()
	doc, at := rawbson.Begin(nil)
	doc = rawbson.AppendValue(doc, id.Type, "_id", id.Value)
	return requestRecord{
		ID: s.requestID(c.NS, c.UUID, key), State: state, NS: c.NS.String(), UUID: c.UUID.String(), Doc: rawbson.End(doc, at),
		Reason: reason, Place: placeOf(c.Position), Asked: time.Now().UTC(),
	}
}

// reloadRequest makes an entry about a collection. Its request's ID follows from
// where it became necessary, so that whoever finds the same makes the same.
func (s *store) reloadRequest(ns event.Namespace, uuid event.UUID, at event.Position, reason string) requestRecord {
	id := s.requestID(ns, uuid, []byte{})
	sum := sha256.Sum256([]byte(id.Coll))
	return requestRecord{
		ID: id, State: requestWanted, NS: ns.String(), UUID: uuid.String(), Reason: reason, Place: placeOf(at), Asked: time.Now().UTC(), fresh: true,
		Request: fmt.Sprintf("%s/%x/%d.%d.%d", s.id.Group, sum[:8], at.Time.T, at.Time.I, at.Index),
	}
}

func (s *store) ofGroup() bson.D {
	return bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}, {Key: "_id.group", Value: s.id.Group}}
}

// requests reads entries of the group, those that the filter adds to; n > 0
// bounds how many.
func (s *store) requests(ctx context.Context, n int64, filter ...bson.E) ([]requestRecord, error) {
	opts := options.Find()
	if n > 0 {
		opts = opts.SetLimit(n)
	}
	cursor, err := s.db.Collection(requestsCollection).Find(ctx, append(s.ofGroup(), filter...), opts)
	if err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	var list []requestRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read requests: %w", err)
	}
	return list, nil
}

// writeRequests removes and writes entries; in a transaction's context as part
// of it. It may be repeated.
func (s *store) writeRequests(ctx context.Context, gone []requestID, put []requestRecord) error {
	if len(gone)+len(put) == 0 {
		return nil
	}
	models := make([]mongo.WriteModel, 0, len(gone)+len(put))
	for _, id := range gone {
		models = append(models, mongo.NewDeleteOneModel().SetFilter(byID(id)))
	}
	for i := range put {
		if put[i].whole() && put[i].fresh {
			// Another partition may have asked already.
			models = append(models, mongo.NewUpdateOneModel().SetFilter(byID(put[i].ID)).SetUpdate(bson.D{{Key: "$setOnInsert", Value: &put[i]}}).SetUpsert(true))
			continue
		}
		models = append(models, mongo.NewReplaceOneModel().SetFilter(byID(put[i].ID)).SetReplacement(&put[i]).SetUpsert(true))
	}
	if _, err := s.db.Collection(requestsCollection).BulkWrite(ctx, models); err != nil {
		return fmt.Errorf("write requests: %w", err)
	}
	return nil
}

// askReload writes down that a collection is needed whole, unless that is down
// already. It may be repeated.
func (s *store) askReload(ctx context.Context, r requestRecord) error {
	_, err := s.db.Collection(requestsCollection).InsertOne(ctx, &r)
	if err != nil && !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("write request for reload ns=%s: %w", r.NS, sanitize(err))
	}
	return nil
}

// dropRequests removes all entries about a source collection: of that UUID, and
// of that name. It may be repeated.
func (s *store) dropRequests(ctx context.Context, ns event.Namespace, uuid event.UUID) error {
	which := bson.A{bson.D{{Key: "ns", Value: ns.String()}}}
	if !uuid.IsZero() {
		which = append(which, bson.D{{Key: "_id.coll", Value: uuid.String()}})
	}
	_, err := s.db.Collection(requestsCollection).DeleteMany(ctx, append(s.ofGroup(), bson.E{Key: "$or", Value: which}))
	if err != nil {
		return fmt.Errorf("remove requests ns=%s: %w", ns, sanitize(err))
	}
	return nil
}

// renameRequests has the entries about a collection follow its rename, into the
// group of another store where the rules say so, and removes those about the
// collection that it replaced. A reload that had begun under the old name is
// asked for again, under the same ID: where capture still has it in hand, that
// changes nothing. It may be repeated.
func (s *store) renameRequests(ctx context.Context, other *store, from, to event.Namespace, uuid event.UUID) error {
	coll := s.db.Collection(requestsCollection)
	replaced := append(other.ofGroup(), field("ns", to.String()), bson.E{Key: "_id.coll", Value: bson.D{{Key: "$ne", Value: collKey(from, uuid)}}})
	if _, err := coll.DeleteMany(ctx, replaced); err != nil {
		return fmt.Errorf("rename requests from=%s to=%s: %w", from, to, sanitize(err))
	}
	entries, err := s.requests(ctx, 0, field("ns", from.String()))
	if err != nil {
		return err
	}
	var gone []requestID
	for i := range entries {
		e := &entries[i]
		if other.id != s.id {
			gone = append(gone, e.ID)
			e.ID.Group, e.Sent = other.id.Group, 0
		}
		if e.State == requestBegun {
			e.State, e.Sent = requestWanted, 0
		}
		e.NS = to.String()
	}
	if err := other.writeRequests(ctx, nil, entries); err != nil {
		return sanitize(err)
	}
	return sanitize(s.writeRequests(ctx, gone, nil))
}

// beginReload takes down that the reload of a collection has begun: what was
// wanted of its documents comes with it. It may be repeated.
func (s *store) beginReload(ctx context.Context, ns event.Namespace, request string) error {
	coll := s.db.Collection(requestsCollection)
	documents := append(s.ofGroup(), field("ns", ns.String()), bson.E{Key: "_id.key", Value: bson.D{{Key: "$ne", Value: []byte{}}}})
	_, err := coll.DeleteMany(ctx, documents)
	if err == nil {
		_, err = coll.UpdateMany(ctx, s.wholeOf(ns), set(field("state", requestBegun), field("request", request)))
	}
	if err != nil {
		return fmt.Errorf("record reload ns=%s: %w", ns, sanitize(err))
	}
	return nil
}

// endReload removes the request for a collection that has come whole.
func (s *store) endReload(ctx context.Context, ns event.Namespace) error {
	if _, err := s.db.Collection(requestsCollection).DeleteMany(ctx, s.wholeOf(ns)); err != nil {
		return fmt.Errorf("remove request for reload ns=%s: %w", ns, sanitize(err))
	}
	return nil
}

func (s *store) wholeOf(ns event.Namespace) bson.D {
	return append(s.ofGroup(), field("ns", ns.String()), field("_id.key", []byte{}))
}

// collectionStates reads which collections of the group are not simply there.
func (s *store) collectionStates(ctx context.Context) (map[event.Namespace]collectionState, error) {
	filter := append(s.ofGroup(), bson.E{Key: "$or", Value: bson.A{
		bson.D{{Key: "awaiting", Value: true}}, bson.D{{Key: "reload.request", Value: bson.D{{Key: "$exists", Value: true}}}},
	}})
	cursor, err := s.db.Collection(collectionsCollection).Find(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("read collection records: %w", err)
	}
	var list []collectionRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read collection records: %w", err)
	}
	states := make(map[event.Namespace]collectionState, len(list))
	for _, c := range list {
		ns, err := event.ParseNamespace(c.ID.NS)
		if err != nil {
			return nil, &stateError{fmt.Errorf("read collection record: %w", err)}
		}
		states[ns] = c.state()
	}
	return states, nil
}

// incomplete says what the group still waits for from the source; empty when it
// waits for nothing.
func (s *store) incomplete(ctx context.Context) (string, error) {
	states, err := s.collectionStates(ctx)
	if err != nil {
		return "", err
	}
	for ns, c := range states {
		if c.awaiting || c.reloading && c.through.IsZero() {
			return fmt.Sprintf("collection %s is being reloaded", ns), nil
		}
	}
	wanted, err := s.requests(ctx, 1, field("state", requestWanted))
	if err != nil || len(wanted) == 0 {
		return "", err
	}
	return fmt.Sprintf("documents of %s were asked for whole and have not come yet", wanted[0].NS), nil
}

// errOrder is returned, wrapped, when history that was replayed over a later
// state has left the order of a document's fields in doubt.
var errOrder = errors.New("the update does not say whether a field that it sets was new, and the document had lost one before")

// refreshable reports whether a whole image of the document mends the error.
func refreshable(err error) bool {
	for _, one := range []error{errMissing, errOrder, event.ErrDeltaMismatch, event.ErrDeltaAmbiguous, event.ErrDeltaTooLarge} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// refreshReason is what made an image necessary, without anything of the
// document.
func refreshReason(err error) string {
	switch {
	case errors.Is(err, errMissing):
		return "an update of a document that the destination does not hold"
	case errors.Is(err, errOrder):
		return "the order of its fields is in doubt"
	case errors.Is(err, event.ErrDeltaAmbiguous):
		return "an update that can be read in two ways"
	case errors.Is(err, event.ErrDeltaTooLarge):
		return "an update that makes the held document too large"
	}
	return "an update that does not fit the held document"
}
