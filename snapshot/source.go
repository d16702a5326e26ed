package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// closeTimeout bounds the end of a cursor and its session, which also happens
// after the end of the context that they were used with.
const closeTimeout = 5 * time.Second

// errAnchorGone says that a scan in natural order did not come by the document
// that it should go on behind.
var errAnchorGone = errors.New("the document to go on behind is gone")

// errNoClusterTime is what a replica set answers with for a moment after its
// first start, before it has made the keys that sign its times.
var errNoClusterTime = errors.New("the source does not tell its cluster time yet, without which no read can be held to the run's start")

// documents is one pass over a chunk. It belongs to one goroutine.
type documents interface {
	// Next returns the next document, which is valid until the following call,
	// or nil at the end. It blocks on the source.
	Next(ctx context.Context) (bson.Raw, error)
	// Through is the source's operation time of the last reply; zero where
	// the source does not tell it.
	Through() bson.Timestamp
	// KeepAlive tells the source that the pass is still wanted although
	// nothing is being read. It must be called more often than every 30
	// minutes, the life of an unused session.
	KeepAlive(ctx context.Context) error
	// Close ends the pass at the source. It blocks a few seconds at most.
	Close()
}

// source reads chunks from the source deployment.
type source struct {
	client *mongo.Client
	// after is the cluster time that no read is older than; clusterTime is the
	// time at or after it that a server gave out and signed, nil where servers
	// do not.
	after       bson.Timestamp
	clusterTime bson.Raw
	// preference says which members are read; nil leaves it to the connection
	// string. Whichever it is waits until it has come to after.
	preference *readpref.ReadPref
	// throttle limits queries; nil limits nothing.
	throttle *throttle.Limiter
	// sharded says that a router answers, for several shards.
	sharded bool
}

// newSource prepares reads at or after w, and at or after what is majority
// committed now: every change that capture had published before the starting
// offsets was so then, and will be in what is read. It also asks the primary for
// its cluster time, because a member that has not heard of a time refuses to
// wait for it; with each read comes the proof that it exists. Without one, reads
// could not be held to w: only a stand-in, which has one state, may do without.
func newSource(ctx context.Context, client *mongo.Client, d mongodb.Deployment, w bson.Timestamp, preference *readpref.ReadPref) (*source, error) {
	now, err := mongodb.MajorityTime(ctx, client)
	if err != nil {
		return nil, err
	}
	session, err := client.StartSession()
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	defer session.EndSession(ctx)
	ping := client.Database("admin").RunCommand(mongo.NewSessionContext(ctx, session), bson.D{{Key: "ping", Value: 1}})
	if err := ping.Err(); err != nil {
		return nil, fmt.Errorf("read cluster time: %w", err)
	}
	clusterTime := session.ClusterTime()
	if clusterTime == nil && !d.Standin {
		return nil, errNoClusterTime
	}
	return &source{client: client, sharded: d.Sharded, after: later(w, now), clusterTime: clusterTime, preference: preference}, nil
}

// open begins a pass over c from where progress stands: behind the document
// Next, or from the chunk's start. The caller closes it.
func (s *source) open(ctx context.Context, c *state.Chunk, progress *state.ChunkProgress) (documents, error) {
	session, err := s.session(progress.ReadThrough)
	if err != nil {
		return nil, err
	}
	p := &pass{coll: s.collection(c), session: session, ordered: !inNaturalOrder(c), merged: s.sharded && !inNaturalOrder(c), after: progress.Next, digest: progress.Digest, throttle: s.throttle}
	if err := p.begin(ctx, c); err != nil {
		p.Close()
		return nil, err
	}
	if p.merged {
		return newMergedPass(p), nil
	}
	return p, nil
}

// session is causally consistent and advanced: the server answers from a state
// that is not older than this run may read, nor than what was read already.
func (s *source) session(read bson.Timestamp) (*mongo.Session, error) {
	session, err := s.client.StartSession(options.Session().SetCausalConsistency(true))
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	if s.clusterTime == nil {
		return session, nil
	}
	after := later(s.after, read)
	if err := errors.Join(session.AdvanceClusterTime(s.clusterTime), session.AdvanceOperationTime(&after)); err != nil {
		session.EndSession(context.Background())
		return nil, fmt.Errorf("advance session: %w", err)
	}
	return session, nil
}

