package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// reporters gives each service of a rig a reporter that publishes nothing until
// the test ends, and returns the last one's status.
func (r *rig) reporters(t *testing.T) (latest func() state.Status) {
	t.Helper()
	var last *state.Reporter
	r.edit = func(cfg *Config) {
		report, err := state.NewReporter(state.ReporterConfig{Kafka: r.kafka, Topic: r.topics.State, Log: zerolog.Nop(), Status: state.Status{Service: "apply", Instance: cfg.Instance}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if err := report.Run(ended); err != nil {
				t.Error(err)
			}
		})
		cfg.Report, last = report, report
	}
	return func() state.Status { return last.Status() }
}

// TestLoadProgress follows a group's progress through the phases of a load and
// over a restart.
func TestLoadProgress(t *testing.T) {
	r := realRig(t)
	status := r.reporters(t)
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}, uuid: event.UUID{7}, indexes: []bson.Raw{
		indexSpecOf(t, "u", bson.E{Key: "unique", Value: true}), indexSpecOf(t, "no", bson.E{Key: "optionOfTheFuture", Value: true}),
	}}
	var chunks [4][]byte
	for i := range 40 {
		doc := raw(t, bson.D{{Key: "_id", Value: int32(i)}, {Key: "u", Value: int32(i)}})
		c.docs = append(c.docs, doc)
		chunks[i/10] = append(chunks[i/10], doc...)
	}
	total := int64(len(bytes.Join(rawBytes(c.docs), nil)))
	seen := func(phase string, documents, chunks int64, percent float64) {
		t.Helper()
		testenv.Eventually(t, 2*settled, func() error {
			p := status().Progress
			if p == nil || p.Phase != phase || p.Documents.Done != documents || p.Chunks.Done != chunks || p.Percent != percent {
				return fmt.Errorf("progress %+v, want %s with %d documents in %d chunks, %v percent", p, phase, documents, chunks, percent)
			}
			return nil
		})
	}
	s := r.start(t, "a")
	seen(state.LoadPlanning, 0, 0, 0)

	m := r.begin(t, c)
	m.Chunks, m.Collections[0].Chunks, m.Collections[0].EstimatedDocuments, m.Collections[0].EstimatedBytes = 4, 4, 40, total
	r.put(t, state.KeyRun(m.Run), m)
	seen(state.LoadLoading, 0, 0, 0)
	publish := func(chunk int32) {
		t.Helper()
		r.batch(t, chunk%testTopics().SnapshotPartitions, &wire.Batch{
			Kind: wire.BatchDocuments, Run: m.Run, Chunk: chunk, NS: c.ns, UUID: c.uuid, Count: 10, Documents: chunks[chunk],
		})
		r.put(t, state.KeyChunk(m.Run, chunk), state.ChunkProgress{Run: m.Run, Chunk: chunk, Documents: 10, Bytes: int64(len(chunks[chunk])), Done: true})
	}
	publish(1)
	seen(state.LoadLoading, 10, 1, 25)
	publish(0)
	publish(2)
	seen(state.LoadLoading, 30, 3, 75)
	s.stop(t)

	s = r.start(t, "b")
	seen(state.LoadLoading, 30, 3, 75)
	if p := status().Progress; p.AverageRate != (state.Rate{}) || len(p.Active) != 1 || p.Active[0].NS != "shop.orders" {
		t.Errorf("after a restart: %+v", p)
	}
	publish(3)
	for p := range testTopics().SnapshotPartitions {
		r.batch(t, p, &wire.Batch{Kind: wire.BatchRunEnd, Run: m.Run, Chunk: -1})
	}
	seen(state.LoadLoading, 40, 4, 100)
	m.State, m.ReadThrough = state.RunComplete, r.now()
	r.put(t, state.KeyRun(m.Run), m)
	seen(state.LoadCatchingUp, 40, 4, 100)
	r.watermark(t)
	seen(state.LoadDone, 40, 4, 100)
	testenv.Eventually(t, settled, func() error {
		want := &state.DeferredIndexes{Count: 2, Unique: 1, Failed: 1, Names: []string{"shop.orders no_1", "shop.orders u_1"}}
		if diff := cmp.Diff(want, status().Deferred); diff != "" {
			return fmt.Errorf("deferred indexes (-want +got):\n%s", diff)
		}
		return nil
	})
	s.stop(t)
}

// A percentage that any process of the group has published is not taken back.
func TestPublishedPercentages(t *testing.T) {
	l := newLoading()
	say := func(destination, run, phase string, percent float64) {
		t.Helper()
		value, err := json.Marshal(state.Status{Service: "apply", Destination: destination, Progress: &state.Progress{Run: run, Phase: phase, Percent: percent}})
		if err == nil {
			err = l.take("dest", state.KeyStatus("apply", "a"), value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	say("dest", "former", state.LoadLoading, 90)
	say("dest", "run", state.LoadLoading, 30)
	say("dest", "run", state.LoadLoading, 20)
	say("dest", "run", state.LoadDone, 100)
	say("other", "run", state.LoadLoading, 80)
	if l.before("run") != 30 || l.before("former") != 0 {
		t.Errorf("%v percent were said", l.before("run"))
	}
	if err := errors.Join(l.take("dest", state.KeyStatus("apply", "a"), nil), l.take("dest", state.KeyPosition(), []byte("{}"))); err != nil {
		t.Error(err)
	}
	if err := l.take("dest", state.KeyStatus("apply", "a"), []byte("{")); err == nil {
		t.Error("a broken status is taken")
	}
}

func TestSummarizeDeferred(t *testing.T) {
	var list []deferredRecord
	for i := range 30 {
		reason := []string{deferredTTL, deferredUnique, deferredFailed}[i%3]
		list = append(list, deferredRecord{ID: deferredID{NS: fmt.Sprintf("d.%02d", i), Index: "i_1"}, Reason: reason})
	}
	got := summarize(list)
	if got.Count != 30 || got.TTL != 10 || got.Unique != 10 || got.Failed != 10 || len(got.Names) != state.MaxListed || got.Names[0] != "d.02 i_1" || got.Names[9] != "d.29 i_1" || got.Names[10] != "d.00 i_1" {
		t.Errorf("summary %+v", got)
	}
}
