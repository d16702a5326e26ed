package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// own claims the partition and applies it.
func (w *worker) own(ctx context.Context, g *groupRecord) error {
	w.committer = &committer{client: w.s.client, store: w.s.store, exact: w.s.able.transactions, policy: w.s.policy, unexpected: w.unexpected}
	if err := w.committer.open(); err != nil {
		return err
	}
	defer w.committer.close(ctx)
	if err := w.claim(ctx, g); err != nil {
		return err
	}
	if w.tp.topic == w.s.topics.snapshot && w.held.Loaded == g.Run {
		w.s.poke()
		return w.rest(ctx)
	}
	q, err := w.s.fetcher.open(ctx, w.tp, w.held.Offset)
	if err != nil {
		return err
	}
	w.q = q
	if w.tp.topic == w.s.topics.changes {
		w.watch = newWatch(w.s.store, w.tp.partition)
		w.watch.most = w.s.mostWanted
		if err := w.look(ctx); err != nil {
			return errors.Join(err, q.close(context.WithoutCancel(ctx)))
		}
		defer w.s.progress.unwatch(w.tp)
	}
	w.target = newTarget(w.s.client, w.s.able)
	w.target.shards = w.s.newSharder()
	w.target.guard = func(ctx context.Context) error { return w.s.store.owns(ctx, &w.held) }
	w.s.progress.set(w.tp, &w.held)
	defer w.s.progress.drop(w.tp)
	apply := w.changes
	if w.tp.topic == w.s.topics.snapshot {
		apply = func(ctx context.Context, records []*kgo.Record) (bool, error) { return w.load(ctx, g.Run, records) }
	}
	return errors.Join(w.consume(ctx, apply), q.close(context.WithoutCancel(ctx)))
}

// claim raises the partition's epoch and learns where it stands.
func (w *worker) claim(ctx context.Context, g *groupRecord) error {
	first := offsetRecord{ID: w.id, Exact: w.s.able.transactions, Session: w.committer.sessionID()}
	starts := g.ChangeOffsets
	if w.tp.topic == w.s.topics.snapshot {
		starts = g.SnapshotOffsets
	} else {
		first.CatchingUp = true
		// What lies before the first offset was at or before it, and loaded.
		first.Watermark = g.Watermark
	}
	if int(w.tp.partition) >= len(starts) {
		return fmt.Errorf("apply partition %s/%d: the topic has more partitions than the %d that run %s was made for: partition counts are fixed for the life of a topic: hint: use a new pipeline name",
			w.tp.topic, w.tp.partition, len(starts), g.Run)
	}
	first.Offset = starts[w.tp.partition]
	return w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		held, err := w.s.store.raise(ctx, first)
		if err != nil {
			return err
		}
		if err := w.s.ruled(ctx); err != nil {
			return err
		}
		if !w.s.able.transactions || !held.Exact {
			// What was delivered before may have been applied, and no later
			// than now did it stand in the topic.
			end, err := w.s.endOffset(ctx, w.tp)
			if err != nil {
				return err
			}
			held.Redelivered = max(held.Redelivered, end)
		}
		held.Exact = w.s.able.transactions
		w.held = held
		return nil
	})
}

// endOffset returns the end of a partition, open transactions included.
func (s *Service) endOffset(ctx context.Context, tp topicPartition) (int64, error) {
	offsets, err := kadm.NewClient(s.fetcher.client).ListEndOffsets(ctx, tp.topic)
	if err != nil {
		return 0, fmt.Errorf("list end offsets topic=%s: %w", tp.topic, err)
	}
	o, ok := offsets.Lookup(tp.topic, tp.partition)
	if !ok {
		return 0, fmt.Errorf("list end offsets topic=%s: no partition %d", tp.topic, tp.partition)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("list end offsets partition=%s/%d: %w", tp.topic, tp.partition, o.Err)
	}
	return o.Offset, nil
}
