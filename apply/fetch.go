package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// fetchBytes bounds what one broker sends at a time, and thus by how much
	// queues overshoot, compressed: tenfold that as documents go. A broker
	// passes it for one larger record batch.
	fetchBytes = 4 << 20
	// fetchPartitionBytes is one partition's part of it. Four times as much
	// took eight partitions past the process's limit (TestMemoryUnderABacklog)
	// and was no faster.
	fetchPartitionBytes = 256 << 10
	// fetchWait is how long a broker holds a fetch that has nothing to return:
	// a partition that is opened or resumed meanwhile waits for its end.
	fetchWait = 250 * time.Millisecond
	// minQueueBytes is what every partition's queue may hold, however many
	// there are.
	minQueueBytes = 1 << 20
	// fetchGap is longer than the client rests between two tries: without a
	// failure for so long it fetches, though there may be no records.
	fetchGap = 2 * time.Minute
)

// errHistoryLost is returned, wrapped, when the records at a partition's offset
// are no longer there.
var errHistoryLost = errors.New("history lost")

// fetcher reads the partitions that this process owns, from the offsets that
// the destination's records say, into one queue each. Ownership comes from the
// group's client, which fetches nothing itself: so an offset is chosen when the
// partition's record was read, outside of any rebalance, and taking a partition
// away is one step.
//
// Run polls and is the only one that changes what the client consumes, so that
// no record of an earlier assignment can reach a later queue.
type fetcher struct {
	client *kgo.Client
	codec  *wire.Codec
	// budget is what all queues together may hold, in bytes.
	budget int64
	log    zerolog.Logger
	// outage bounds how long fetching may fail without any success; of Run's
	// goroutine.
	outage retry.Outage

	mu     sync.Mutex
	queues map[topicPartition]*queue
	// part is one queue's share of the budget.
	part atomic.Int64
	// requests wait for Run to carry them out.
	requests []func()
	wake     context.CancelFunc
	stopped  bool
}

type topicPartition struct {
	topic     string
	partition int32
}

func newFetcher(cfg kafka.Config, codec *wire.Codec, budget int64, patience time.Duration, log zerolog.Logger) (*fetcher, error) {
	client, err := kafka.NewClient(cfg,
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		// For the group's registration, which goes to the only partition.
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return nil, err
	}
	return &fetcher{client: client, codec: codec, budget: budget, outage: retry.Outage{Window: patience, Gap: fetchGap}, log: log, queues: map[topicPartition]*queue{}}, nil
}

// run polls until ctx ends or reading a partition fails for good, then closes
// the client.
func (f *fetcher) run(ctx context.Context) error {
	defer f.stop()
	for {
		poll := f.prepare(ctx)
		fetches := f.client.PollFetches(poll)
		if ctx.Err() != nil {
			return nil
		}
		if err := f.dispatch(fetches); err != nil {
			return err
		}
	}
}

// prepare carries out what was requested and returns the context of the next
// poll, which the next request ends.
func (f *fetcher) prepare(ctx context.Context) context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, request := range f.requests {
		request()
	}
	f.requests = nil
	if f.wake != nil {
		f.wake()
	}
	poll, cancel := context.WithCancel(ctx)
	f.wake = cancel
	return poll
}

func (f *fetcher) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	for _, request := range f.requests {
		request()
	}
	f.requests = nil
	if f.wake != nil {
		f.wake()
	}
	f.client.Close()
}

// dispatch puts records into their queues.
func (f *fetcher) dispatch(fetches kgo.Fetches) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range fetches.Errors() {
		switch {
		case errors.Is(e.Err, context.Canceled), errors.Is(e.Err, kgo.ErrClientClosed):
		case kafka.Classify(e.Err) != retry.Stop && f.patient():
			// The client goes on trying.
			f.log.Warn().Err(e.Err).Str("topic", e.Topic).Int32("partition", e.Partition).Msg("fetch failed for now")
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			return fmt.Errorf("fetch partition %s/%d: %w: the records at the offset where this destination stands are no longer in the topic (its retention passed) or not yet (the topic was made anew): hint: load the destination again under a new pipeline name or group", e.Topic, e.Partition, errHistoryLost)
		default:
			return fmt.Errorf("fetch partition %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			f.outage.End()
		}
		q, ok := f.queues[topicPartition{p.Topic, p.Partition}]
		if !ok || len(p.Records) == 0 {
			return
		}
		q.push(p.Records, f.part.Load())
	})
	return nil
}

// patient reports whether fetching has not failed for too long.
func (f *fetcher) patient() bool {
	_, _, over := f.outage.Fail(time.Now())
	return !over
}

