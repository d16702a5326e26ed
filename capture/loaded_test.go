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
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestLoadIsDeleted: the active capture deletes from Kafka what everybody has
// loaded.
func TestLoadIsDeleted(t *testing.T) {
	cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), newScript())
	cfg.DropLoaded, cfg.LoadedBy = true, []string{"eu"}
	topics := route.TopicsOf(cfg.Pipeline)
	if err := kafka.PrepareTopics(t.Context(), cfg.Kafka, topics, cfg.Topics); err != nil {
		t.Fatal(err)
	}
	client, err := kafka.NewClient(cfg.Kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	records := []*kgo.Record{{Topic: topics.Snapshot, Value: []byte("batch")}, {Topic: topics.Snapshot, Value: []byte("end")}}
	for key, v := range map[string]any{
		state.KeyRun("r"):        state.Manifest{Run: "r", State: state.RunComplete},
		state.KeyGroup("eu", ""): state.GroupRegistration{Destination: "eu", Run: "r", Phase: state.PhaseChanges},
	} {
		record, err := state.Record(topics.State, key, v)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	service := start(t, cfg)
	defer service.stop()
	testenv.Eventually(t, time.Minute, func() error {
		starts, err := kadm.NewClient(client).ListStartOffsets(t.Context(), topics.Snapshot)
		if o, _ := starts.Lookup(topics.Snapshot, 0); err != nil || o.Offset != 1 {
			return fmt.Errorf("the topic begins at %d: %w", o.Offset, err)
		}
		return nil
	})
}
