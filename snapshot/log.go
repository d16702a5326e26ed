package snapshot

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicLog reads a topic's committed records by offset, without a group. The
// offsets are those of its opening. It is not safe for concurrent use.
type topicLog struct {
	cfg   kafka.Config
	topic string
	// starts and ends are every partition's first offset and the one after its
	// last record, committed or not.
	starts, ends map[int32]int64
}

// openLog asks for a topic's offsets.
func openLog(ctx context.Context, cfg kafka.Config, topic string) (*topicLog, error) {
	client, err := kafka.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	l, err := listLog(ctx, kadm.NewClient(client), topic)
	if err != nil {
		return nil, err
	}
	l.cfg = cfg
	return l, nil
}

// listLog is openLog for those who look at offsets alone.
func listLog(ctx context.Context, admin *kadm.Client, topic string) (*topicLog, error) {
	l := &topicLog{topic: topic}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		l.starts, err = offsetsOf(starts, topic)
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets topic=%s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		l.ends, err = offsetsOf(ends, topic)
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets topic=%s: %w", topic, err)
	}
	return l, nil
}

func offsetsOf(listed kadm.ListedOffsets, topic string) (map[int32]int64, error) {
	if err := listed.Error(); err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for partition, o := range listed[topic] {
		offsets[partition] = o.Offset
	}
	return offsets, nil
}

// follow hands the committed records from the given offsets on to visit, in the
// order of each partition, until visit says stop. The marks of transactions are
// among them, because without them the end of a partition could not be seen. It
// blocks; visit runs on the caller's goroutine and may keep the records. An
// offset that is no longer there is an error that wraps kerr.OffsetOutOfRange.
func (l *topicLog) follow(ctx context.Context, from map[int32]int64, visit func(*kgo.Record) (stop bool, err error)) error {
	offsets := map[int32]kgo.Offset{}
	for partition, offset := range from {
		offsets[partition] = kgo.NewOffset().At(offset)
	}
	client, err := kafka.NewClient(l.cfg,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read topic %s: %w", l.topic, err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			stop, err := visit(records.Next())
			if stop || err != nil {
				return err
			}
		}
	}
}

// through is follow that stops at the ends. It waits for transactions that were
// open when the log was opened.
func (l *topicLog) through(ctx context.Context, from map[int32]int64, visit func(*kgo.Record) error) error {
	left := maps.Clone(l.ends)
	for partition, end := range l.ends {
		if offset, ok := from[partition]; !ok || offset >= end {
			delete(left, partition)
		}
	}
	if len(left) == 0 {
		return nil
	}
	reading := map[int32]int64{}
	for partition := range left {
		reading[partition] = from[partition]
	}
	return l.follow(ctx, reading, func(r *kgo.Record) (bool, error) {
		end, ok := l.ends[r.Partition]
		if ok && r.Offset < end && !r.Attrs.IsControl() {
			if err := visit(r); err != nil {
				return true, err
			}
		}
		if r.Offset+1 >= end {
			delete(left, r.Partition)
		}
		return len(left) == 0, nil
	})
}

// partitions lists the topic's partitions in order.
func (l *topicLog) partitions() []int32 { return slices.Sorted(maps.Keys(l.ends)) }

// inOrder returns offsets by partition number.
func (l *topicLog) inOrder(offsets map[int32]int64) []int64 {
	list := make([]int64, 0, len(offsets))
	for _, partition := range l.partitions() {
		list = append(list, offsets[partition])
	}
	return list
}
