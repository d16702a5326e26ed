package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

// side reads one deployment.
type side struct {
	client *mongo.Client
	// after is the cluster time that every read must have reached, so that a
	// secondary which lags is never taken for the truth; zero where there is
	// none.
	after bson.Timestamp
	// bounded says that hint, min and max work.
	bounded bool
}

// collection is a collection of the side, read with majority read concern.
func (s *side) collection(ns event.Namespace) *mongo.Collection {
	return s.client.Database(ns.DB).Collection(ns.Coll, options.Collection().SetReadConcern(readconcern.Majority()))
}

// reader reads a side from one goroutine at a time.
type reader struct {
	*side
	session *mongo.Session
}

// reader starts a session. The caller closes the reader.
func (s *side) reader() (*reader, error) {
	session, err := s.client.StartSession()
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	r := &reader{side: s, session: session}
	if s.after.IsZero() {
		return r, nil
	}
	if err := session.AdvanceOperationTime(&s.after); err != nil {
		session.EndSession(context.Background())
		return nil, fmt.Errorf("advance session: %w", err)
	}
	return r, nil
}

func (r *reader) close(ctx context.Context) { r.session.EndSession(context.WithoutCancel(ctx)) }

// count counts the documents of a collection by reading them all, never from
// metadata.
func (r *reader) count(ctx context.Context, ns event.Namespace) (int64, error) {
	ctx = mongo.NewSessionContext(ctx, r.session)
	cursor, err := r.collection(ns).Aggregate(ctx, bson.A{
		bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: nil}, {Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}}}}},
	})
	if err != nil {
		return 0, fmt.Errorf("count documents ns=%s: %w", ns, err)
	}
	var rows []struct {
		N int64 `bson:"n"`
	}
	if err := cursor.All(ctx, &rows); err != nil {
		return 0, fmt.Errorf("count documents ns=%s: %w", ns, err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	return rows[0].N, nil
}

// span is a range of the _id index: from min, inclusive, to max, exclusive, both
// {_id: bound}; nil where unbounded.
type span struct {
	min, max bson.Raw
}

// documents streams the documents of a collection.
type documents struct {
	ns     event.Namespace
	cursor *mongo.Cursor
	ended  bool
	// tail, unless nil, opens what the cursor leaves out at the end: min
	// without max reads up to MaxKey, exclusive, so that the document whose
	// _id is MaxKey is in no range (seen on 4.4).
	tail func(ctx context.Context) (*mongo.Cursor, error)
}

// open starts reading a span in the order of _id. The caller closes what it
// returns.
func (r *reader) open(ctx context.Context, ns event.Namespace, s span) (*documents, error) {
	byID := bson.D{{Key: "_id", Value: 1}}
	find := options.Find().SetSort(byID)
	if s.min != nil || s.max != nil {
		find.SetHint(byID)
	}
	if s.min != nil {
		find.SetMin(s.min)
	}
	if s.max != nil {
		find.SetMax(s.max)
	}
	cursor, err := r.collection(ns).Find(mongo.NewSessionContext(ctx, r.session), bson.D{}, find)
	if err != nil {
		return nil, fmt.Errorf("find documents ns=%s: %w", ns, err)
	}
	d := &documents{ns: ns, cursor: cursor}
	if s.min != nil && s.max == nil {
		d.tail = func(ctx context.Context) (*mongo.Cursor, error) {
			last := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: bson.MaxKey{}}}}}
			return r.collection(ns).Find(mongo.NewSessionContext(ctx, r.session), last)
		}
	}
	return d, nil
}

func (d *documents) next(ctx context.Context) (bson.Raw, error) {
	if d.ended {
		return nil, nil
	}
	if d.cursor.Next(ctx) {
		if d.tail != nil && d.cursor.Current.Lookup("_id").Type == bson.TypeMaxKey {
			d.tail = nil // this server's range holds it
		}
		return d.cursor.Current, nil
	}
	if err := d.cursor.Err(); err != nil {
		return nil, fmt.Errorf("read documents ns=%s: %w", d.ns, err)
	}
	if d.tail != nil {
		return d.nextOfTail(ctx)
	}
	d.ended = true
	return nil, nil
}

func (d *documents) nextOfTail(ctx context.Context) (bson.Raw, error) {
	if err := d.close(ctx); err != nil {
		return nil, err
	}
	cursor, err := d.tail(ctx)
	if err != nil {
		return nil, fmt.Errorf("find last document ns=%s: %w", d.ns, err)
	}
	d.cursor, d.tail = cursor, nil
	return d.next(ctx)
}

func (d *documents) close(ctx context.Context) error {
	if err := d.cursor.Close(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("close cursor ns=%s: %w", d.ns, err)
	}
	return nil
}

// lookupIn finds documents of a collection by _id. An _id that is a document is
// asked for alone, with $eq, since inside $in one that begins with a $ name
// would be read as an operator.
func (r *reader) lookupIn(ns event.Namespace) lookup {
	return func(ctx context.Context, ids []bson.RawValue, visit func(bson.Raw) error) error {
		plain := make([]bson.RawValue, 0, len(ids))
		for _, id := range ids {
			if id.Type != bson.TypeEmbeddedDocument {
				plain = append(plain, id)
				continue
			}
			if err := r.visit(ctx, ns, bson.D{{Key: "$eq", Value: id}}, visit); err != nil {
				return err
			}
		}
		if len(plain) == 0 {
			return nil
		}
		return r.visit(ctx, ns, bson.D{{Key: "$in", Value: plain}}, visit)
	}
}

// visit calls fn for every document whose _id meets the condition.
func (r *reader) visit(ctx context.Context, ns event.Namespace, condition bson.D, fn func(bson.Raw) error) (err error) {
	cursor, err := r.collection(ns).Find(mongo.NewSessionContext(ctx, r.session), bson.D{{Key: "_id", Value: condition}})
	if err != nil {
		return fmt.Errorf("look documents up ns=%s: %w", ns, err)
	}
	d := &documents{ns: ns, cursor: cursor}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	for {
		doc, err := d.next(ctx)
		if err != nil || doc == nil {
			return err
		}
		if err := fn(doc); err != nil {
			return err
		}
	}
}
