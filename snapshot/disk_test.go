package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// TestLoadLargerThanItsDisk: reading is held back while the destination has not
// loaded, says so, goes on with it, and what was loaded is deleted.
func TestLoadLargerThanItsDisk(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		r := newRig(t, testenv.Pair{MongoDB: testenv.MongoDB{MongoEngine: testenv.Embedded}, Broker: b, Pipeline: testenv.NewPipeline(t)})
		const total, limit = 900, 128 << 10
		for i := range 6 {
			fill(t, r.source, event.Namespace{DB: "shop", Coll: fmt.Sprintf("c%d", i)}, objectIDs(total/6), 400)
		}
		r.followSource(t)
		cfg := r.config("one")
		cfg.DiskBytes, cfg.Destinations = limit, []string{"d"}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var g errgroup.Group
		g.Go(func() error { return s.Run(ctx) })
		testenv.Eventually(t, time.Minute, func() error {
			if cause := s.mood.reason(); !strings.Contains(cause, "d (which has not begun)") {
				return fmt.Errorf("is held back because of %q", cause)
			}
			return nil
		})
		if n, _ := r.progressOf(t); n == 0 || n >= total {
			t.Errorf("%d of %d documents were committed before anybody loads", n, total)
		}
		if got := r.loadAs(t, "d"); got != total {
			t.Errorf("%d documents were loaded, want %d", got, total)
		}
		if err := g.Wait(); err != nil || ctx.Err() != nil {
			t.Fatalf("the run ends with %v, %v", err, ctx.Err())
		}
		log, err := openLog(t.Context(), r.kafka, r.topics.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		var deleted int64
		for _, start := range log.starts {
			deleted += start
		}
		if deleted == 0 {
			t.Error("nothing was deleted")
		}
	})
}

// reason is why work is held back.
func (m *mood) reason() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cause
}

// loadAs is a destination's part: it registers, reads the run to its end and
// says how far it has come. It returns how many documents it met.
func (r *rig) loadAs(t *testing.T, destination string) (documents int) {
	t.Helper()
	_, m := r.progressOf(t)
	client, err := kafka.NewClient(r.kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	record, err := state.Record(r.topics.State, state.KeyGroup(destination, ""), state.GroupRegistration{
		Destination: destination, Phase: state.PhaseSnapshot, Run: m.Run,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	from := map[int32]int64{}
	for p, offset := range m.SnapshotOffsets {
		from[int32(p)] = offset
	}
	ends := 0
	log := &topicLog{cfg: r.kafka, topic: r.topics.Snapshot}
	err = log.follow(ctx, from, func(record *kgo.Record) (bool, error) {
		if record.Attrs.IsControl() {
			return false, nil
		}
		b, err := r.codec.DecodeBatch(record.Value)
		if err != nil {
			return true, err
		}
		if b.Kind == wire.BatchRunEnd {
			ends++
		}
		documents += int(b.Count)
		offsets := kadm.Offsets{}
		offsets.AddOffset(record.Topic, record.Partition, record.Offset+1, -1)
		answers, err := admin.CommitOffsets(ctx, route.ApplyGroup(r.pair.Pipeline, destination, ""), offsets)
		return ends == len(from), errors.Join(err, answers.Error())
	})
	if err != nil {
		t.Fatal(err)
	}
	return documents
}
