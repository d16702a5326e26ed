package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// imageSource is where whole documents come from: a MongoDB deployment, or a
// script of a test. Every read sees what was committed at the cluster time
// after or later, and says through which time it may have seen; its methods
// block on the source, may be repeated and are safe for concurrent use.
type imageSource interface {
	// list returns every collection there is, without indexes.
	list(ctx context.Context, after bson.Timestamp) (catalogue []mongodb.CatalogEntry, through bson.Timestamp, err error)
	// locate finds a collection by its UUID or, without one, its name; nil if
	// there is none.
	locate(ctx context.Context, after bson.Timestamp, ns event.Namespace, uuid event.UUID) (found *located, through bson.Timestamp, err error)
	// read reads documents of a collection, by their _ids or the next ones in
	// the order of the _id index.
	read(ctx context.Context, q *query) (*reading, error)
	// scan begins to read a whole collection in its natural order.
	scan(ctx context.Context, after bson.Timestamp, at *located) (scanner, error)
}

// scanner is a pass over a whole collection.
type scanner interface {
	// next returns the next documents, of about that many bytes.
	next(ctx context.Context, limit int) (*reading, error)
	// close gives the server's resources back.
	close(ctx context.Context)
}

// located is a collection as the source lists it.
type located struct {
	mongodb.CatalogEntry
	// collated says that different _ids may be equal here.
	collated bool
	// ranges says that it can be read in the order of its _id index.
	ranges bool
}

// query asks for documents.
type query struct {
	after bson.Timestamp
	at    *located
	// ids are the documents wanted, each {_id: …}; nil asks for those behind
	// next, which is empty at the start.
	ids  [][]byte
	next bson.Raw
	// documents and bytes are about how many are returned at most.
	documents, bytes int
	// exact asks for the state at after itself, where the source can tell it.
	exact bool
}

// reading is what a read saw. The caller owns the bytes.
type reading struct {
	// images are documents, and for those asked for by their _ids also the
	// missing ones. What did not fit is not among them.
	images []image
	// through is the source's operation time after the read.
	through bson.Timestamp
	// exact says that the images are the state at the query's after, which
	// through then is.
	exact bool
	// last says that nothing follows.
	last bool
}

// image is a document, or that there is none.
type image struct {
	// id is {_id: …}.
	id bson.Raw
	// document is nil where there is none.
	document bson.Raw
}

// mongoImages reads documents of a MongoDB deployment, at its primary: only
// there everything that was published before is known for certain.
type mongoImages struct {
	client *mongo.Client
	// standin is a server that has neither sessions nor majorities.
	standin bool
	// presentOnly says that the server refuses to read at a time of the past.
	presentOnly atomic.Bool
}

// newMongoImages asks the deployment what it is.
func newMongoImages(ctx context.Context, client *mongo.Client) (*mongoImages, error) {
	d, err := mongodb.Describe(ctx, client)
	if err != nil {
		return nil, &sourceError{err}
	}
	return &mongoImages{client: client, standin: d.Standin}, nil
}

// session starts a causally consistent session whose reads see what was
// committed at that time.
func (s *mongoImages) session(after bson.Timestamp) (*mongo.Session, error) {
	session, err := s.client.StartSession(options.Session().SetCausalConsistency(true))
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	if s.standin {
		return session, nil
	}
	if err := session.AdvanceOperationTime(&after); err != nil {
		session.EndSession(context.Background())
		return nil, fmt.Errorf("advance session: %w", err)
	}
	return session, nil
}

// through is the operation time after the session's reads.
func (s *mongoImages) through(ctx context.Context, session *mongo.Session) (bson.Timestamp, error) {
	if t := session.OperationTime(); t != nil && !s.standin {
		return *t, nil
	}
	return mongodb.MajorityTime(ctx, s.client)
}

// inSession runs fn in a session and says through which time it may have seen.
func (s *mongoImages) inSession(ctx context.Context, after bson.Timestamp, fn func(context.Context) error) (bson.Timestamp, error) {
	session, err := s.session(after)
	if err != nil {
		return bson.Timestamp{}, &sourceError{err}
	}
	defer session.EndSession(context.WithoutCancel(ctx))
	if err := fn(mongo.NewSessionContext(ctx, session)); err != nil {
		return bson.Timestamp{}, &sourceError{err}
	}
	through, err := s.through(ctx, session)
	if err != nil {
		return through, &sourceError{err}
	}
	return through, nil
}

func (s *mongoImages) list(ctx context.Context, after bson.Timestamp) (catalogue []mongodb.CatalogEntry, through bson.Timestamp, err error) {
	through, err = s.inSession(ctx, after, func(ctx context.Context) error {
		catalogue, err = mongodb.ListNames(ctx, s.client)
		return err
	})
	return catalogue, through, err
}

func (s *mongoImages) locate(ctx context.Context, after bson.Timestamp, ns event.Namespace, uuid event.UUID) (found *located, through bson.Timestamp, err error) {
	through, err = s.inSession(ctx, after, func(ctx context.Context) error {
		db := s.client.Database(ns.DB, options.Database().SetReadPreference(readpref.Primary()))
		entry, err := mongodb.FindCollection(ctx, db, ns.Coll, uuid)
		if err != nil || entry == nil {
			return err
		}
		found = &located{CatalogEntry: *entry, collated: collated(entry.Options)}
		if entry.View || entry.Timeseries || entry.Capped() {
			return nil
		}
		found.ranges, err = mongodb.ProbeBoundedFind(ctx, s.collection(entry.NS))
		return err
	})
	return found, through, err
}

