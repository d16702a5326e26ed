package capture

import (
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
)

// TestRetentionIsStretched looks at a pipeline at times to come, at which its
// group is far behind, at the maximum, and through.
func TestRetentionIsStretched(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		script := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), script)
		service := start(t, cfg)
		until(t, cfg, script.last())
		script.insert("orders", 1)
		until(t, cfg, script.last())
		service.stop()

		cfg.MaxRetention = 3 * time.Hour
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kafka.NewClient(cfg.Kafka)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		topics := route.TopicsOf(cfg.Pipeline)
		look := func(what string, after, want time.Duration) {
			t.Helper()
			if err := s.stretchRetention(t.Context(), time.Now().Add(after)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			// A broker takes a changed setting over a moment after it has agreed.
			testenv.Eventually(t, time.Minute, func() error {
				if got, err := kafka.Retention(t.Context(), client, topics.Changes); err != nil || got != want {
					return fmt.Errorf("%s: retention %s, %w, want %s", what, got, err, want)
				}
				return nil
			})
		}
		look("no group", 50*time.Minute, time.Hour)
		record, err := state.Record(topics.State, state.KeyGroup("eu", ""), state.GroupRegistration{Destination: "eu"})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(client)
		commit := func(at func(kadm.ListedOffset) int64) {
			t.Helper()
			ends, err := admin.ListEndOffsets(t.Context(), topics.Changes)
			if err != nil {
				t.Fatal(err)
			}
			offsets := kadm.Offsets{}
			ends.Each(func(o kadm.ListedOffset) { offsets.AddOffset(o.Topic, o.Partition, at(o), -1) })
			if err := admin.CommitAllOffsets(t.Context(), route.ApplyGroup(cfg.Pipeline, "eu", ""), offsets); err != nil {
				t.Fatal(err)
			}
		}
		commit(func(kadm.ListedOffset) int64 { return 0 })
		look("not far behind yet", 20*time.Minute, time.Hour)
		look("far behind", 40*time.Minute, 2*time.Hour)
		look("kept", 50*time.Minute, 2*time.Hour)
		look("further behind", 61*time.Minute, 3*time.Hour)
		look("at the maximum", 179*time.Minute, 3*time.Hour)
		commit(func(o kadm.ListedOffset) int64 { return o.Offset })
		look("through", 180*time.Minute, time.Hour)
	})
}
