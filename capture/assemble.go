package capture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// errRolledOver says that an entry is no longer in the oplog.
var errRolledOver = errors.New("entry is no longer in the oplog")

// past reads entries that the tail has passed.
type past interface {
	// fragmentAt returns where the fragment at that time stands in its
	// transaction; the error of missing where there is none.
	fragmentAt(ctx context.Context, at bson.Timestamp) (link, error)
	// missing says why an entry that a majority had is not there:
	// errRolledOver, or an error that passes, since the majority that a new
	// primary knows of may be behind for a moment.
	missing(ctx context.Context, at bson.Timestamp) error
	// commands returns the commands from one time to another, both included,
	// in their order; those of other sessions may be among them.
	commands(ctx context.Context, t *oplog.Transaction) (entryCursor, error)
}

// entryCursor hands out entries. It blocks on the source and is used from one
// goroutine, which closes it.
type entryCursor interface {
	// next returns an entry that is valid until the next call, nil at the end.
	next(ctx context.Context) (bson.Raw, error)
	close(ctx context.Context)
}

// link is a fragment without its operations.
type link struct {
	position event.Position
	// previous is the time of the fragment before, zero for the first.
	previous bson.Timestamp
	lsid     bson.Raw
	number   int64
}

// assembler puts the entries of an oplog into batches, and those of a
// transaction over several entries where it commits: each fragment as an item
// of its own, so that no transaction is ever in memory as a whole. It belongs to
// one tail.
type assembler struct {
	past past
	open oplog.Transactions
	// through is what was published before; up to there entries only rebuild
	// the open transactions, as long as rebuilding.
	through    event.Position
	rebuilding bool
	// replay is the transaction that is being handed out.
	replay  *replay
	metrics *metrics
}

// newAssembler follows from the first entry on that is given to it. Limit
// bounds the fragments of open transactions that it holds, in bytes.
func newAssembler(p past, limit int64, m *metrics) *assembler {
	return &assembler{past: p, open: oplog.Transactions{Limit: limit}, metrics: m}
}

// resume begins with the first entry, that is where reading must resume. If that
// is the position through which all was published, or where a new pipeline
// begins, nothing of it is handed out.
func (a *assembler) resume(at *state.CapturePosition, first bson.Raw) error {
	a.through, a.rebuilding = at.PublishedThrough, true
	err := a.rebuild(newBatch(), first)
	if at.ReadFrom.IsZero() || at.ReadFrom.Compare(at.PublishedThrough) >= 0 {
		a.replay = nil
	}
	return err
}

// take puts an entry into the batch if it has an effect of its own. The batch
// keeps a copy. It may block on the source.
func (a *assembler) take(ctx context.Context, b *batch, entry bson.Raw) error {
	if a.rebuilding {
		return a.rebuild(b, entry)
	}
	if !oplog.IsCommand(entry) {
		b.add(entry)
		return nil
	}
	h, err := oplog.ReadHeader(entry)
	if err != nil {
		b.add(entry) // decoding says what is wrong with it
		return nil
	}
	if h.Fragment == oplog.Whole {
		if t := many(entry, &h); t != nil {
			a.commit(t, &h, 0)
		} else {
			b.add(entry)
		}
		return nil
	}
	t, known := a.open.Take(entry, &h)
	if !known {
		// It began before the first entry that was read.
		x, err := a.findChain(ctx, &h)
		if err != nil {
			return err
		}
		a.open.Adopt(x)
		if t, known = a.open.Take(entry, &h); !known {
			return &finalError{fmt.Errorf("follow transaction at position=%s: its fragments are not linked", h.Position)}
		}
	}
	if t != nil {
		a.commit(t, &h, 0)
		return nil
	}
	b.reached = h.Position
	return nil
}

// many returns an entry of very many operations as a transaction of its own, nil
// for any other.
func many(entry bson.Raw, h *oplog.Header) *oplog.Transaction {
	if len(entry) < largeEntry || oplog.Operations(entry) <= batchOperations {
		return nil
	}
	return &oplog.Transaction{First: h.Position, Last: h.Position, Held: true, Fragments: oplog.Split(entry, batchOperations), LSID: h.LSID, Number: h.Number}
}

// rebuild takes an entry that was passed before. What it says of transactions
// that are open is all that counts, up to the last entry: of that one, if it
// commits a transaction, the operations may not all be published.
func (a *assembler) rebuild(b *batch, entry bson.Raw) error {
	h, err := oplog.ReadHeader(entry)
	if err != nil {
		return &finalError{err}
	}
	order := event.CompareTimes(h.Position.Time, a.through.Time)
	if order > 0 || order == 0 && a.through.Term != 0 && h.Position.Term != a.through.Term {
		return historyLost(a.through, fmt.Sprintf("the source's oplog has %s in its place", h.Position))
	}
	if order == 0 {
		a.rebuilding, a.through.Term = false, h.Position.Term
		b.reached = a.through
	}
	if h.Fragment == oplog.Whole {
		if order == 0 {
			if t := many(entry, &h); t != nil {
				a.commit(t, &h, a.through.Index+1)
			}
		}
		return nil
	}
	// One that is not known began before the oldest that was open, and so was
	// published as a whole.
	if t, known := a.open.Take(entry, &h); known && t != nil && order == 0 {
		a.commit(t, &h, a.through.Index+1)
	}
	return nil
}

// commit hands out a transaction next, but for the operations at its beginning
// that were published.
func (a *assembler) commit(t *oplog.Transaction, h *oplog.Header, published int32) {
	at := h.Position
	at.Index = 0
	a.replay = &replay{txn: t, at: at, wall: h.WallTime, published: published}
}

