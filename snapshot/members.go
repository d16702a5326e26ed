package snapshot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// membership is this process's part in the consumer group that deals out the
// partitions of the chunks topic. It starts an owner for each partition that it
// gets, and stops it before it gives the partition up.
type membership struct {
	s *Service

	mu     sync.Mutex
	owners map[int32]*tenure
}

// tenure is one owner's time.
type tenure struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newMembership(s *Service) *membership {
	return &membership{s: s, owners: map[int32]*tenure{}}
}

// run takes part until ctx ends or an owner fails. Owners stop first, then the
// group is left, so that a partition is given up only when nobody works on it.
func (m *membership) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	client, err := kafka.NewClient(m.s.cfg.Kafka,
		kgo.ConsumerGroup(route.SnapshotGroup(m.s.cfg.Pipeline)),
		kgo.ConsumeTopics(m.s.topics.Chunks),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(m.s.cfg.SessionTimeout),
		// Members that died while they joined hold a rebalance up for this
		// long.
		kgo.RebalanceTimeout(m.s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(m.s.cfg.SessionTimeout/5),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			for _, partition := range got[m.s.topics.Chunks] {
				m.start(gctx, g, partition)
			}
		}),
		kgo.OnPartitionsRevoked(m.stop),
		kgo.OnPartitionsLost(m.stop),
	)
	if err != nil {
		return err
	}
	// The group chooses owners; records are read when an owner begins.
	client.PauseFetchTopics(m.s.topics.Chunks)
	g.Go(func() error {
		// Inside of the errgroup, so that no callback comes after its Wait.
		defer client.Close()
		defer m.stopAll()
		return m.heed(gctx, client)
	})
	return g.Wait()
}

// heed polls for nothing but the group's errors.
func (m *membership) heed(ctx context.Context, client *kgo.Client) error {
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			if kafka.Classify(e.Err) == retry.Stop {
				return fmt.Errorf("share chunks group=%s: %w", route.SnapshotGroup(m.s.cfg.Pipeline), e.Err)
			}
			m.s.log.Warn().Err(e.Err).Msg("consumer group is disturbed")
		}
	}
}

// start starts the owner of a partition.
func (m *membership) start(ctx context.Context, g *errgroup.Group, partition int32) {
	ctx, cancel := context.WithCancel(ctx)
	t := &tenure{cancel: cancel, done: make(chan struct{})}
	m.mu.Lock()
	former := m.owners[partition]
	m.owners[partition] = t
	m.mu.Unlock()
	m.s.metrics.partitions.Inc()
	g.Go(func() error {
		defer m.s.metrics.partitions.Dec()
		defer close(t.done)
		defer cancel()
		if former != nil {
			<-former.done
		}
		o := owner{s: m.s, partition: partition, log: m.s.log.With().Int32(logfield.Partition, partition).Logger()}
		err := o.run(ctx)
		if ctx.Err() != nil && !isFinal(err) {
			return nil // stopped: the partition is somebody else's now
		}
		return err
	})
}

// stop stops owners and waits until what they read is committed, which takes
// drainTimeout at most. The group holds the partition back meanwhile.
func (m *membership) stop(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	var ending []*tenure
	m.mu.Lock()
	for _, partition := range lost[m.s.topics.Chunks] {
		if t := m.owners[partition]; t != nil {
			delete(m.owners, partition)
			ending = append(ending, t)
		}
	}
	m.mu.Unlock()
	finish(ending)
}

// stopAll stops every owner.
func (m *membership) stopAll() {
	m.mu.Lock()
	ending := slices.Collect(maps.Values(m.owners))
	clear(m.owners)
	m.mu.Unlock()
	finish(ending)
}

func finish(ending []*tenure) {
	for _, t := range ending {
		t.cancel()
	}
	for _, t := range ending {
		<-t.done
	}
}
