package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// begin makes a run: a watermark, the collections, their chunks. Nothing of it
// is there for others before its one transaction is committed. The caller has
// seen, after it obtained its producer, that there is no run.
func (o *owner) begin(ctx context.Context, p *producer) (state.Manifest, error) {
	s := o.s
	w, offsets, err := s.findWatermark(ctx, func() {
		o.log.Info().Str(logfield.Topic, s.topics.Changes).Msg("waiting for capture to publish a watermark")
	})
	if err != nil {
		return state.Manifest{}, err
	}
	// Capture has bound the pipeline to its source before its first watermark.
	view, err := state.Load(ctx, s.cfg.Kafka, s.topics.State)
	if err != nil {
		return state.Manifest{}, err
	}
	if err := o.checkSource(view); err != nil {
		return state.Manifest{}, err
	}
	snapshot, err := openLog(ctx, s.cfg.Kafka, s.topics.Snapshot)
	if err != nil {
		return state.Manifest{}, err
	}
	m := state.Manifest{
		Run: bson.NewObjectID().Hex(), State: state.RunLoading, Started: time.Now().UTC(),
		Watermark: w, ChangeOffsets: offsets, SnapshotOffsets: snapshot.inOrder(snapshot.ends), WithoutDocuments: s.cfg.WithoutDocuments,
		Select: &s.cfg.Patterns,
	}
	// Everything that is listed is at least as late as W: the primary's own
	// state is later than what a majority has.
	if err := reached(ctx, s.client, w); err != nil {
		return state.Manifest{}, &sourceError{err}
	}
	work, err := s.planRun(ctx, m.Run)
	if err != nil {
		return state.Manifest{}, &sourceError{err}
	}
	m.Collections, m.Chunks = work.collections, int32(len(work.chunks))
	if err := o.publish(ctx, p, &m, work.chunks); err != nil {
		return state.Manifest{}, err
	}
	o.log.Info().Str(logfield.Run, m.Run).Str(logfield.Watermark, timeText(w)).
		Msgf("run begins: %d collections and views in %d chunks", len(m.Collections), m.Chunks)
	return m, nil
}

// errBehind passes when the driver learns of the present primary.
var errBehind = errors.New("the source's primary does not know the run's first watermark yet")

// reached makes sure that the primary knows that a majority has w. A former one
// that does not know of its successor yet would list collections as they were.
func reached(ctx context.Context, client *mongo.Client, w bson.Timestamp) error {
	now, err := mongodb.MajorityTime(ctx, client)
	if err == nil && event.CompareTimes(now, w) < 0 {
		err = errBehind
	}
	return err
}

// publish commits the manifest together with the work items.
func (o *owner) publish(ctx context.Context, p *producer, m *state.Manifest, chunks []state.Chunk) error {
	partitions, err := partitionsOf(ctx, p.client, o.s.topics.Chunks)
	if err != nil {
		return err
	}
	records := make([]*kgo.Record, 0, len(chunks)+1)
	for i := range chunks {
		c := &chunks[i]
		r, err := state.Record(o.s.topics.Chunks, batchKey(c.Run, c.Chunk), c)
		if err != nil {
			return err
		}
		r.Partition = c.Chunk % partitions
		records = append(records, r)
	}
	manifest, err := state.ManifestRecords(o.s.topics.State, m, p.limits.Record(o.s.topics.State))
	if err != nil {
		return err
	}
	if err := p.transact(ctx, append(records, manifest...)); err != nil {
		return fmt.Errorf("begin run=%s: %w", m.Run, err)
	}
	return nil
}

// end waits until every chunk is done, by whomever, and what renames disturbed
// is reloaded; then it completes the run. It returns nil when that is committed.
func (o *owner) end(ctx context.Context, p *producer, m *state.Manifest, alive func()) error {
	if err := o.s.board.wait(ctx, loaded(m)); err != nil {
		return err
	}
	alive()
	r, err := o.readThrough(ctx, m)
	if err != nil {
		return err
	}
	o.log.Info().Str(logfield.Run, m.Run).Str(logfield.Position, timeText(r)).Msg("every chunk is read; waiting for the changes up to here")
	through, err := o.settle(ctx, p, m, r)
	if err != nil {
		return err
	}
	alive()
	m.Ended, m.State, m.ReadThrough = time.Now().UTC(), state.RunComplete, through
	records, err := o.ending(ctx, p, m)
	if err != nil {
		return err
	}
	if err := p.transact(ctx, records); err != nil {
		return fmt.Errorf("end run=%s: %w", m.Run, err)
	}
	return nil
}

// readThrough is R: no read of the run saw a state later than it. It loads the
// progress anew, since the board is for waiting only.
func (o *owner) readThrough(ctx context.Context, m *state.Manifest) (bson.Timestamp, error) {
	view, err := state.Load(ctx, o.s.cfg.Kafka, o.s.topics.State)
	if err != nil {
		return bson.Timestamp{}, err
	}
	latest, err := mongodb.LatestTime(ctx, o.s.client)
	if err != nil {
		return bson.Timestamp{}, &sourceError{err}
	}
	r := m.Watermark
	for _, p := range view.Chunks(m.Run) {
		r = later(r, p.ReadThrough)
	}
	return later(r, latest), nil
}

func later(a, b bson.Timestamp) bson.Timestamp {
	if event.CompareTimes(a, b) >= 0 {
		return a
	}
	return b
}

// renameTarget is the new name: the field "to" of the event's command.
func renameTarget(e *event.Event) (event.Namespace, error) {
	fail := func(err error) (event.Namespace, error) {
		return event.Namespace{}, &refusedError{reason: fmt.Sprintf("read change event %s: new name: %v", e, err)}
	}
	to, ok, err := rawbson.Lookup(e.DDL, "to")
	if err != nil {
		return fail(err)
	}
	name, isText := to.Text()
	if !ok || !isText {
		return fail(errors.New("the event has none"))
	}
	ns, err := event.ParseNamespace(string(name))
	if err != nil {
		return fail(err)
	}
	return ns, nil
}

// ending are the records that end a run: for a complete one the mark in every
// partition of the snapshot topic, and the manifest.
func (o *owner) ending(ctx context.Context, p *producer, m *state.Manifest) ([]*kgo.Record, error) {
	var records []*kgo.Record
	if m.State == state.RunComplete {
		partitions, err := partitionsOf(ctx, p.client, o.s.topics.Snapshot)
		if err != nil {
			return nil, err
		}
		mark := wire.Batch{Kind: wire.BatchRunEnd, Run: m.Run, Chunk: -1}
		value, err := o.s.codec.AppendBatch(nil, &mark)
		if err != nil {
			return nil, err
		}
		for partition := range partitions {
			records = append(records, &kgo.Record{
				Topic: o.s.topics.Snapshot, Partition: partition, Key: []byte(batchKey(m.Run, mark.Chunk)), Value: value,
			})
		}
	}
	manifest, err := state.ManifestRecords(o.s.topics.State, m, p.limits.Record(o.s.topics.State))
	if err != nil {
		return nil, err
	}
	return append(records, manifest...), nil
}

func timeText(t bson.Timestamp) string { return fmt.Sprintf("%d.%d", t.T, t.I) }
