package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/semaphore"
)

// keepAliveEvery is how often a source is told that a pass is still wanted
// while the broker does not take what was read: well below the 30 minutes after
// which a server ends unused sessions.
const keepAliveEvery = 5 * time.Minute

// errUnreadable says that a document cannot be passed on, however often it is
// read.
var errUnreadable = errors.New("document cannot be used")

// codeCappedPositionLost is the server's error for a cursor that the end of a
// capped collection has overtaken.
const codeCappedPositionLost = 136

// judgeRead decides about an error of a pass.
func judgeRead(err error) retry.Verdict {
	server, coded := errors.AsType[mongo.ServerError](err)
	_, refused := errors.AsType[*refusedError](err)
	switch {
	case refused, errors.Is(err, errUnreadable):
		return retry.Stop
	case errors.Is(err, errAnchorGone), coded && server.HasErrorCode(codeCappedPositionLost):
		return retry.Now
	}
	return mongodb.Classify(err)
}

// task is a chunk and how far it has come.
type task struct {
	chunk    state.Chunk
	progress state.ChunkProgress
}

// piece is one encoded batch and what is true once it is committed. A piece
// without a value only moves the progress.
type piece struct {
	value []byte
	// weight is what the piece holds of the worker's byte budget.
	weight   int64
	count    int32
	progress state.ChunkProgress
}

// reader turns chunks into pieces. It is one goroutine's; its errors of the
// source are retried here, behind the last document that was read, so that
// nothing is read twice because of them.
type reader struct {
	open   func(ctx context.Context, c *state.Chunk, progress *state.ChunkProgress) (documents, error)
	gone   func(ctx context.Context, c *state.Chunk) (bool, error)
	retry  retry.Policy
	codec  *wire.Codec
	pack   *packer
	budget *semaphore.Weighted
	// size is the budget's whole.
	size    int64
	buffers *freeList
	out     chan<- piece
	metrics *metrics
	log     zerolog.Logger
	// throttle limits the reads; nil limits nothing.
	throttle *throttle.Limiter
}

// read reads what is left of a chunk. It blocks on the source and, when the
// byte budget is spent, on the broker.
func (r *reader) read(ctx context.Context, t *task) error {
	err := r.retry.Loop(ctx, judgeRead, func(ctx context.Context, alive func()) error {
		return r.pass(ctx, t, alive)
	})
	if err != nil {
		return &readError{chunk: &t.chunk, err: err}
	}
	return nil
}

// readError is the end of the retries of a chunk's reads.
type readError struct {
	chunk *state.Chunk
	err   error
}

// Error names the chunk.
func (e *readError) Error() string {
	return fmt.Sprintf("read chunk %d ns=%s.%s: %v", e.chunk.Chunk, e.chunk.DB, e.chunk.Coll, e.err)
}

// Unwrap returns the last failure.
func (e *readError) Unwrap() error { return e.err }

// pass reads once until the chunk ends or the source fails. Either way t holds
// how far it came.
func (r *reader) pass(ctx context.Context, t *task, alive func()) error {
	r.pack.reset()
	docs, err := r.open(ctx, &t.chunk, &t.progress)
	if err != nil {
		return r.settle(ctx, t, err)
	}
	defer docs.Close()
	for {
		doc, err := docs.Next(ctx)
		if errors.Is(err, errAnchorGone) {
			// Nothing was emitted. In a capped collection all that is left is
			// newer; elsewhere (servers without a working _id index scan)
			// documents may come again, as loads of such sources allow.
			t.progress.Next, t.progress.Digest = nil, nil
			return err
		}
		if err != nil {
			if flushed := r.flush(ctx, t, docs); flushed != nil {
				return flushed
			}
			return r.settle(ctx, t, err)
		}
		if doc == nil {
			t.progress.Done = true
			return r.flush(ctx, t, docs)
		}
		if !r.pack.fits(doc) {
			if err := r.flush(ctx, t, docs); err != nil {
				return err
			}
			alive()
		}
		r.pack.add(doc)
	}
}

// settle decides about an error of the source: if the collection is gone the
// chunk is done.
func (r *reader) settle(ctx context.Context, t *task, err error) error {
	if _, server := errors.AsType[mongo.ServerError](err); !server || ctx.Err() != nil {
		return err
	}
	gone, lookErr := r.gone(ctx, &t.chunk)
	if lookErr != nil || !gone {
		return errors.Join(err, lookErr)
	}
	t.progress.Done = true
	return r.send(ctx, piece{progress: t.progress}, nil)
}

// flush sends what is packed, or nothing but the chunk's end.
func (r *reader) flush(ctx context.Context, t *task, docs documents) error {
	if through := docs.Through(); event.CompareTimes(through, t.progress.ReadThrough) > 0 {
		t.progress.ReadThrough = through
	}
	if r.pack.count == 0 {
		if !t.progress.Done {
			return nil
		}
		return r.send(ctx, piece{progress: t.progress}, docs)
	}
	last, err := r.pack.lastID()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if err := r.due(ctx, docs); err != nil {
		return err
	}
	batch := wire.Batch{
		Kind: wire.BatchDocuments, Run: t.chunk.Run, Chunk: t.chunk.Chunk, Sequence: t.progress.Sequence,
		NS: event.Namespace{DB: t.chunk.DB, Coll: t.chunk.Coll}, UUID: t.chunk.UUID,
		Count: r.pack.count, Documents: r.pack.buf,
	}
	value, err := r.codec.AppendBatch(r.buffers.get(), &batch)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	t.progress.Next = last
	if inNaturalOrder(&t.chunk) {
		t.progress.Digest = digestOf(r.pack.lastDocument())
	}
	t.progress.Sequence++
	t.progress.Documents += int64(r.pack.count)
	t.progress.Bytes += int64(len(r.pack.buf))
	p := piece{value: value, count: r.pack.count, weight: min(int64(cap(value)), r.size), progress: t.progress}
	r.metrics.read(int64(r.pack.count), int64(len(r.pack.buf)))
	r.pack.reset()
	return r.send(ctx, p, docs)
}

// send hands a piece on when the budget has room for it.
func (r *reader) send(ctx context.Context, p piece, docs documents) error {
	for p.weight > 0 {
		wait, cancel := context.WithTimeout(ctx, keepAliveEvery)
		err := r.budget.Acquire(wait, p.weight)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := docs.KeepAlive(ctx); err != nil {
			r.log.Warn().Err(err).Msg("source cursor may end while Kafka does not take its documents")
		}
	}
	select {
	case r.out <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freeList keeps a few buffers for reuse. It is safe for concurrent use and
// never blocks.
type freeList struct {
	buffers chan []byte
	// largest is the capacity beyond which a buffer is not kept.
	largest int
}

func newFreeList(n, largest int) *freeList {
	return &freeList{buffers: make(chan []byte, n), largest: largest}
}

func (f *freeList) get() []byte {
	select {
	case b := <-f.buffers:
		return b[:0]
	default:
		return nil
	}
}

func (f *freeList) put(b []byte) {
	if b == nil || cap(b) > f.largest {
		return
	}
	select {
	case f.buffers <- b:
	default: // enough are kept
	}
}
