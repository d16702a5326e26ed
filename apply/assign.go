package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mirrorInterval is how often Kafka's group offsets are brought up to the
// destination's.
const mirrorInterval = time.Second

// drainMargin is what a rebalance may take beyond the drain of revoked workers.
const drainMargin = 2 * time.Second

// assigner is this process's membership of the consumer group. It decides which
// partitions have a worker here; the records are fetched by the fetcher.
type assigner struct {
	s      *Service
	client *kgo.Client
	// launch starts a worker's goroutine in the service's errgroup.
	launch func(func() error)
	// hard ends when workers must not finish what they have in hand.
	hard context.Context //nolint:containedctx // The parent of all workers' contexts, for callbacks that get another.

	// leaving says that the workers end because the service does.
	leaving atomic.Bool

	mu      sync.Mutex
	workers map[topicPartition]*handle
	// mirrored is what Kafka was told.
	mirrored map[topicPartition]int64
}

// handle stops one worker.
type handle struct {
	stop   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// join makes this process a member of the group. From then on callbacks start
// and stop workers, until close.
func (s *Service) join(hard context.Context, launch func(func() error)) (*assigner, error) {
	a := &assigner{s: s, launch: launch, hard: hard, workers: map[topicPartition]*handle{}, mirrored: map[topicPartition]int64{}}
	client, err := kafka.NewClient(s.cfg.Kafka,
		kgo.ConsumerGroup(route.ApplyGroup(s.cfg.Pipeline, s.cfg.Destination, s.cfg.Group)),
		kgo.ConsumeTopics(s.topics.changes, s.topics.snapshot),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(s.cfg.SessionTimeout/5),
		// Members that died while they joined hold a rebalance up for this
		// long; live ones need no more than the drain to give partitions up.
		kgo.RebalanceTimeout(max(s.cfg.Drain+drainMargin, s.cfg.SessionTimeout)),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) { a.start(added) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { a.end(gone, s.cfg.Drain) }),
		// What is lost belongs to another member already, whose epoch keeps
		// these workers out: they are cut off.
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { a.end(gone, 0) }),
	)
	if err != nil {
		return nil, err
	}
	client.PauseFetchTopics(s.topics.changes, s.topics.snapshot)
	a.client = client
	return a, nil
}

// run reports what the group's client cannot get over and mirrors offsets,
// until ctx ends; then it leaves the group, which stops all workers.
func (a *assigner) run(ctx context.Context) error {
	defer a.leave(ctx)
	next := time.Now()
	for {
		poll, cancel := context.WithTimeout(ctx, mirrorInterval)
		fetches := a.client.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, kgo.ErrClientClosed) {
				continue
			}
			if kafka.Classify(e.Err) != retry.Stop {
				a.s.log.Warn().Err(e.Err).Msg("consumer group fails for now") // the client joins again by itself
				continue
			}
			return fmt.Errorf("consumer group %s: %w", route.ApplyGroup(a.s.cfg.Pipeline, a.s.cfg.Destination, a.s.cfg.Group), e.Err)
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(mirrorInterval)
			a.mirror(ctx)
		}
	}
}

// leave leaves the group, which stops all workers, also where the brokers do not
// answer any more.
func (a *assigner) leave(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.s.cfg.Drain+endTimeout)
	defer cancel()
	a.leaving.Store(true)
	if err := a.client.LeaveGroupContext(end); err != nil {
		a.s.log.Warn().Err(err).Msg("left the group without a word; its partitions are taken over after the session timeout")
	}
	a.client.Close()
}

// start begins a worker for each assigned partition. It does not wait for them,
// so that a rebalance takes no longer than it must.
func (a *assigner) start(added map[string][]int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for topic, partitions := range added {
		for _, p := range partitions {
			tp := topicPartition{topic, p}
			if _, running := a.workers[tp]; running {
				continue
			}
			ctx, cancel := context.WithCancel(a.hard)
			h := &handle{stop: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
			a.workers[tp] = h
			w := a.s.newWorker(tp, h.stop)
			a.launch(func() error {
				defer close(h.done)
				defer cancel()
				return a.ended(tp, h.stop, w.run(ctx))
			})
		}
	}
	a.s.metrics.partitions.Set(float64(len(a.workers)))
}

// end stops the workers of partitions and returns when none of them can write
// any more: each finishes the batch in hand within the drain time, or is cut
// off.
func (a *assigner) end(gone map[string][]int32, within time.Duration) {
	a.mu.Lock()
	var ending []*handle
	for topic, partitions := range gone {
		for _, p := range partitions {
			tp := topicPartition{topic, p}
			if h, ok := a.workers[tp]; ok {
				delete(a.workers, tp)
				delete(a.mirrored, tp)
				close(h.stop)
				ending = append(ending, h)
			}
		}
	}
	a.s.metrics.partitions.Set(float64(len(a.workers)))
	a.mu.Unlock()
	drain := time.NewTimer(within)
	defer drain.Stop()
	cut := drain.C
	for _, h := range ending {
		select {
		case <-h.done:
		case <-cut:
			cut = nil
			for _, h := range ending {
				h.cancel()
			}
		}
		<-h.done
	}
}

// mirror commits the destination's offsets to Kafka, for lag tools alone. The
// destination has them already, and a failure is made good by the next time.
func (a *assigner) mirror(ctx context.Context) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	a.mu.Lock()
	for tp := range a.workers {
		offset, ok := a.s.progress.offset(tp)
		if !ok || a.mirrored[tp] == offset {
			continue
		}
		a.mirrored[tp] = offset
		if offsets[tp.topic] == nil {
			offsets[tp.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[tp.topic][tp.partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	a.mu.Unlock()
	if len(offsets) > 0 {
		a.client.CommitOffsets(ctx, offsets, nil)
	}
}
