package state

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// newTopic makes a compacted topic of one partition.
func newTopic(t *testing.T, broker testenv.Broker) (cfg kafka.Config, topic string) {
	t.Helper()
	cfg = kafka.Config{Brokers: broker.Brokers, Log: zerolog.Nop()}
	topic = testenv.NewPipeline(t) + ".state"
	client := newClient(t, cfg)
	compact := "compact"
	_, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": &compact}, topic)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, topic
}

func newClient(t *testing.T, cfg kafka.Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kafka.NewClient(cfg, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func produce(t *testing.T, client *kgo.Client, topic, key string, v any) {
	t.Helper()
	r, err := Record(topic, key, v)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, client *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	if err := client.EndTransaction(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, cfg kafka.Config, topic string) *View {
	t.Helper()
	view, err := Load(t.Context(), cfg, topic)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func TestLoad(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		cfg, topic := newTopic(t, broker)
		if _, ok := load(t, cfg, topic).Position(); ok {
			t.Fatal("empty topic has a position")
		}
		client := newClient(t, cfg)
		identity := Identity{Deployment: "d", Mode: "oplog", Created: time.Unix(1, 0).UTC()}
		older := Manifest{Run: "b", State: RunComplete, Started: time.Unix(1, 0).UTC()}
		newer := Manifest{Run: "a", State: RunLoading, Started: time.Unix(2, 0).UTC(), Collections: []Collection{{DB: "x", Coll: "y", UUID: event.UUID{1}, Options: []byte{5, 0, 0, 0, 0}}}}
		chunk := ChunkProgress{Run: "a", Chunk: 7, Next: []byte{1}, ReadThrough: bson.Timestamp{T: 3, I: 4}}
		group := GroupRegistration{Destination: "d", Phase: PhaseChanges}
		status := Status{Service: "capture", Instance: "i", State: StateRunning}
		for key, v := range map[string]any{
			KeyIdentity(): identity, KeyRun("b"): older, KeyRun("a"): newer, KeyChunk("a", 7): chunk,
			KeyGroup("d", ""): group, KeyStatus("capture", "i"): status, "of/tomorrow": "x",
			KeyStatus("apply", "gone"): Status{},
		} {
			produce(t, client, topic, key, v)
		}
		produce(t, client, topic, KeyStatus("apply", "gone"), nil)

		view := load(t, cfg, topic)
		got, _ := view.Identity()
		latest, _ := view.LatestRun()
		b, _ := view.Manifest("b")
		c, _ := view.Chunk("a", 7)
		for what, diff := range map[string]string{
			"identity": cmp.Diff(identity, got), "latest run": cmp.Diff(newer, latest), "manifest": cmp.Diff(older, b),
			"chunk": cmp.Diff(chunk, c), "chunks": cmp.Diff([]ChunkProgress{chunk}, view.Chunks("a")),
			"groups": cmp.Diff([]GroupRegistration{group}, view.Groups()), "statuses": cmp.Diff([]Status{status}, view.Statuses()),
		} {
			if diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
	})
}

// TestLoadWaitsForOpenTransactions: what was written before the call counts if
// it is committed later, and does not if it is aborted; the mark at the very end
// of the log is no obstacle.
func TestLoadWaitsForOpenTransactions(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		for _, tt := range []struct {
			name string
			how  kgo.TransactionEndTry
			want int64
		}{{"commit", kgo.TryCommit, 2}, {"abort", kgo.TryAbort, 1}} {
			t.Run(tt.name, func(t *testing.T) {
				cfg, topic := newTopic(t, broker)
				client := newClient(t, cfg, kgo.TransactionalID(topic))
				write := func(term int64) {
					if err := client.BeginTransaction(); err != nil {
						t.Fatal(err)
					}
					produce(t, client, topic, KeyPosition(), CapturePosition{PublishedThrough: event.Position{Term: term}})
				}
				write(1)
				end(t, client, kgo.TryCommit)
				load(t, cfg, topic) // ends with the transaction's mark
				write(2)
				loaded := make(chan *View, 1)
				failed := make(chan error, 1)
				go func() {
					view, err := Load(t.Context(), cfg, topic)
					failed <- err
					loaded <- view
				}()
				select {
				case err := <-failed:
					t.Fatalf("Load returned before the transaction ended: %v", err)
				case <-time.After(300 * time.Millisecond):
				}
				end(t, client, tt.how)
				if err := <-failed; err != nil {
					t.Fatal(err)
				}
				p, _ := (<-loaded).Position()
				if p.PublishedThrough.Term != tt.want {
					t.Errorf("loaded position of transaction %d, want %d", p.PublishedThrough.Term, tt.want)
				}
			})
		}
	})
}

func TestLoadNamesWhatItCannotRead(t *testing.T) {
	cfg, topic := newTopic(t, testenv.StandIn(t))
	if _, err := Load(t.Context(), cfg, "no.such.topic"); err == nil {
		t.Error("no error for a topic that does not exist")
	}
	produce(t, newClient(t, cfg), topic, KeyPosition(), "not a position")
	if _, err := Load(t.Context(), cfg, topic); err == nil {
		t.Error("no error for a value of another kind")
	}
}

func TestWatch(t *testing.T) {
	cfg, topic := newTopic(t, testenv.StandIn(t))
	client := newClient(t, cfg)
	produce(t, client, topic, KeyRun("a"), Manifest{Run: "a"})
	ctx, cancel := context.WithCancel(t.Context())
	keys := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, cfg, topic, func(key string, value []byte) error {
			keys <- fmt.Sprintf("%s %t", key, value != nil)
			return nil
		})
	}()
	if got := <-keys; got != "run/a true" {
		t.Errorf("watched %s", got)
	}
	produce(t, client, topic, KeyRun("a"), nil)
	if got := <-keys; got != "run/a false" {
		t.Errorf("watched %s", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
	stop := errors.New("enough")
	if err := Watch(t.Context(), cfg, topic, func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Watch ended with %v, want onChange's error", err)
	}
}

// TestFollow: what stood in the topic at the beginning comes before the word that
// it did, also in an empty topic, and where marks of transactions stand between.
func TestFollow(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		cfg, topic := newTopic(t, broker)
		testenv.Eventually(t, 2*time.Minute, func() error { // brokers know of a new topic a while later
			_, err := Load(t.Context(), cfg, topic)
			return err
		})
		enough := errors.New("enough")
		var heard []string
		follow := func(current func()) {
			t.Helper()
			heard = nil
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := Follow(ctx, cfg, topic, func(key string, _ []byte) error {
				heard = append(heard, key)
				if key == KeyRun("end") {
					return enough
				}
				return nil
			}, func() {
				heard = append(heard, "current")
				current()
			})
			if !errors.Is(err, enough) {
				t.Fatal(err)
			}
		}
		client := newClient(t, cfg, kgo.TransactionalID(topic))
		put := func(key string) {
			t.Helper()
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			produce(t, client, topic, key, Manifest{})
			end(t, client, kgo.TryCommit)
		}
		follow(func() { put(KeyRun("a")); put(KeyRun("end")) })
		if diff := cmp.Diff([]string{"current", KeyRun("a"), KeyRun("end")}, heard); diff != "" {
			t.Error(diff)
		}
		produce(t, newClient(t, cfg), topic, KeyRun("end"), nil)
		heard = nil
		ctx, cancel := context.WithCancel(t.Context())
		err := Follow(ctx, cfg, topic, func(key string, _ []byte) error { heard = append(heard, key); return nil }, func() {
			heard = append(heard, "current")
			cancel()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{KeyRun("a"), KeyRun("end"), KeyRun("end"), "current"}, heard); diff != "" {
			t.Error(diff)
		}
	})
}

