package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// firstLookback is how long before a time its watermark is looked for
	// first: capture repeats the last one every second. Each next look goes ten
	// times as far.
	firstLookback = time.Minute
	// watermarkPrefix is that of a watermark's record key, which names no
	// namespace.
	watermarkPrefix = '|'
)

// errNoWatermark is returned where the change topic holds no watermark at all:
// capture has not begun.
var errNoWatermark = errors.New("the change topic holds no watermark yet")

// mark is a copy of a watermark.
type mark struct {
	time   bson.Timestamp
	offset int64
}

// marks holds the newest watermark of each partition that is not later than
// through, by its first copy there.
type marks struct {
	through bson.Timestamp
	newest  map[int32]mark
	// later is the first one that is later than through, if any.
	later bson.Timestamp
}

// add takes over one copy and reports whether it is later than what counts.
func (m *marks) add(partition int32, w bson.Timestamp, offset int64) (later bool) {
	if event.CompareTimes(w, m.through) > 0 {
		if m.later.IsZero() || event.CompareTimes(w, m.later) < 0 {
			m.later = w
		}
		return true
	}
	if held, ok := m.newest[partition]; !ok || event.CompareTimes(w, held.time) > 0 {
		m.newest[partition] = mark{w, offset}
	}
	return false
}

// least returns the oldest of the partitions' newest watermarks, and whether
// they are all the same.
func (m *marks) least() (w bson.Timestamp, same bool) {
	first := true
	same = true
	for _, one := range m.newest {
		if !first {
			same = same && one.time == w
		}
		if first || event.CompareTimes(one.time, w) < 0 {
			w, first = one.time, false
		}
	}
	return w, same
}

// newestMark returns the newest watermark at or before through that every
// partition of the change topic holds, and the offsets of its copies: everything
// later than it stands behind them. A zero through is the present. Where the
// topic reaches back to none it is lost history; where it holds none,
// errNoWatermark. It blocks until it has read the end of the topic, or as much
// as it takes.
func (s *Service) newestMark(ctx context.Context, through bson.Timestamp) (w bson.Timestamp, offsets []int64, err error) {
	wall := time.Now()
	m := marks{through: bson.Timestamp{T: ^uint32(0), I: ^uint32(0)}}
	if !through.IsZero() {
		m.through, wall = through, time.Unix(int64(through.T), 0)
	}
	for span := firstLookback; ; {
		found, all, err := s.lookBack(ctx, &m, wall.Add(-span))
		if err != nil {
			return w, nil, err
		}
		same := false
		w, same = m.least()
		switch {
		case found && same:
			for _, p := range slices.Sorted(maps.Keys(m.newest)) {
				offsets = append(offsets, m.newest[p].offset)
			}
			return w, offsets, nil
		case found:
			m.through = w // the newer ones were not complete when they were read
		case all && m.later.IsZero():
			return w, nil, errNoWatermark
		case all:
			return w, nil, &stateError{fmt.Errorf("begin at cluster time %s: %w: topic %s holds changes from %s on: "+
				"hint: begin later, or under a new pipeline name, which reads the source's oplog from that time if it reaches back so far",
				clusterTime(m.through), errHistoryLost, s.topics.changes, clusterTime(m.later))}
		default:
			span *= 10
		}
	}
}

// clusterTime shows a cluster time in both ways in which it can be configured.
func clusterTime(t bson.Timestamp) string {
	return fmt.Sprintf("%d.%d (%s)", t.T, t.I, time.Unix(int64(t.T), 0).UTC().Format(time.RFC3339))
}

// lookBack gathers the watermarks that brokers have taken since a time; found
// says that each partition has one, all that there is nothing before that time.
func (s *Service) lookBack(ctx context.Context, m *marks, since time.Time) (found, all bool, err error) {
	admin := kadm.NewClient(s.fetcher.client)
	listed := func(offsets kadm.ListedOffsets, err error) (map[int32]int64, error) {
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list offsets of topic %s: %w", s.topics.changes, err)
		}
		byPartition := map[int32]int64{}
		for p, o := range offsets[s.topics.changes] {
			byPartition[p] = o.Offset
		}
		return byPartition, nil
	}
	starts, err := listed(admin.ListStartOffsets(ctx, s.topics.changes))
	if err != nil {
		return false, false, err
	}
	from, err := listed(admin.ListOffsetsAfterMilli(ctx, max(since.UnixMilli(), 0), s.topics.changes))
	if err != nil {
		return false, false, err
	}
	ends, err := listed(admin.ListCommittedOffsets(ctx, s.topics.changes))
	if err != nil {
		return false, false, err
	}
	all = true
	for p, start := range starts {
		from[p] = max(from[p], start)
		all = all && from[p] == start
	}
	m.newest = map[int32]mark{}
	err = s.readMarks(ctx, m, from, ends)
	return len(ends) > 0 && len(m.newest) == len(ends), all, err
}

// readMarks reads partitions from one offset to another, or until a watermark is
// later than what counts.
func (s *Service) readMarks(ctx context.Context, m *marks, from, ends map[int32]int64) error {
	left, offsets := maps.Clone(ends), map[int32]kgo.Offset{}
	for p, end := range ends {
		if from[p] >= end {
			delete(left, p)
			continue
		}
		offsets[p] = kgo.NewOffset().At(from[p])
	}
	if len(left) == 0 {
		return nil
	}
	// The marks of transactions are kept, because the last offset is one.
	client, err := kafka.NewClient(s.cfg.Kafka, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topics.changes: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchPartitionBytes))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fetches.Err(); errors.Is(err, kerr.OffsetOutOfRange) {
			return fmt.Errorf("look for a watermark topic=%s: its retention passed meanwhile", s.topics.changes)
		} else if err != nil {
			return fmt.Errorf("look for a watermark topic=%s: %w", s.topics.changes, err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			if err := s.takeMark(m, left, records.Next()); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeMark takes over a record; its partition is done with at its end.
func (s *Service) takeMark(m *marks, left map[int32]int64, r *kgo.Record) error {
	end, open := left[r.Partition]
	if !open || r.Offset >= end {
		delete(left, r.Partition)
		return nil
	}
	if r.Offset+1 >= end {
		delete(left, r.Partition)
	}
	if r.Attrs.IsControl() || !bytes.HasPrefix(r.Key, []byte{watermarkPrefix}) {
		return nil
	}
	e, err := s.codec.DecodeEvent(r.Value)
	if err != nil {
		return fmt.Errorf("decode change event partition=%s/%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	if e.Op == event.OpWatermark && m.add(r.Partition, e.Position.Time, r.Offset) {
		delete(left, r.Partition)
	}
	return nil
}