// share fixes what one queue may hold: the budget in equal parts. Shares are not
// lent, so that a partition which waits at a barrier takes nothing from those
// it waits for. A batch takes no more than a share either, so that the records
// under way are bounded as those that wait are.
func (f *fetcher) share() {
	f.part.Store(max(f.budget/int64(max(len(f.queues), 1)), minQueueBytes))
}

// request has Run carry out a change and waits for it.
func (f *fetcher) request(ctx context.Context, change func()) error {
	done := make(chan struct{})
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return context.Canceled
	}
	f.requests = append(f.requests, func() { change(); close(done) })
	if f.wake != nil {
		f.wake()
	}
	f.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open begins to read a partition at an offset. The queue is the caller's until
// it closes it.
func (f *fetcher) open(ctx context.Context, tp topicPartition, offset int64) (*queue, error) {
	q := &queue{f: f, tp: tp, parts: f.codec.NewAssembler(wire.MaxRecordBytes), ready: make(chan struct{}, 1)}
	err := f.request(ctx, func() {
		f.queues[tp] = q
		f.share()
		f.client.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
		f.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{tp.topic: {tp.partition: kgo.NewOffset().At(offset)}})
	})
	if err != nil {
		return nil, fmt.Errorf("read partition %s/%d: %w", tp.topic, tp.partition, err)
	}
	return q, nil
}

// queue holds fetched records of one partition in order. One goroutine takes.
type queue struct {
	f     *fetcher
	tp    topicPartition
	ready chan struct{}

	mu      sync.Mutex
	records []*kgo.Record
	bytes   int64
	paused  bool
	// parts holds those of a record whose last part was not taken yet. The
	// records before it are what an offset may stand behind until then.
	parts *wire.Assembler
}

// push appends records and pauses the partition when the queue passes share.
func (q *queue) push(records []*kgo.Record, share int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.records = append(q.records, records...)
	for _, r := range records {
		q.bytes += recordBytes(r)
	}
	select {
	case q.ready <- struct{}{}:
	default: // a signal is pending already
	}
	if q.bytes > share && !q.paused {
		q.paused = true
		q.f.client.PauseFetchPartitions(map[string][]int32{q.tp.topic: {q.tp.partition}})
	}
}

// take removes the first records, as many as n and size allow, and at least one
// where there is a whole one. A record that came in parts is returned once they
// are all there, with the offset of the last. It does not block: ready says when
// to try again.
func (q *queue) take(n int, size int64) ([]*kgo.Record, error) {
	size = min(size, q.f.part.Load())
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*kgo.Record
	var taken int64
	i := 0
	for ; i < len(q.records) && len(out) < n; i++ {
		r := q.records[i]
		b := recordBytes(r)
		if len(out) > 0 && taken+b > size {
			break
		}
		whole, err := q.assemble(r)
		if err != nil {
			return nil, err
		}
		taken += b
		if whole != nil {
			out = append(out, whole)
		}
	}
	clear(q.records[:i]) // what was taken is the taker's to free
	q.records = q.records[i:]
	if len(q.records) == 0 {
		q.records = nil
	} else {
		select {
		case q.ready <- struct{}{}:
		default:
		}
	}
	q.bytes -= taken
	if q.paused && q.bytes < minQueueBytes/2 {
		q.paused = false
		q.f.client.ResumeFetchPartitions(map[string][]int32{q.tp.topic: {q.tp.partition}})
	}
	return out, nil
}

// assemble returns the record, or nil for a part before the last.
func (q *queue) assemble(r *kgo.Record) (*kgo.Record, error) {
	cut := q.parts.Open()
	value, err := q.parts.Add(r.Value)
	if err != nil {
		return nil, fmt.Errorf("read partition %s/%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	switch {
	case value == nil:
		return nil, nil
	case !cut:
		return r, nil
	}
	whole := *r
	whole.Value = value
	return &whole, nil
}

// close ends the reading of the partition and drops what was not taken. It
// waits for Run, unless that has ended.
func (q *queue) close(ctx context.Context) error {
	err := q.f.request(ctx, func() {
		if q.f.queues[q.tp] == q {
			delete(q.f.queues, q.tp)
			q.f.share()
			q.f.client.RemoveConsumePartitions(map[string][]int32{q.tp.topic: {q.tp.partition}})
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// queued returns how many bytes wait in all queues.
func (f *fetcher) queued() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int64
	for _, q := range f.queues {
		q.mu.Lock()
		n += q.bytes + int64(q.parts.Held())
		q.mu.Unlock()
	}
	return n
}

func recordBytes(r *kgo.Record) int64 {
	const overhead = 200
	return int64(len(r.Key)+len(r.Value)) + overhead
}
