package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kgo"
)

// election is this process's membership of the pipeline's capture group, whose
// topic has one partition: who owns it is active, all others stand by. The
// group only chooses; the transactional id fences.
type election struct {
	client *kgo.Client
	topic  string
	// patience bounds how long a rebalance waits for a tenure's end.
	patience time.Duration
	// tenures hands over the next tenure; its capacity of one is enough since
	// a partition is lost before it can be won again.
	tenures chan *tenure
	// joined is called whenever the group was joined, with a partition or
	// without.
	joined func()
	// current is touched by the client's callbacks only, which it calls one
	// after another.
	current *tenure
}

// tenure is the time in which the partition is owned.
type tenure struct {
	// ended closes when the partition is lost; done is closed by the owner of
	// the tenure when nothing of it runs any more.
	ended, done chan struct{}
}

// newElection joins the group. The caller closes it, which leaves the group at
// once.
func newElection(cfg *Config, topic string, joined func()) (*election, error) {
	e := &election{topic: topic, patience: cfg.DrainTimeout, joined: joined, tenures: make(chan *tenure, 1)}
	group := route.CaptureGroup(cfg.Pipeline)
	client, err := kafka.NewClient(cfg.Kafka,
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(cfg.SessionTimeout),
		// Members that died while they joined hold a rebalance up for this
		// long.
		kgo.RebalanceTimeout(max(cfg.DrainTimeout, cfg.SessionTimeout)),
		// Also how soon a standby hears that the owner is gone.
		kgo.HeartbeatInterval(cfg.SessionTimeout/8),
		// A member that joins does not take the partition from its owner.
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.OnPartitionsAssigned(e.assigned),
		kgo.OnPartitionsRevoked(e.revoked),
		kgo.OnPartitionsLost(e.lost),
	)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", group, err)
	}
	// Membership is all that is wanted: the topic's records are not read.
	client.PauseFetchTopics(topic)
	e.client = client
	return e, nil
}

func (e *election) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	e.joined()
	if len(partitions[e.topic]) == 0 || e.current != nil {
		return
	}
	e.current = &tenure{ended: make(chan struct{}), done: make(chan struct{})}
	e.tenures <- e.current
}

// revoked lets the tenure commit what it has before the next owner starts.
func (e *election) revoked(ctx context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[e.topic]) == 0 || e.current == nil {
		return
	}
	t := e.end()
	if t == nil {
		return
	}
	patience := time.NewTimer(e.patience)
	defer patience.Stop()
	select {
	case <-t.done:
	case <-patience.C: // the next owner's fence makes sure of it
	case <-ctx.Done():
	}
}

func (e *election) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	if len(partitions[e.topic]) > 0 && e.current != nil {
		e.end()
	}
}

// end ends the current tenure and returns it, or nil if nobody had taken it
// over yet.
func (e *election) end() *tenure {
	t := e.current
	e.current = nil
	close(t.ended)
	select {
	case <-e.tenures:
		return nil
	default:
		return t
	}
}

// watch blocks until ctx ends, close is called (nil) or the group can no longer be
// taken part in.
// Failures that the client gets over by itself go to tolerate, whose error ends
// the watch.
func (e *election) watch(ctx context.Context, tolerate func(error) error) error {
	for {
		fetches := e.client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if fetches.IsClientClosed() {
			return nil
		}
		for _, f := range fetches.Errors() {
			err := fmt.Errorf("take part in the election of the active capture: %w", f.Err)
			var session *kgo.ErrGroupSession
			if !errors.As(f.Err, &session) || kafka.Classify(session.Err) == retry.Stop {
				return err
			}
			if err := tolerate(err); err != nil {
				return err
			}
		}
	}
}

// close leaves the group.
func (e *election) close() { e.client.Close() }
