package testenv

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// newBroker gives the test a kfake cluster of its own or the real broker.
func (e *environment) newBroker(t testing.TB, name string) Broker {
	t.Helper()
	if name == Kafka {
		return Broker{KafkaEngine: Kafka, Brokers: e.realBroker(t)}
	}
	return newStandIn(t, nil)
}

// newStandIn starts a kfake cluster.
func newStandIn(t testing.TB, opts []kfake.Opt) Broker {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		// The last protocol before transaction.version 2: in its version of that,
		// an older producer that aborts after it was fenced takes over the epoch of
		// the newer one.
		kfake.MaxVersions(kversion.V3_9_0()),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "26214400"}),
	}, opts...)...)
	if err != nil {
		t.Fatalf("testenv: start kfake: %v", err)
	}
	t.Cleanup(cluster.Close)
	return Broker{KafkaEngine: KFake, Brokers: cluster.ListenAddrs(), Cluster: cluster}
}

// realBroker starts the real broker when the first test asks for it.
func (e *environment) realBroker(t testing.TB) []string {
	t.Helper()
	dir := e.newDir(t, "kafka")
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broker == nil {
		kafka, err := engine.FindKafka()
		if err != nil {
			t.Fatalf("testenv: %v", err)
		}
		ctx, cancel := starting()
		defer cancel()
		broker, err := kafka.Start(ctx, engine.KafkaConfig{Dir: dir})
		if err != nil {
			t.Fatalf("testenv: start kafka: %v", err)
		}
		e.broker = broker
	}
	return e.broker.Brokers
}

// FreshKafka starts a real broker of the test's own, to be killed, frozen and
// restarted at will, with settings added to the usual ones.
func FreshKafka(t testing.TB, settings map[string]string) *engine.Broker {
	t.Helper()
	e := environmentOf(t)
	e.require(t, Kafka)
	kafka, err := engine.FindKafka()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	ctx, cancel := starting()
	defer cancel()
	broker, err := kafka.Start(ctx, engine.KafkaConfig{Dir: e.newDir(t, "kafka"), Settings: settings})
	if err != nil {
		t.Fatalf("testenv: start kafka: %v", err)
	}
	t.Cleanup(func() {
		if err := broker.Kill(); err != nil {
			t.Errorf("testenv: stop kafka: %v", err)
		}
	})
	return broker
}