func TestReporter(t *testing.T) {
	cfg, topic := newTopic(t, testenv.StandIn(t))
	r, err := NewReporter(ReporterConfig{Kafka: cfg, Topic: topic, Interval: time.Hour, Status: Status{Service: "capture", Instance: "i"}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	published := func(want Status) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() error {
			for _, got := range load(t, cfg, topic).Statuses() {
				if got.State == want.State && got.Cause == want.Cause && got.Until.Equal(want.Until) {
					return nil
				}
			}
			return fmt.Errorf("state %s is not published", want.State)
		})
	}
	published(Status{State: StateStarting})
	since, until := time.Unix(10, 0), time.Unix(20, 0)
	r.Retrying(since, until, "broker away")
	published(Status{State: StateRetrying, Cause: "broker away", Until: until})
	if got := r.Status(); !got.Since.Equal(since) {
		t.Errorf("retrying since %s, want %s", got.Since, since)
	}
	r.Set(StateRunning, "")
	published(Status{State: StateRunning})
	entered := r.Status().Since
	r.Set(StateRunning, "")
	r.Count("events", 5)
	r.Progress(event.Position{Term: 2}, 1.5)
	if got := r.Status(); !got.Since.Equal(entered) || got.Detail["events"] != 5 || got.LagSeconds != 1.5 {
		t.Errorf("status %+v", got)
	}
	r.Set(StateFinished, "stopped")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	published(Status{State: StateFinished, Cause: "stopped"})

	var none *Reporter
	none.Set(StateRunning, "")
	none.Progress(event.Position{}, 0)
	none.Count("x", 1)
	none.Retrying(since, until, "")
	if got := none.Status(); got.State != "" {
		t.Errorf("nil reporter has status %+v", got)
	}
}