func (s *mongoImages) collection(ns event.Namespace) *mongo.Collection {
	return s.client.Database(ns.DB).Collection(ns.Coll,
		options.Collection().SetReadConcern(readconcern.Majority()).SetReadPreference(readpref.Primary()))
}

func (s *mongoImages) read(ctx context.Context, q *query) (*reading, error) {
	if q.exact && q.ids != nil && !s.standin && !s.presentOnly.Load() {
		if r, err := s.readPast(ctx, q); r != nil || err != nil {
			return r, err
		}
	}
	r := &reading{}
	through, err := s.inSession(ctx, q.after, func(ctx context.Context) error {
		coll := s.collection(q.at.NS)
		if q.ids == nil {
			return readRange(ctx, coll, q, r)
		}
		return readDocuments(ctx, findPresent(coll), q, r)
	})
	r.through = through
	if err != nil {
		return nil, err
	}
	return r, nil
}

// readDocuments reads those that are asked for, together where $in compares
// them as they are, else one by one.
func readDocuments(ctx context.Context, find finder, q *query, r *reading) error {
	together, alone, err := splitIDs(q)
	if err != nil {
		return err
	}
	size := 0
	if len(together) > 0 {
		found, full, err := readTogether(ctx, find, q, together, r)
		if err != nil {
			return err
		}
		if size = found; full {
			return nil
		}
	}
	for _, id := range alone {
		if size >= q.bytes {
			return nil
		}
		e, _, err := rawbson.Lookup(id, "_id")
		if err != nil {
			return fmt.Errorf("read _id: %w", err)
		}
		filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: e.RawValue()}}}}
		document, err := find.one(ctx, filter)
		if err != nil {
			return fmt.Errorf("read document ns=%s: %w", q.at.NS, err)
		}
		size += len(document)
		r.images = append(r.images, image{id: id, document: document})
	}
	return nil
}

// splitIDs tells _ids that may stand in one $in, by their normal form, from
// those that may not: in a collection with a collation, where a document is
// found under another _id, and documents that look like operators.
func splitIDs(q *query) (together map[string]bson.Raw, alone []bson.Raw, err error) {
	together = map[string]bson.Raw{}
	for _, id := range q.ids {
		e, _, err := rawbson.Lookup(id, "_id")
		if err != nil {
			return nil, nil, fmt.Errorf("read _id: %w", err)
		}
		if q.at.collated || e.Type == bson.TypeRegex || e.Type == bson.TypeEmbeddedDocument && likeOperator(e.Value) {
			alone = append(alone, id)
			continue
		}
		key, err := event.AppendIDKey(nil, e.RawValue())
		if err != nil {
			return nil, nil, err
		}
		together[string(key)] = id
	}
	return together, alone, nil
}

// likeOperator reports whether a query might take the document for operators.
func likeOperator(document []byte) bool {
	body, err := rawbson.Body(document)
	for err == nil && len(body) > 0 {
		var e rawbson.Element
		if e, body, err = rawbson.Next(body); err == nil && len(e.Name) > 0 && e.Name[0] == '$' {
			return true
		}
	}
	return err != nil
}

// readTogether reads documents by one $in. Full says that more did not fit;
// then what was not found may be there.
func readTogether(ctx context.Context, find finder, q *query, wanted map[string]bson.Raw, r *reading) (size int, full bool, err error) {
	values := make(bson.A, 0, len(wanted))
	for _, id := range wanted {
		e, _, err := rawbson.Lookup(id, "_id")
		if err != nil {
			return 0, false, fmt.Errorf("read _id: %w", err)
		}
		values = append(values, e.RawValue())
	}
	cursor, err := find(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: values}}}})
	if err != nil {
		return 0, false, fmt.Errorf("read documents ns=%s: %w", q.at.NS, err)
	}
	defer closeCursor(context.WithoutCancel(ctx), cursor)
	for cursor.Next(ctx) {
		key, err := keyOfID(cursor.Current)
		if err != nil {
			return 0, false, err
		}
		id, asked := wanted[key]
		if !asked {
			return 0, false, fmt.Errorf("read documents ns=%s: the server answered with a document that was not asked for", q.at.NS)
		}
		delete(wanted, key)
		size += len(cursor.Current)
		r.images = append(r.images, image{id: id, document: bytes.Clone(cursor.Current)})
		if size >= q.bytes && len(wanted) > 0 {
			return size, true, nil
		}
	}
	if err := cursor.Err(); err != nil {
		return 0, false, fmt.Errorf("read documents ns=%s: %w", q.at.NS, err)
	}
	for _, id := range wanted {
		r.images = append(r.images, image{id: id})
	}
	return size, false, nil
}

// keyOfID returns the normal form of a document's _id.
func keyOfID(document []byte) (string, error) {
	e, found, err := rawbson.Lookup(document, "_id")
	if err != nil {
		return "", fmt.Errorf("read _id: %w", err)
	}
	if !found {
		return "", errors.New("read _id: the document has none")
	}
	key, err := event.AppendIDKey(nil, e.RawValue())
	if err != nil {
		return "", err
	}
	return string(key), nil
}

// idDocument returns {_id: …} of a document, in bytes of its own.
func idDocument(document []byte) (bson.Raw, error) {
	e, found, err := rawbson.Lookup(document, "_id")
	if err != nil {
		return nil, fmt.Errorf("read _id: %w", err)
	}
	if !found {
		return nil, errors.New("read _id: the document has none")
	}
	dst, at := rawbson.Begin(make([]byte, 0, len(e.Raw)+8))
	return rawbson.End(append(dst, e.Raw...), at), nil
}
