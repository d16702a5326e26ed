package state

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestStillLoading(t *testing.T) {
	group := func(destination, phase, run string) GroupRegistration {
		return GroupRegistration{Destination: destination, Phase: phase, Run: run}
	}
	for _, test := range []struct {
		name       string
		registered []GroupRegistration
		want       []string
	}{
		{"nobody has begun", nil, []string{"a", "b"}},
		{"one has begun", []GroupRegistration{group("a", PhaseSnapshot, "r")}, []string{"a", "b"}},
		{"without a run yet", []GroupRegistration{group("a", "", ""), group("b", PhaseIndexes, "r")}, []string{"a"}},
		{"through", []GroupRegistration{group("a", PhaseChanges, "r"), group("b", PhaseDone, "r")}, nil},
		{"a run before", []GroupRegistration{group("a", PhaseChanges, "former"), group("b", PhaseSnapshot, "former")}, []string{"b"}},
		{"of another file", []GroupRegistration{group("a", PhaseDone, "r"), group("b", PhaseDone, "r"), group("c", PhaseSnapshot, "r")}, []string{"c"}},
		{"without documents", []GroupRegistration{group("a", PhaseDone, "r"), group("b", PhaseDone, "r"), {Destination: "c", Phase: PhaseSnapshot, WithoutFull: true}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			groups, got := StillLoading(test.registered, []string{"a", "b"})
			var names []string
			for _, g := range groups {
				names = append(names, g.Destination)
			}
			if diff := cmp.Diff(test.want, append(names, got...)); diff != "" {
				t.Errorf("who still loads (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDeleteLoaded: a run's records go when it is complete and the last one has
// loaded it, and not before.
func TestDeleteLoaded(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		cfg := kafka.Config{Brokers: b.Brokers, Log: zerolog.Nop()}
		topics := route.TopicsOf(testenv.NewPipeline(t))
		spec := kafka.TopicSpec{Partitions: 1, SnapshotPartitions: 2, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour}
		if err := kafka.PrepareTopics(t.Context(), cfg, topics, spec); err != nil {
			t.Fatal(err)
		}
		client := newClient(t, cfg)
		for i := range 7 {
			if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Snapshot, Partition: int32(i % 2), Value: []byte("batch")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		look := func(what, wantRun string, want ...int64) {
			t.Helper()
			run, err := DeleteLoaded(t.Context(), cfg, topics, []string{"eu", "us"})
			if err != nil || run != wantRun {
				t.Fatalf("%s: deleted of run %q, %v, want %q", what, run, err, wantRun)
			}
			testenv.Eventually(t, time.Minute, func() error { // a broker may answer with what it knew before
				starts, err := kadm.NewClient(client).ListStartOffsets(t.Context(), topics.Snapshot)
				if err != nil {
					return err
				}
				var got []int64
				for _, o := range starts.Offsets().Sorted() {
					got = append(got, o.At)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					return fmt.Errorf("%s: first offsets (-want +got):\n%s", what, diff)
				}
				return nil
			})
		}
		manifest := Manifest{Run: "r", State: RunLoading, Started: time.Now()}
		registered := GroupRegistration{Destination: "eu", Phase: PhaseChanges, Run: "r"}
		look("no run", "", 0, 0)
		produce(t, client, topics.State, KeyRun("r"), manifest)
		produce(t, client, topics.State, KeyGroup("eu", ""), registered)
		registered.Destination = "us"
		produce(t, client, topics.State, KeyGroup("us", ""), registered)
		look("loading", "", 0, 0)
		manifest.State = RunComplete
		produce(t, client, topics.State, KeyRun("r"), manifest)
		registered.Phase = PhaseSnapshot
		produce(t, client, topics.State, KeyGroup("us", ""), registered)
		look("one still loads", "", 0, 0)
		registered.Phase = PhaseIndexes
		produce(t, client, topics.State, KeyGroup("us", ""), registered)
		look("loaded by all", "r", 3, 2)
		look("again", "", 3, 2)
	})
}
