package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
)

// TestLifeSweeps: a life begins with the mark of an abort in every partition that
// it writes to, so that nothing that an earlier one left open comes back.
func TestLifeSweeps(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		service.stop()
		for p := range int32(testPartitions) {
			// The first record is the sweep's, the second its mark: version 0, type 0.
			if log := logOf(t, cfg, p); !strings.Contains(log, "offset 1: producer") || !strings.Contains(log, "control 00000000\n") {
				t.Errorf("partition %d does not begin with an abort:\n%s", p, log)
			}
		}
		checkExactlyOnce(t, cfg, s, from)
	})
}

// TestKafkaRestarts: the broker is killed and comes back; capture says that it is
// retrying and then goes on without a gap or a repetition.
func TestKafkaRestarts(t *testing.T) {
	broker := testenv.FreshKafka(t, nil)
	r := newRand(t)
	s := newScript()
	cfg := testConfig(t, testenv.Broker{Brokers: broker.Brokers}, "restarts", s)
	cfg.TransactionTimeout = 3 * time.Second
	checked := false
	t.Cleanup(func() {
		if t.Failed() && !checked {
			t.Log(producersOf(t, cfg))
		}
	})
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	s.write(r, 2000)
	if err := broker.Kill(); err != nil {
		t.Fatal(err)
	}
	s.write(r, 2000)
	if err := broker.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, cfg, s.last())
	checkExactlyOnce(t, cfg, s, from)
	checked = !t.Failed()

	// Without a broker it ends as well, though it can commit nothing.
	s.write(r, 100)
	if err := broker.Kill(); err != nil {
		t.Fatal(err)
	}
	s.write(r, 100)
	service.stop()
}