func (s *source) collection(c *state.Chunk) *mongo.Collection {
	opts := options.Collection().SetReadConcern(readconcern.Majority())
	if s.preference != nil {
		opts.SetReadPreference(s.preference)
	}
	return s.client.Database(c.DB).Collection(c.Coll, opts)
}

// gone reports whether the name of c no longer is a collection. A collection
// that was dropped ends its chunks: its documents are gone, and the drop is in
// the stream.
func (s *source) gone(ctx context.Context, c *state.Chunk) (bool, error) {
	specs, err := s.client.Database(c.DB).ListCollectionSpecifications(ctx, bson.D{{Key: "name", Value: c.Coll}})
	if err != nil {
		return false, fmt.Errorf("look for collection ns=%s.%s: %w", c.DB, c.Coll, err)
	}
	return len(specs) == 0 || specs[0].Type != "collection", nil
}

func inNaturalOrder(c *state.Chunk) bool { return c.Natural || c.Whole }

func onlyID() bson.D { return bson.D{{Key: "_id", Value: 1}} }

// findOptions bounds the pass by the _id index itself: $gte and $lt would
// compare within one type of _id only. min is inclusive. Where bounds do not
// work nothing else is asked of the server either.
func findOptions(c *state.Chunk, after bson.Raw) *options.FindOptionsBuilder {
	if c.Whole {
		return options.Find()
	}
	opts := options.Find().SetNoCursorTimeout(true)
	if c.Natural {
		return opts.SetHint(bson.D{{Key: "$natural", Value: 1}})
	}
	opts.SetHint(onlyID())
	switch {
	case after != nil:
		opts.SetMin(after)
	case len(c.Min) > 0:
		opts.SetMin(bson.Raw(c.Min))
	}
	if len(c.Max) > 0 {
		opts.SetMax(bson.Raw(c.Max))
	}
	return opts
}

// pass is the real documents.
type pass struct {
	coll     *mongo.Collection
	session  *mongo.Session
	throttle *throttle.Limiter
	// cursor is nil where nothing can come.
	cursor *mongo.Cursor
	// tail says that the document whose _id is MaxKey is still to be asked
	// for: min() without max() ends before it.
	tail bool
	// ordered says that the pass goes by the _id index, where the document to
	// go on behind can only be the first one; elsewhere everything through it
	// is passed over.
	ordered bool
	// merged says that the order has to be asked for: the documents come from
	// several shards.
	merged bool
	after  bson.Raw
	anchor []byte
	// digest is the document's own; empty where it need not be looked at.
	digest  []byte
	scratch []byte
}

// begin opens the cursor.
func (p *pass) begin(ctx context.Context, c *state.Chunk) error {
	if p.ordered && p.after != nil && idType(p.after) == bson.TypeMaxKey {
		return nil // there is nothing behind it, and a server refuses to look
	}
	if p.after != nil && !p.ordered {
		there, err := p.has(ctx, p.after)
		if err != nil {
			return err
		}
		if !there {
			p.after = nil // only newer documents are left of a capped collection
		}
	}
	if p.after != nil {
		var err error
		if p.anchor, err = idKey(p.after); err != nil {
			return err
		}
	}
	p.tail = p.ordered && len(c.Max) == 0 && (p.after != nil || len(c.Min) > 0)
	opts := findOptions(c, p.after)
	if p.merged {
		opts.SetSort(onlyID())
	}
	return p.find(ctx, bson.D{}, opts)
}

// has reports whether the document {_id: …} is in the collection.
func (p *pass) has(ctx context.Context, id bson.Raw) (bool, error) {
	e, _, err := rawbson.Lookup(id, "_id")
	if err != nil {
		return false, fmt.Errorf("read _id: %w", err)
	}
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: e.RawValue()}}}}
	err = p.coll.FindOne(mongo.NewSessionContext(ctx, p.session), filter, options.FindOne().SetProjection(onlyID())).Err()
	if err != nil && !noDocuments(err) {
		return false, fmt.Errorf("look for last document ns=%s.%s: %w", p.coll.Database().Name(), p.coll.Name(), err)
	}
	return err == nil, nil
}

