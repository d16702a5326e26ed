package main

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"
)

// startKafka starts the broker. Everything that it keeps (topics, records,
// group offsets, producer ids, open transactions) is under dir/kafka. The
// caller closes the cluster, which also writes the last of its state.
func startKafka(cfg config) (*kfake.Cluster, []string, error) {
	if _, _, err := net.SplitHostPort(cfg.kafka); err != nil {
		return nil, nil, fmt.Errorf("parse --kafka: %w", err)
	}
	// One broker; topics are created by those who need them, never by a
	// metadata request, as on a production cluster.
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		// The last protocol before transaction.version 2: in kfake's version of
		// that, an older producer that aborts after it was fenced takes over the
		// epoch of the newer one.
		kfake.MaxVersions(kversion.V3_9_0()),
		kfake.DataDir(filepath.Join(cfg.dir, "kafka")),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			return net.Listen(network, cfg.kafka)
		}),
		kfake.BrokerConfigs(map[string]string{
			// Room for Tributary's topics, which ask for 24 MiB.
			"message.max.bytes": "26214400",
		}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("start broker on %s: %w", cfg.kafka, err)
	}
	return cluster, cluster.ListenAddrs(), nil
}
