package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// enoughWrites is where counting ends: more would change nothing.
	enoughWrites = 100_000
	// shownNames bounds the names in a text.
	shownNames = 5
)

// writesRecord are the writes to a destination's selection of the source during
// a one-off copy, which holds some of them and others not.
type writesRecord struct {
	// From and Through bound the copy's reads.
	From    bson.Timestamp `bson:"from"`
	Through bson.Timestamp `bson:"through"`
	// Changes are events of documents, Definitions those of DDL; counting ends
	// at enoughWrites, where More is set.
	Changes     int64 `bson:"changes"`
	Definitions int64 `bson:"definitions"`
	More        bool  `bson:"more"`
	// Namespaces are those written to, Moved those that were renamed: documents
	// of them may be missing, or be there under both names.
	Namespaces []string `bson:"namespaces"`
	Moved      []string `bson:"moved"`
}

func (w *writesRecord) none() bool { return w == nil || w.Changes == 0 && w.Definitions == 0 }

// text says what the copy is.
func (w *writesRecord) text() string {
	if w.none() {
		return "nothing was written to the source meanwhile: the copy is the source at one point in time"
	}
	more := ""
	if w.More {
		more = "at least "
	}
	text := fmt.Sprintf("the copy is not one point in time: while it was made, %s%d changes of documents and %d of definitions came to the source (%s)",
		more, w.Changes, w.Definitions, someOf(w.Namespaces))
	if len(w.Moved) > 0 {
		text += "; documents of what was renamed may be missing or be there twice: " + someOf(w.Moved)
	}
	return text + ": hint: copy again while nothing writes, or add incremental to sync under a new pipeline name"
}

func someOf(names []string) string {
	if len(names) > shownNames {
		return strings.Join(names[:shownNames], ", ") + fmt.Sprintf(" and %d more", len(names)-shownNames)
	}
	return strings.Join(names, ", ")
}

// writesDuring reads, from the change topic, what was written to the group's
// selection from its load's W to its R. The topic holds a watermark at or after
// R in every partition: the run is complete. It blocks until it has read them.
func (s *Service) writesDuring(ctx context.Context, g *groupRecord) (*writesRecord, error) {
	from := map[int32]kgo.Offset{}
	for p, offset := range g.ChangeOffsets {
		from[int32(p)] = kgo.NewOffset().At(offset)
	}
	client, err := kafka.NewClient(s.cfg.Kafka, kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topics.changes: from}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	t := tally{s: s, w: &writesRecord{From: g.Watermark, Through: g.ReadThrough}, left: map[int32]*wire.Assembler{}, names: map[string]struct{}{}, moved: map[string]struct{}{}, seen: map[event.Position]struct{}{}}
	for p := range from {
		t.left[p] = s.codec.NewAssembler(wire.MaxRecordBytes)
	}
	for len(t.left) > 0 && !t.w.More {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := fetches.Err(); errors.Is(err, kerr.OffsetOutOfRange) {
			return nil, &stateError{fmt.Errorf("look for writes during the copy: %w: topic %s no longer holds the changes since the load began: hint: copy again under a new pipeline name with a longer kafka.retention", errHistoryLost, s.topics.changes)}
		} else if err != nil {
			return nil, fmt.Errorf("look for writes during the copy: %w", err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			if err := t.add(records.Next()); err != nil {
				return nil, err
			}
		}
	}
	t.w.Namespaces, t.w.Moved = slices.Sorted(maps.Keys(t.names)), slices.Sorted(maps.Keys(t.moved))
	return t.w, nil
}

// tally counts writes.
type tally struct {
	s *Service
	w *writesRecord
	// left are the partitions that have not come to Through.
	left         map[int32]*wire.Assembler
	names, moved map[string]struct{}
	// seen are DDL events, of which every partition has a copy.
	seen map[event.Position]struct{}
}

func (t *tally) add(r *kgo.Record) error {
	parts, open := t.left[r.Partition]
	if !open {
		return nil
	}
	value, err := parts.Add(r.Value)
	if err != nil || value == nil {
		return err
	}
	e, err := t.s.codec.DecodeEvent(value)
	if err != nil {
		return fmt.Errorf("decode change event partition=%s/%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	switch {
	case e.Op == event.OpWatermark && event.CompareTimes(e.Position.Time, t.w.Through) >= 0:
		delete(t.left, r.Partition)
		return nil
	case e.Op == event.OpWatermark, e.Op == event.OpRefresh, e.Op == event.OpReload, e.Op == event.OpReloadEnd,
		event.CompareTimes(e.Position.Time, t.w.From) <= 0, event.CompareTimes(e.Position.Time, t.w.Through) > 0:
		return nil
	case e.Op.IsDDL():
		return t.define(&e)
	}
	if _, ok := t.s.cfg.Rules.Target(e.NS); ok {
		t.w.Changes++
		t.names[e.NS.String()] = struct{}{}
		t.w.More = t.w.Changes >= enoughWrites
	}
	return nil
}

// define counts a DDL event once.
func (t *tally) define(e *event.Event) error {
	concerned, err := concerns(t.s.cfg.Rules, t.s.cfg.Destination, e)
	if _, again := t.seen[e.Position]; err != nil || again || !concerned {
		return err
	}
	t.seen[e.Position] = struct{}{}
	t.w.Definitions++
	t.names[e.NS.String()] = struct{}{}
	if e.Op == event.OpRename {
		t.moved[e.NS.String()] = struct{}{}
	}
	return nil
}
