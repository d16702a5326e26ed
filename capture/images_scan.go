package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// readRange reads the documents behind q.next in the order of the _id index:
// min() bounds the index itself, where $gt would see one type of _id only. It
// includes its bound, and without max() the server ends before a document whose
// _id is MaxKey. The order is that of the index, but has to be asked for where
// several shards answer.
func readRange(ctx context.Context, coll *mongo.Collection, q *query, r *reading) error {
	byID := bson.D{{Key: "_id", Value: 1}}
	opts := options.Find().SetHint(byID).SetSort(byID).SetLimit(int64(q.documents) + 1).SetBatchSize(int32(q.documents) + 1)
	anchor := ""
	if len(q.next) > 0 {
		e, _, err := rawbson.Lookup(q.next, "_id")
		if err != nil {
			return fmt.Errorf("read _id: %w", err)
		}
		if e.Type == bson.TypeMaxKey {
			r.last = true
			return nil
		}
		if anchor, err = keyOfID(q.next); err != nil {
			return err
		}
		opts.SetMin(q.next)
	}
	cursor, err := coll.Find(ctx, bson.D{}, opts)
	if err != nil {
		return fmt.Errorf("read range ns=%s: %w", q.at.NS, err)
	}
	defer closeCursor(context.WithoutCancel(ctx), cursor)
	full, err := readCursor(ctx, cursor, q, anchor, r)
	if err != nil || full {
		return err
	}
	r.last = true
	if anchor == "" {
		return nil
	}
	highest, err := coll.FindOne(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: bson.MaxKey{}}}}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read document ns=%s: %w", q.at.NS, err)
	}
	return r.add(highest)
}

// readCursor takes documents over until the reading is full, without the one
// that has the _id anchor.
func readCursor(ctx context.Context, cursor *mongo.Cursor, q *query, anchor string, r *reading) (full bool, err error) {
	size, ids, seen := 0, 0, 0
	for cursor.Next(ctx) {
		if seen++; seen > q.documents {
			return true, nil
		}
		key, err := keyOfID(cursor.Current)
		if err != nil {
			return false, err
		}
		if key == anchor {
			continue
		}
		if err := r.add(cursor.Current); err != nil {
			return false, err
		}
		size += len(cursor.Current)
		ids += len(r.images[len(r.images)-1].id)
		if size >= q.bytes || ids >= maxRangeIDs {
			return true, nil
		}
	}
	if err := cursor.Err(); err != nil {
		return false, fmt.Errorf("read range ns=%s: %w", q.at.NS, err)
	}
	return false, nil
}

// add copies a document into the reading.
func (r *reading) add(document bson.Raw) error {
	id, err := idDocument(document)
	if err != nil {
		return err
	}
	r.images = append(r.images, image{id: id, document: bytes.Clone(document)})
	return nil
}

// naturalScan reads a collection in its natural order with one cursor.
type naturalScan struct {
	source  *mongoImages
	after   bson.Timestamp
	at      *located
	session *mongo.Session
	cursor  *mongo.Cursor
}

// scan opens the cursor. It stays with the collection that it was opened on,
// which must be the one located, now and at the end.
func (s *mongoImages) scan(ctx context.Context, after bson.Timestamp, at *located) (scanner, error) {
	session, err := s.session(after)
	if err != nil {
		return nil, &sourceError{err}
	}
	n := &naturalScan{source: s, after: after, at: at, session: session}
	opts := options.Find().SetNoCursorTimeout(true)
	if at.Capped() {
		opts.SetHint(bson.D{{Key: "$natural", Value: 1}})
	}
	n.cursor, err = s.collection(at.NS).Find(mongo.NewSessionContext(ctx, session), bson.D{}, opts)
	if err != nil {
		n.close(context.WithoutCancel(ctx))
		return nil, &sourceError{fmt.Errorf("scan ns=%s: %w", at.NS, err)}
	}
	if err := n.still(ctx); err != nil {
		n.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return n, nil
}

// still fails if the name is not that of the collection any more.
func (n *naturalScan) still(ctx context.Context) error {
	now, _, err := n.source.locate(ctx, n.after, n.at.NS, n.at.UUID)
	if err == nil && (now == nil || now.NS != n.at.NS || now.UUID != n.at.UUID) {
		err = errMoved
	}
	return err
}

// errMoved says that a collection is no longer the one that was located; the
// event that says so is still to come.
var errMoved error = &transientError{errors.New("the collection was dropped or renamed meanwhile")}

func (n *naturalScan) next(ctx context.Context, limit int) (*reading, error) {
	r, size := &reading{}, 0
	sctx := mongo.NewSessionContext(ctx, n.session)
	for size < limit && !r.last {
		if !n.cursor.Next(sctx) {
			if err := n.cursor.Err(); err != nil {
				return nil, &sourceError{fmt.Errorf("scan ns=%s: %w", n.at.NS, err)}
			}
			if err := n.still(ctx); err != nil {
				return nil, err
			}
			r.last = true
			break
		}
		if err := r.add(n.cursor.Current); err != nil {
			return nil, &sourceError{err}
		}
		size += len(n.cursor.Current)
	}
	var err error
	if r.through, err = n.source.through(ctx, n.session); err != nil {
		return nil, &sourceError{err}
	}
	return r, nil
}

func (n *naturalScan) close(ctx context.Context) {
	if n.cursor != nil {
		closeCursor(ctx, n.cursor)
	}
	n.session.EndSession(ctx)
}
