package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// freshWatermark is how long the start of a run waits for a watermark to
	// come before it takes an earlier one: capture sends one a second while
	// the source moves.
	freshWatermark = 3 * time.Second
	// firstLookback is how many records of each partition are looked at first
	// for an earlier watermark.
	firstLookback = 1000
	// followed is the partition of the change topic that followChanges reads.
	followed = 0
)

// marks gathers the copies of watermarks until one is known in every partition.
type marks struct {
	partitions int
	seen       map[bson.Timestamp]map[int32]int64
	// best is the latest watermark that is complete; zero before.
	best    bson.Timestamp
	offsets map[int32]int64
}

func newMarks(partitions int) *marks {
	return &marks{partitions: partitions, seen: map[bson.Timestamp]map[int32]int64{}}
}

// add takes over one copy. A later watermark makes earlier ones worthless.
func (m *marks) add(partition int32, w bson.Timestamp, offset int64) {
	if event.CompareTimes(w, m.best) <= 0 {
		return
	}
	copies := m.seen[w]
	if copies == nil {
		copies = map[int32]int64{}
		m.seen[w] = copies
	}
	copies[partition] = offset
	if len(copies) < m.partitions {
		return
	}
	m.best, m.offsets = w, copies
	maps.DeleteFunc(m.seen, func(t bson.Timestamp, _ map[int32]int64) bool { return event.CompareTimes(t, w) <= 0 })
}

// found reports whether a watermark is complete.
func (m *marks) found() bool { return m.offsets != nil }

// findWatermark returns a watermark that stands in every partition of the change
// topic, with the offsets of its copies: a new one if it comes soon, else the
// latest there is, else the first that comes. It blocks until then and calls
// waiting, once, when there is none yet.
func (s *Service) findWatermark(ctx context.Context, waiting func()) (bson.Timestamp, []int64, error) {
	log, err := openLog(ctx, s.cfg.Kafka, s.topics.Changes)
	if err != nil {
		return bson.Timestamp{}, nil, err
	}
	m := newMarks(len(log.partitions()))
	visit := func(r *kgo.Record) error {
		if !isWatermark(r) {
			return nil
		}
		e, err := s.controlEvent(r, nil)
		if err != nil || e == nil || e.Op != event.OpWatermark {
			return err
		}
		m.add(r.Partition, e.Position.Time, r.Offset)
		return nil
	}
	await := func(ctx context.Context) error {
		return log.follow(ctx, log.ends, func(r *kgo.Record) (bool, error) {
			err := visit(r)
			return m.found(), err
		})
	}
	soon, cancel := context.WithTimeout(ctx, freshWatermark)
	defer cancel()
	err = await(soon)
	if err != nil && (ctx.Err() != nil || soon.Err() == nil) {
		return bson.Timestamp{}, nil, err
	}
	if !m.found() {
		if err := lookBack(ctx, log, m, visit); err != nil {
			return bson.Timestamp{}, nil, err
		}
	}
	if !m.found() {
		// What was seen so far stays in m, so that no copy is missed.
		waiting()
		if err := await(ctx); err != nil {
			return bson.Timestamp{}, nil, err
		}
	}
	return m.best, log.inOrder(m.offsets), nil
}

// lookBack searches ever longer ends of the partitions.
func lookBack(ctx context.Context, log *topicLog, m *marks, visit func(*kgo.Record) error) error {
	for n, more := int64(firstLookback), true; more && !m.found(); n *= 10 {
		more = false
		from := map[int32]int64{}
		for _, p := range log.partitions() {
			from[p] = max(log.starts[p], log.ends[p]-n)
			more = more || from[p] > log.starts[p]
		}
		if err := log.through(ctx, from, visit); err != nil {
			return err
		}
	}
	return nil
}

// isWatermark tells a watermark by its key, which begins with '|'.
func isWatermark(r *kgo.Record) bool { return bytes.HasPrefix(r.Key, []byte("|")) }

// controlEvent decodes a record of the change topic if it is a watermark or may
// be DDL, by its key: that of DDL ends with '|' (as do those of collections that
// are keyed by namespace). For other records it returns nil, and for the parts
// of a record before the last; they need parts, which is nil where only
// watermarks count.
func (s *Service) controlEvent(r *kgo.Record, parts *wire.Assembler) (*event.Event, error) {
	if r.Attrs.IsControl() || !isWatermark(r) && !bytes.HasSuffix(r.Key, []byte("|")) {
		return nil, nil
	}
	value, err := r.Value, error(nil)
	if parts != nil {
		value, err = parts.Add(r.Value)
	}
	if err == nil && value == nil {
		return nil, nil
	}
	var e event.Event
	if err == nil {
		e, err = s.codec.DecodeEvent(value)
	}
	if errors.Is(err, wire.ErrUnknownSchema) {
		return nil, &refusedError{reason: fmt.Sprintf("topic %s partition %d offset %d: %v", r.Topic, r.Partition, r.Offset, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("read topic %s partition=%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return &e, nil
}

// followChanges hands every DDL event and every watermark from W's on to visit,
// in the order of the source, until visit says done. One partition is enough: it
// has a copy of each, and all copies of one are committed together.
func (s *Service) followChanges(ctx context.Context, offset int64, visit func(*event.Event) (done bool, err error)) error {
	log := &topicLog{cfg: s.cfg.Kafka, topic: s.topics.Changes}
	parts := s.codec.NewAssembler(wire.MaxRecordBytes)
	err := log.follow(ctx, map[int32]int64{followed: offset}, func(record *kgo.Record) (bool, error) {
		e, err := s.controlEvent(record, parts)
		if err != nil || e == nil {
			return err != nil, err
		}
		if e.Op != event.OpWatermark && !e.Op.IsDDL() {
			return false, nil
		}
		done, err := visit(e)
		return done || err != nil, err
	})
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return fmt.Errorf("%w: topic %s no longer holds offset %d of partition %d, from which the load needs its changes: "+
			"hint: the load took longer than the topic's retention; raise kafka.retention and set up the pipeline again under a new name",
			ErrHistoryLost, s.topics.Changes, offset, followed)
	}
	return err
}