// findChain finds the fragments before an entry by their links.
func (a *assembler) findChain(ctx context.Context, h *oplog.Header) (*oplog.Transaction, error) {
	x := &oplog.Transaction{LSID: h.LSID, Number: h.Number}
	for at := h.Previous; at != (bson.Timestamp{}); {
		l, err := a.past.fragmentAt(ctx, at)
		if errors.Is(err, errRolledOver) {
			return nil, lostTransaction(event.Position{Time: at}, h.Position)
		}
		if err != nil {
			return nil, err
		}
		if x.Last.IsZero() {
			x.Last, x.LSID, x.Number = l.position, l.lsid, l.number
		}
		if event.CompareTimes(l.previous, at) >= 0 {
			return nil, &finalError{fmt.Errorf("follow transaction at position=%s: the link of its fragment at %s leads forward", h.Position, l.position)}
		}
		x.First, at = l.position, l.previous
	}
	return x, nil
}

// lostTransaction names the fragment of a committed transaction that is gone.
func lostTransaction(fragment, commit event.Position) error {
	return historyLost(fragment, fmt.Sprintf("the entry at %s commits a transaction whose entry there has left the oplog", commit))
}

// replaying reports whether a transaction is being handed out: then replayInto
// is to be called before the next entry is taken.
func (a *assembler) replaying() bool { return a.replay != nil }

// replayInto puts the next fragment of the committed transaction into the
// batch, or ends it. It blocks on the source where the fragments are not held.
func (a *assembler) replayInto(ctx context.Context, b *batch) error {
	r := a.replay
	fragment, err := r.next(ctx, a.past)
	if err != nil {
		return err
	}
	if parts := oplog.Split(fragment, batchOperations); len(parts) > 1 {
		r.parts, fragment = parts[1:], parts[0]
	}
	if fragment == nil {
		end := r.at
		end.Index = max(end.Index-1, 0)
		b.reached = end
		a.replay = nil
		return nil
	}
	n := oplog.Operations(fragment)
	if n < 0 || r.at.Index > math.MaxInt32-n {
		return &finalError{fmt.Errorf("read transaction committed at position=%s: it has more operations than can be counted", r.at)}
	}
	if r.at.Index+n > r.published {
		b.addPart(fragment, oplog.Effect{Position: r.at, WallTime: r.wall, Skip: r.published})
	}
	r.at.Index += n
	return nil
}

// finish notes in a batch that is handed over what comes after it.
func (a *assembler) finish(b *batch, last event.Position) {
	a.open.NewTerm(last.Term)
	oldest, held := a.open.Oldest()
	if a.replay != nil {
		if first := a.replay.txn.First; !held || first.Compare(oldest) < 0 {
			oldest = first
		}
		b.partial = true
	}
	b.readFrom = oldest
	b.open = a.openAt(last.Time)
	a.metrics.openBytes.Set(float64(a.open.Bytes()))
}

// close gives up what is being read.
func (a *assembler) close(ctx context.Context) {
	if a.replay != nil {
		a.replay.close(ctx)
	}
}

// replay hands out the fragments of a committed transaction: those that are
// held, or the same from the oplog.
type replay struct {
	txn *oplog.Transaction
	// at is the commit's position, its index that of the next operation.
	at   event.Position
	wall time.Time
	// published is how many operations were published before.
	published int32
	// parts are what is left of a fragment of very many operations.
	parts  []bson.Raw
	handed int
	cursor entryCursor
	// last is the time of the last fragment that was read again.
	last bson.Timestamp
}

// next returns the next fragment, valid until the next call, or nil after the
// last one.
func (r *replay) next(ctx context.Context, p past) (bson.Raw, error) {
	if len(r.parts) > 0 {
		part := r.parts[0]
		r.parts = r.parts[1:]
		return part, nil
	}
	if r.txn.Held {
		if r.handed == len(r.txn.Fragments) {
			return nil, nil
		}
		r.handed++
		return r.txn.Fragments[r.handed-1], nil
	}
	if r.last == r.txn.Last.Time {
		r.close(ctx)
		return nil, nil
	}
	if r.cursor == nil {
		var err error
		if r.cursor, err = p.commands(ctx, r.txn); err != nil {
			return nil, err
		}
	}
	for {
		entry, err := r.cursor.next(ctx)
		if err != nil {
			return nil, err
		}
		if entry == nil {
			return nil, r.broken(ctx, p)
		}
		h, err := oplog.ReadHeader(entry)
		if err != nil {
			return nil, &finalError{err}
		}
		if r.follows(&h) {
			r.last = h.Position.Time
			return entry, nil
		}
	}
}

// broken says why the fragments do not reach to the last one: the oplog is cut
// off at its beginning.
func (r *replay) broken(ctx context.Context, p past) error {
	err := p.missing(ctx, r.txn.First.Time)
	if errors.Is(err, errRolledOver) {
		return lostTransaction(r.txn.First, r.at)
	}
	return err
}

// follows reports whether an entry is the next fragment.
func (r *replay) follows(h *oplog.Header) bool {
	switch h.Fragment {
	case oplog.Partial, oplog.Prepared, oplog.Last:
	default:
		return false
	}
	if r.last == (bson.Timestamp{}) {
		return h.Position.Time == r.txn.First.Time
	}
	return h.Previous == r.last
}

func (r *replay) close(ctx context.Context) {
	if r.cursor != nil {
		r.cursor.close(ctx)
		r.cursor = nil
	}
}
