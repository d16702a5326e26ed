package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaClusterID is any id in the form that Kafka wants (22 characters of
// base64); a data directory is formatted once with it.
const kafkaClusterID = "VHJpYnV0YXJ5LXRlc3RpbQ"

// Kafka is an installed Kafka: a Java and the libraries of the broker.
type Kafka struct {
	Java string
	Libs string
}

// FindKafka looks for libraries in TRIBUTARY_KAFKA_LIBS or, if that is not set,
// in .engines/kafka/libs of the repository, and for java on the PATH.
func FindKafka() (Kafka, error) {
	missing := func(why string) error {
		return &MissingError{
			Engine: "kafka", Why: why,
			Remedy:   "install a JDK (17 or later) and Maven, then `make engines`",
			Untested: "everything that a real broker does differently from kfake: log cleaning, timeouts of transactions and sessions, message limits, transaction.version 2",
		}
	}
	libs := os.Getenv("TRIBUTARY_KAFKA_LIBS")
	if libs == "" {
		root, err := Root()
		if err != nil {
			return Kafka{}, err
		}
		libs = filepath.Join(root, ".engines", "kafka", "libs")
	}
	jars, err := filepath.Glob(filepath.Join(libs, "kafka_2.13-*.jar"))
	if err != nil || len(jars) == 0 {
		return Kafka{}, missing("no kafka_2.13-*.jar in " + libs)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return Kafka{}, missing("no java on the PATH")
	}
	return Kafka{Java: java, Libs: libs}, nil
}

// KafkaConfig says how to run a broker.
type KafkaConfig struct {
	// Dir holds data, settings and log; a directory of an earlier run is taken
	// up.
	Dir string
	// Port is the clients'; 0 takes a free one.
	Port int
	// Settings are added to the broker's, or replace them.
	Settings map[string]string
}

// Broker is a running Kafka broker.
type Broker struct {
	*Server
	Brokers []string
}

// Start formats the data directory if it is new, starts a broker in KRaft
// combined mode and waits until it answers.
func (k Kafka) Start(ctx context.Context, cfg KafkaConfig) (*Broker, error) {
	b := &Broker{}
	err := onFreePorts(2, func(ports []int) error {
		if cfg.Port != 0 {
			ports[0] = cfg.Port
		}
		properties := filepath.Join(cfg.Dir, "server.properties")
		if err := writeProperties(properties, brokerSettings(cfg, ports)); err != nil {
			return err
		}
		if err := k.format(ctx, cfg.Dir, properties); err != nil {
			return err
		}
		b.Brokers = []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}
		command := Command{
			Name: "kafka", Path: k.Java, Args: k.java("512m", "kafka.Kafka", properties),
			Log: filepath.Join(cfg.Dir, "kafka.log"),
		}
		var err error
		b.Server, err = launch(ctx, command, b.answers)
		return err
	})
	return b, err
}

// java is the command line of a class of the broker's.
func (k Kafka) java(heap, class string, args ...string) []string {
	return append([]string{
		"-Xmx" + heap, "-XX:+UseSerialGC",
		"-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(k.Libs, "*"), class,
	}, args...)
}

// format prepares a new data directory; one that is formatted stays as it is.
func (k Kafka) format(ctx context.Context, dir, properties string) error {
	if _, err := os.Stat(filepath.Join(dir, "data", "meta.properties")); err == nil {
		return nil
	}
	args := k.java("64m", "kafka.tools.StorageTool", "format", "--cluster-id", kafkaClusterID, "--config", properties)
	if out, err := exec.CommandContext(ctx, k.Java, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format kafka's data directory: %w\n%s", err, out)
	}
	return nil
}

// answers reports whether the broker serves clients.
func (b *Broker) answers(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Brokers...), kgo.DisableClientMetrics())
	if err != nil {
		return fmt.Errorf("connect to broker: %w", err)
	}
	defer client.Close()
	metadata, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("ask broker for metadata: %w", err)
	}
	if len(metadata.Brokers) == 0 {
		return errors.New("broker is not let in yet")
	}
	return nil
}

// brokerSettings are those of a small broker with production's semantics:
// topics are made on purpose only, transactions and groups need no other node.
func brokerSettings(cfg KafkaConfig, ports []int) map[string]string {
	settings := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         fmt.Sprintf("1@127.0.0.1:%d", ports[1]),
		"controller.listener.names":                        "CONTROLLER",
		"listeners":                                        fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", ports[0], ports[1]),
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                         filepath.Join(cfg.Dir, "data"),
		"auto.create.topics.enable":                        "false",
		"message.max.bytes":                                "26214400",
		"min.insync.replicas":                              "1",
		"default.replication.factor":                       "1",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "3",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "3",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
		// A broker that was killed is let in again when its old session is over.
		"broker.session.timeout.ms":    "2000",
		"broker.heartbeat.interval.ms": "500",
		// How late a dead producer's transaction is found to have timed out.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		// Each index file is made at its full size; most topics here are small.
		"log.index.size.max.bytes": "1048576",
		// The cleaner allocates this at once; 128 MiB would be a quarter of the heap.
		"log.cleaner.dedupe.buffer.size": "8388608",
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
	}
	maps.Copy(settings, cfg.Settings)
	return settings
}

// writeProperties writes settings in Java's format, sorted.
func writeProperties(path string, settings map[string]string) error {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", key, settings[key])
	}
	return errors.Join(
		os.MkdirAll(filepath.Dir(path), 0o755),
		os.WriteFile(path, []byte(b.String()), 0o644),
	)
}
