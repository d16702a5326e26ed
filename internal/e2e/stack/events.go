package stack

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/wire"
)

// Events counts what stands on the change topic.
type Events struct {
	// Data are events of documents, Definitions the DDL events, each of which
	// has a copy in every partition and counts once.
	Data, Definitions int64
	// Repeated are data events whose position stands there more than once.
	Repeated int64
}

// CountEvents reads the whole change topic, as far as it is committed.
func CountEvents(ctx context.Context, brokers []string, pipeline string) (Events, error) {
	topic := route.TopicsOf(pipeline).Changes
	client, err := kafka.NewClient(kafka.Config{Brokers: brokers, ClientID: "count-events"},
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return Events{}, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return Events{}, fmt.Errorf("list end of %s: %w", topic, err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	codec, err := wire.NewCodec()
	if err != nil {
		return Events{}, err
	}
	var n Events
	seen := map[event.Position]bool{}
	parts := map[int32]*wire.Assembler{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return Events{}, fmt.Errorf("read %s: %w", topic, err)
		}
		for record := range fetches.RecordsAll() {
			if record.Offset+1 >= left[record.Partition] {
				delete(left, record.Partition)
			}
			if record.Attrs.IsControl() {
				continue
			}
			if parts[record.Partition] == nil {
				parts[record.Partition] = codec.NewAssembler(wire.MaxRecordBytes)
			}
			value, err := parts[record.Partition].Add(record.Value)
			if err == nil && value == nil {
				continue // the record's other parts follow
			}
			var e event.Event
			if err == nil {
				e, err = codec.DecodeEvent(value)
			}
			if err != nil {
				return Events{}, fmt.Errorf("decode %s partition=%d offset=%d: %w", topic, record.Partition, record.Offset, err)
			}
			n.add(&e, seen)
		}
	}
	return n, nil
}

// add counts an event. Watermarks and refreshes do not count, and may have the
// position of one that does.
func (n *Events) add(e *event.Event, seen map[event.Position]bool) {
	if e.Op == event.OpWatermark || e.Op == event.OpRefresh {
		return
	}
	again := seen[e.Position]
	seen[e.Position] = true
	switch {
	case e.Op.IsData() && again:
		n.Repeated++
	case e.Op.IsData():
		n.Data++
	case !again:
		n.Definitions++
	}
}
