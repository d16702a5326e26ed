package capture

import (
	"context"
	"fmt"
	"maps"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unused refuses to begin a pipeline whose change topic holds committed records:
// each of them came with a position, so the position was lost, and beginning
// anew would leave a gap that nobody could see.
func (s *Service) unused(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	used, err := holdsRecords(ctx, s.cfg.Kafka, s.topics.Changes)
	if err != nil || !used {
		return err
	}
	return &finalError{fmt.Errorf("begin capture pipeline %s: %w: topic %s holds changes, but topic %s holds no position behind them: "+
		"hint: was a topic deleted? the changes in between are not known; start a new pipeline name with a full load",
		s.cfg.Pipeline, ErrHistoryLost, s.topics.Changes, s.topics.State)}
}

// holdsRecords reports whether a topic holds a committed record or has held
// records that retention has removed. No transaction may be open on it.
func holdsRecords(ctx context.Context, cfg kafka.Config, topic string) (bool, error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("look for records topic=%s: %w", topic, err)
	}
	client, err := kafka.NewClient(cfg)
	if err != nil {
		return fail(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fail(err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fail(err)
	}
	left, from := map[int32]int64{}, map[int32]kgo.Offset{}
	for partition, end := range ends[topic] {
		start, _ := starts.Lookup(topic, partition)
		switch {
		case start.Offset > 0:
			return true, nil
		case end.Offset > 0:
			left[partition], from[partition] = end.Offset, kgo.NewOffset().AtStart()
		}
	}
	if len(left) == 0 {
		return false, nil
	}
	return readUntilRecord(ctx, cfg, topic, from, left)
}

// readUntilRecord reports whether a committed record comes before the ends.
func readUntilRecord(ctx context.Context, cfg kafka.Config, topic string, from map[int32]kgo.Offset, ends map[int32]int64) (bool, error) {
	// The marks of transactions are kept, because the last offset is one.
	client, err := kafka.NewClient(cfg, kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return false, fmt.Errorf("look for records topic=%s: %w", topic, err)
	}
	defer client.Close()
	for left := maps.Clone(ends); len(left) > 0; {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if err := fetches.Err(); err != nil {
			return false, fmt.Errorf("look for records topic=%s: %w", topic, err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			r := records.Next()
			if !r.Attrs.IsControl() {
				return true, nil
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		}
	}
	return false, nil
}
