package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// broker is the running Kafka-compatible broker.
type broker struct {
	cluster *kfake.Cluster
	brokers []string
	// clean is the file that says that the last run ended in order.
	clean string
}

// startKafka starts the broker. Everything that it keeps (topics, records,
// group offsets, producer ids) is under dir/kafka.
func startKafka(ctx context.Context, cfg config) (*broker, error) {
	if _, _, err := net.SplitHostPort(cfg.kafka); err != nil {
		return nil, fmt.Errorf("parse --kafka: %w", err)
	}
	dir := filepath.Join(cfg.dir, "kafka")
	b := &broker{clean: filepath.Join(cfg.dir, "kafka-ended-in-order")}
	_, missing := os.Stat(b.clean)
	_, isNew := os.Stat(dir)
	if missing != nil && isNew == nil {
		if err := endTransactions(ctx, dir); err != nil {
			return nil, fmt.Errorf("end transactions of a killed broker: %w", err)
		}
	}
	if err := os.Remove(b.clean); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove mark: %w", err)
	}
	var err error
	if b.cluster, err = newCluster(dir, cfg.kafka); err != nil {
		return nil, err
	}
	b.brokers = b.cluster.ListenAddrs()
	return b, nil
}

// close stops the broker, which writes the last of its state.
func (b *broker) close() error {
	b.cluster.Close()
	if err := os.WriteFile(b.clean, nil, 0o644); err != nil {
		return fmt.Errorf("mark that the broker ended in order: %w", err)
	}
	return nil
}

// newCluster starts kfake with one broker. Topics are made by those who need
// them, never by a metadata request.
func newCluster(dir, address string) (*kfake.Cluster, error) {
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		// The last protocol before transaction.version 2: in kfake's version of
		// that, an older producer that aborts after it was fenced takes over the
		// epoch of the newer one.
		kfake.MaxVersions(kversion.V3_9_0()),
		kfake.DataDir(dir),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			return net.Listen(network, address)
		}),
		kfake.BrokerConfigs(map[string]string{
			// Room for Tributary's topics, which ask for 24 MiB.
			"message.max.bytes": "26214400",
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("start broker on %s: %w", address, err)
	}
	return cluster, nil
}

// endTransactions writes the abort markers that a killed broker could not. kfake
// takes an open transaction for aborted when it loads its data, but writes no
// marker: consumers would drop what the same producer commits next, too, and a
// later start would take the aborted records for committed.
//
// It works on a port that nobody knows, since a client that came back at once
// could have a transaction open.
func endTransactions(ctx context.Context, dir string) error {
	cluster, err := newCluster(dir, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	transactions, err := admin.DescribeTransactions(ctx)
	if err != nil {
		return fmt.Errorf("describe transactions: %w", err)
	}
	var markers []kadm.TxnMarkers
	for _, t := range transactions.Sorted() {
		markers = append(markers, kadm.TxnMarkers{
			ProducerID: t.ProducerID, ProducerEpoch: t.ProducerEpoch, Topics: topics.TopicsSet(),
		})
	}
	if len(markers) == 0 || len(topics) == 0 {
		return nil
	}
	written, err := admin.WriteTxnMarkers(ctx, markers...)
	if err != nil {
		return fmt.Errorf("write markers: %w", err)
	}
	var errs []error
	written.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { errs = append(errs, p.Err) })
	return errors.Join(errs...)
}
