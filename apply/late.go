package apply

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
)

// late refuses a group that would begin with a run of which Kafka no longer
// holds what it needs: its documents, or the changes since it began.
func (s *Service) late(ctx context.Context, m *state.Manifest) error {
	if m.WithoutDocuments && s.cfg.Sync.Full {
		return &stateError{fmt.Errorf("join run %s: it was made without documents, since no destination wanted any then: "+
			"hint: begin under a new pipeline name", m.Run)}
	}
	return s.kafkaRetry(ctx, func(ctx context.Context) error {
		starts, err := kadm.NewClient(s.fetcher.client).ListStartOffsets(ctx, s.topics.changes, s.topics.snapshot)
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			return fmt.Errorf("list start offsets: %w", err)
		}
		if p, first, gone := goneFrom(starts, s.topics.changes, m.ChangeOffsets); gone {
			return &stateError{fmt.Errorf("join run %s: %w: topic %s holds partition %d from offset %d on, and the run needs it from %d: its retention passed: "+
				"hint: begin under a new pipeline name, which loads from the source; a longer kafka.retention keeps changes for destinations to come",
				m.Run, errHistoryLost, s.topics.changes, p, first, m.ChangeOffsets[p])}
		}
		if !s.cfg.Sync.Full {
			return nil
		}
		if p, first, gone := goneFrom(starts, s.topics.snapshot, m.SnapshotOffsets); gone {
			return &stateError{fmt.Errorf("join run %s: %w: topic %s holds partition %d from offset %d on, and the run's documents begin at %d: they were deleted when every destination then known had loaded them: "+
				"hint: begin under a new pipeline name, which loads from the source; snapshot.retain_runs: 1 keeps them for destinations to come",
				m.Run, errHistoryLost, s.topics.snapshot, p, first, m.SnapshotOffsets[p])}
		}
		return nil
	})
}

// goneFrom finds a partition whose records begin behind an offset.
func goneFrom(starts kadm.ListedOffsets, topic string, needed []int64) (partition int, first int64, gone bool) {
	for p, offset := range needed {
		if o, ok := starts.Lookup(topic, int32(p)); ok && o.Offset > offset {
			return p, o.Offset, true
		}
	}
	return 0, 0, false
}