func (p *pass) find(ctx context.Context, filter bson.D, opts *options.FindOptionsBuilder) error {
	err := p.throttle.WaitQuery(ctx)
	if err != nil {
		return err
	}
	p.cursor, err = p.coll.Find(mongo.NewSessionContext(ctx, p.session), filter, opts)
	if err != nil {
		return fmt.Errorf("open cursor ns=%s.%s: %w", p.coll.Database().Name(), p.coll.Name(), err)
	}
	return nil
}

// Next implements documents.
func (p *pass) Next(ctx context.Context) (bson.Raw, error) {
	for p.cursor != nil {
		doc, err := p.advance(ctx)
		if doc != nil || err != nil || !p.tail {
			return doc, err
		}
		p.tail = false
		if err := p.cursor.Close(ctx); err != nil {
			return nil, fmt.Errorf("close cursor: %w", err)
		}
		last := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: bson.MaxKey{}}}}}
		if err := p.find(ctx, last, options.Find().SetHint(onlyID())); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// more moves the cursor on, which asks the server when a batch is used up.
func (p *pass) more(ctx context.Context) (bool, error) {
	if p.cursor.RemainingBatchLength() == 0 && p.cursor.ID() != 0 {
		if err := p.throttle.WaitQuery(ctx); err != nil {
			return false, err
		}
	}
	return p.cursor.Next(ctx), nil
}

// advance returns the cursor's next document that is wanted, or nil at its end.
func (p *pass) advance(ctx context.Context) (bson.Raw, error) {
	for {
		more, err := p.more(ctx)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		if p.tail && idType(p.cursor.Current) == bson.TypeMaxKey {
			p.tail = false // this server's min() goes on to the very end
		}
		if p.anchor == nil {
			return p.cursor.Current, nil
		}
		same, err := p.atAnchor(p.cursor.Current)
		if err != nil {
			return nil, err
		}
		if same && !p.ordered && !p.asItWas(p.cursor.Current) {
			return nil, errAnchorGone
		}
		if same || p.ordered {
			p.anchor = nil
		}
		if !same && p.ordered {
			return p.cursor.Current, nil
		}
	}
	if err := p.cursor.Err(); err != nil {
		return nil, fmt.Errorf("read cursor: %w", err)
	}
	if p.anchor != nil && !p.ordered {
		return nil, errAnchorGone
	}
	return nil, nil
}

// atAnchor compares as the unique index on _id does, since the document may
// have been deleted and inserted again with an equal _id of another type.
func (p *pass) atAnchor(doc bson.Raw) (bool, error) {
	id, ok, err := rawbson.Lookup(doc, "_id")
	if err != nil || !ok {
		return false, err
	}
	if bytes.Equal(id.Raw, p.after[4:len(p.after)-1]) {
		return true, nil
	}
	p.scratch, err = event.AppendIDKey(p.scratch[:0], id.RawValue())
	return bytes.Equal(p.scratch, p.anchor), err
}

// asItWas reports whether the document to go on behind is the one that was read.
// One that was inserted anew stands behind documents that were never read.
func (p *pass) asItWas(doc bson.Raw) bool {
	return len(p.digest) == 0 || bytes.Equal(digestOf(doc), p.digest)
}

// digestOf tells documents apart.
func digestOf(doc bson.Raw) []byte {
	sum := sha256.Sum256(doc)
	return sum[:]
}

// Through implements documents.
func (p *pass) Through() bson.Timestamp {
	if t := p.session.OperationTime(); t != nil {
		return *t
	}
	return bson.Timestamp{}
}

// KeepAlive implements documents. The cursor has no timeout of its own; it lives
// as long as its session.
func (p *pass) KeepAlive(ctx context.Context) error {
	refresh := bson.D{{Key: "refreshSessions", Value: bson.A{p.session.ID()}}}
	if err := p.session.Client().Database("admin").RunCommand(ctx, refresh).Err(); err != nil {
		return fmt.Errorf("refresh session: %w", err)
	}
	return nil
}

// Close implements documents. What it cannot close, the server does when the
// session has expired.
func (p *pass) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if p.cursor != nil {
		_ = p.cursor.Close(ctx)
	}
	p.session.EndSession(ctx)
}

// idKey is the normal form of the _id in {_id: …}.
func idKey(id bson.Raw) ([]byte, error) {
	e, _, err := rawbson.Lookup(id, "_id")
	if err != nil {
		return nil, fmt.Errorf("read _id: %w", err)
	}
	return event.AppendIDKey(nil, e.RawValue())
}
