package snapshot

import (
	"context"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	// drainTimeout bounds how long a stopped worker goes on committing what
	// was read.
	drainTimeout = 10 * time.Second
	// pieceQueue is how many pieces wait between reading and producing; the
	// byte budget is the real bound.
	pieceQueue = 64
)

// worker moves the chunks of one partition from the source to Kafka: one
// goroutine reads, another produces and commits, so that the source is read
// while Kafka commits.
type worker struct {
	s        *Service
	producer *producer
	source   *source
	// partitions is the snapshot topic's partition count.
	partitions int32
	// commits counts the transactions.
	commits int
}

// run works the tasks off. When ctx ends it commits what was read, within a
// bound, and returns ctx's error. commits may be read when run has returned.
func (w *worker) run(ctx context.Context, tasks []task) error {
	pieces := make(chan piece, pieceQueue)
	budget := semaphore.NewWeighted(w.s.cfg.QueueBytes)
	buffers := newFreeList(pieceQueue, 2*w.s.cfg.BatchBytes)
	draining, cancel := drainContext(ctx)
	defer cancel()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		r := reader{
			open: w.source.open, gone: w.source.gone, retry: w.s.policy(), codec: w.s.codec,
			pack: newPacker(w.batchBytes()), budget: budget, size: w.s.cfg.QueueBytes, buffers: buffers,
			out: pieces, metrics: w.s.metrics, log: w.s.cfg.Log, throttle: w.s.cfg.Throttle,
		}
		for i := range tasks {
			if err := r.read(gctx, &tasks[i]); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		c := committer{worker: w, budget: budget, buffers: buffers, in: pieces, stop: gctx.Done()}
		return c.run(draining)
	})
	return g.Wait()
}

// batchBytes is how many bytes of documents are packed together: no more than
// fit into one record, unless one document does not.
func (w *worker) batchBytes() int {
	return min(w.s.cfg.BatchBytes, w.producer.limits.Record(w.s.topics.Snapshot)-batchOverhead)
}

// batchOverhead is more than the record of a batch takes beside its documents:
// names, ids and the record's key.
const batchOverhead = 4 << 10

// drainContext returns a context that ends drainTimeout after ctx.
func drainContext(ctx context.Context) (context.Context, context.CancelFunc) {
	draining, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(drainTimeout, cancel)
		context.AfterFunc(draining, func() { timer.Stop() })
	})
	return draining, func() {
		stop()
		cancel()
	}
}

// committer commits pieces until their channel is closed.
type committer struct {
	*worker
	budget  *semaphore.Weighted
	buffers *freeList
	in      <-chan piece
	// stop is closed when nothing more is read.
	stop <-chan struct{}
	// progress is that of every chunk which the open transaction touches.
	progress map[int32]state.ChunkProgress
	bytes    int
	records  int
}

// run commits until the channel is closed or ctx ends.
func (c *committer) run(ctx context.Context) error {
	for {
		select {
		case p, ok := <-c.in:
			if !ok {
				return nil
			}
			if err := c.transaction(ctx, p); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// transaction commits one sub-range, which begins with first. No transaction is
// open while there is nothing to put into it.
func (c *committer) transaction(ctx context.Context, first piece) error {
	started := time.Now()
	c.progress, c.bytes, c.records = map[int32]state.ChunkProgress{}, 0, 0
	// Held back here, where no transaction is open.
	if err := c.s.disk.await(ctx, c.stop); err != nil {
		return err
	}
	if err := c.producer.begin(); err != nil {
		return err
	}
	interval := time.NewTimer(c.s.cfg.CommitInterval)
	defer interval.Stop()
	if err := c.add(ctx, first); err != nil {
		return err
	}
	for more := true; more && c.bytes < c.s.commitBytes(c.partitions) && len(c.progress) < maxProgressRecords; {
		select {
		case p, ok := <-c.in:
			if more = ok; !ok {
				break
			}
			if err := c.add(ctx, p); err != nil {
				return err
			}
		case <-interval.C:
			more = false
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.commit(ctx); err != nil {
		return err
	}
	c.s.disk.committed(int64(c.records), int64(c.bytes))
	c.s.metrics.committed(c.bytes, time.Since(started))
	c.s.mood.well()
	c.commits++
	return nil
}

// commitBytes is what one transaction carries: of a small disk only a part, as
// every partition may have one under way.
func (s *Service) commitBytes(partitions int32) int {
	if s.disk == nil {
		return s.cfg.CommitBytes
	}
	return min(s.cfg.CommitBytes, int(s.disk.limit/int64(4*partitions)))
}

// maxProgressRecords ends a transaction over very many tiny chunks.
const maxProgressRecords = 1000

// add produces a piece, in parts if it is more than the broker takes as one
// record. The budget is given back when the broker has it all.
func (c *committer) add(ctx context.Context, p piece) error {
	c.progress[p.progress.Chunk] = p.progress
	if p.value == nil {
		return nil
	}
	c.bytes += len(p.value)
	key := []byte(batchKey(p.progress.Run, p.progress.Chunk))
	parts, err := c.s.codec.Split(p.value, c.producer.limits.Record(c.s.topics.Snapshot)-len(key))
	if err != nil {
		return fmt.Errorf("produce chunk %d: %w", p.progress.Chunk, err)
	}
	c.records += len(parts)
	for i, part := range parts {
		record := &kgo.Record{Topic: c.s.topics.Snapshot, Partition: p.progress.Chunk % c.partitions, Key: key, Value: part}
		var acked func()
		if i == len(parts)-1 { // those of one partition are acknowledged in order
			acked = func() {
				c.budget.Release(p.weight)
				c.buffers.put(p.value)
			}
		}
		c.producer.send(ctx, record, acked)
	}
	return nil
}

// commit adds the progress and ends the transaction. The progress comes last:
// an open transaction holds up all readers of the state topic.
func (c *committer) commit(ctx context.Context) error {
	for _, progress := range c.progress {
		record, err := state.Record(c.s.topics.State, state.KeyChunk(progress.Run, progress.Chunk), progress)
		if err != nil {
			return err
		}
		c.producer.send(ctx, record, nil)
	}
	if err := c.producer.commit(ctx); err != nil {
		return fmt.Errorf("commit sub-range: %w", err)
	}
	return nil
}

// batchKey is the key of a record on the snapshot topic.
func batchKey(run string, chunk int32) string { return fmt.Sprintf("%s/%d", run, chunk) }
