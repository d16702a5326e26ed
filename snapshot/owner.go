package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// coordinating is the partition whose owner begins and ends runs.
const coordinating = 0

// owner works on the chunks of one partition, and coordinates the run if it is
// partition 0.
type owner struct {
	s         *Service
	partition int32
	log       zerolog.Logger
}

// run works until the partition's part of the run is done. Failures of Kafka
// are retried here, each time with a new producer and from what is committed.
func (o *owner) run(ctx context.Context) error {
	return o.s.policy().Loop(ctx, judgeSession, o.session)
}

// judgeSession decides about an error of a session.
func judgeSession(err error) retry.Verdict {
	_, failed := errors.AsType[*RunFailedError](err)
	_, refused := errors.AsType[*refusedError](err)
	_, read := errors.AsType[*readError](err)
	fromSource, isSource := errors.AsType[*sourceError](err)
	switch {
	case failed, refused, read, errors.Is(err, ErrHistoryLost):
		return retry.Stop
	case isSource:
		return mongodb.Classify(fromSource.err)
	case fenced(err):
		// Waiting gives a new owner time to be known to the group, which
		// then ends this one.
		return retry.Other
	}
	return kafka.Classify(err)
}

// sourceError tells an error of the source from one of Kafka, both of which a
// session meets.
type sourceError struct{ err error }

// Error is the source's.
func (e *sourceError) Error() string { return e.err.Error() }

// Unwrap returns the source's error.
func (e *sourceError) Unwrap() error { return e.err }

// session is one producer's life. The order matters: obtaining the producer id
// ends what a former owner left open, so that what is loaded afterwards is
// final.
func (o *owner) session(ctx context.Context, alive func()) error {
	if o.partition != coordinating {
		if err := o.s.board.wait(ctx, begun); err != nil {
			return err
		}
	}
	p, err := openProducer(ctx, o.s.cfg.Kafka, route.SnapshotTransactionalID(o.s.cfg.Pipeline, o.partition),
		o.s.topics.Snapshot, o.s.topics.Chunks, o.s.topics.State)
	if err != nil {
		return err
	}
	defer p.close()
	view, err := state.Load(ctx, o.s.cfg.Kafka, o.s.topics.State)
	if err != nil {
		return err
	}
	m, ok := view.LatestRun()
	if !ok {
		if o.partition != coordinating {
			return fmt.Errorf("load run partition=%d: the state topic no longer holds it", o.partition)
		}
		if m, err = o.begin(ctx, p); err != nil {
			return err
		}
		alive()
	}
	if m.State != state.RunLoading {
		return nil // the service ends by what the board shows
	}
	if err := o.checkSource(view); err != nil {
		return err
	}
	o.s.mood.running()
	if err := o.work(ctx, p, &m, view, alive); err != nil {
		return err
	}
	if o.partition == coordinating {
		return o.end(ctx, p, &m, alive)
	}
	return nil
}

// checkSource refuses another source than the one that capture has bound the
// pipeline to.
func (o *owner) checkSource(view *state.View) error {
	id, ok := view.Identity()
	if !ok || id.Deployment == o.s.deployment.ID {
		return nil
	}
	return &refusedError{reason: fmt.Sprintf(
		"pipeline %s is bound to the source deployment %s, but the configured source is %s: hint: use another pipeline name for another source",
		o.s.cfg.Pipeline, id.Deployment, o.s.deployment.ID)}
}

// refusedError is a condition that trying again does not change.
type refusedError struct{ reason string }

// Error is the reason with its remedy.
func (e *refusedError) Error() string { return e.reason }

// work reads what is left of the partition's chunks.
func (o *owner) work(ctx context.Context, p *producer, m *state.Manifest, view *state.View, alive func()) error {
	chunks, err := o.chunks(ctx, m)
	if err != nil {
		return err
	}
	tasks := unfinished(chunks, view)
	if len(tasks) == 0 {
		return nil
	}
	if err := o.s.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer o.s.slots.Release(1)
	partitions, err := partitionsOf(ctx, p.client, o.s.topics.Snapshot)
	if err != nil {
		return err
	}
	src, err := newSource(ctx, o.s.client, o.s.deployment, m.Watermark, o.s.cfg.ReadPreference)
	if err != nil {
		return &sourceError{err}
	}
	src.throttle = o.s.cfg.Throttle
	o.log.Info().Str(logfield.Run, m.Run).Msgf("%d chunks to read", len(tasks))
	w := worker{s: o.s, producer: p, source: src, partitions: partitions}
	err = w.run(ctx, tasks)
	if w.commits > 0 {
		alive()
	}
	return err
}

// unfinished pairs the chunks that are not done with their progress, in the
// order of chunks.
func unfinished(chunks []state.Chunk, view *state.View) []task {
	var tasks []task
	for _, c := range chunks {
		progress, ok := view.Chunk(c.Run, c.Chunk)
		if !ok {
			progress = state.ChunkProgress{Run: c.Run, Chunk: c.Chunk}
		}
		if !progress.Done {
			tasks = append(tasks, task{chunk: c, progress: progress})
		}
	}
	return tasks
}

// chunks reads the partition's work items of a run from the chunks topic.
func (o *owner) chunks(ctx context.Context, m *state.Manifest) ([]state.Chunk, error) {
	log, err := openLog(ctx, o.s.cfg.Kafka, o.s.topics.Chunks)
	if err != nil {
		return nil, err
	}
	var chunks []state.Chunk
	from := map[int32]int64{o.partition: log.starts[o.partition]}
	err = log.through(ctx, from, func(r *kgo.Record) error {
		var c state.Chunk
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return fmt.Errorf("decode chunk topic=%s partition=%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if c.Run == m.Run {
			chunks = append(chunks, c)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	want := chunksIn(m.Chunks, o.partition, int32(len(log.partitions())))
	if got := int32(len(chunks)); got != want {
		return nil, &refusedError{reason: fmt.Sprintf(
			"topic %s partition %d holds %d of the %d work items of run %s: hint: the topic was emptied or got more partitions while the run was under way; set up the pipeline again under a new name",
			o.s.topics.Chunks, o.partition, got, want, m.Run)}
	}
	return chunks, nil
}

// chunksIn is how many of n chunks lie in a partition.
func chunksIn(n, partition, partitions int32) int32 {
	return (n - partition + partitions - 1) / partitions
}

// partitionsOf asks for a topic's partition count.
func partitionsOf(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	topics, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	if err := topics[topic].Err; err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	return int32(len(topics[topic].Partitions)), nil
}
