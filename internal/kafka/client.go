package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/plugin/kzerolog"
)

const (
	// MaxMessageBytes is the largest record batch that topics are asked to
	// take: a document of 16 MiB, the largest one, with its event around it.
	MaxMessageBytes = 24 << 20

	dialTimeout     = 5 * time.Second
	deliveryTimeout = time.Minute
	// maxBufferedBytes and maxBufferedRecords bound what a producer holds.
	maxBufferedBytes   = 64 << 20
	maxBufferedRecords = 100_000
	// fetchBytes bounds one fetch response, fetchPartitionBytes one
	// partition's share of it; a broker exceeds them for a single batch that
	// is larger.
	fetchBytes          = 32 << 20
	fetchPartitionBytes = 4 << 20
)

// Config says how to reach the brokers. It is a value; the client copies what
// it needs.
type Config struct {
	// Brokers are the seed brokers, as host:port.
	Brokers []string
	// TLS, if set, encrypts every connection.
	TLS *tls.Config
	// SASL, if set, authenticates every connection.
	SASL sasl.Mechanism
	// Log receives the client's warnings, and at debug level its events.
	Log zerolog.Logger
	// ClientID names this client to the brokers; empty means "tributary".
	ClientID string
}

// NewClient returns a client with the product's defaults: all in-sync replicas
// acknowledge, writes are idempotent, buffers are bounded in bytes, topics are
// never created on their own. The caller's options win. It does not connect:
// Ping does. The caller closes the client.
func NewClient(cfg Config, opts ...kgo.Opt) (*kgo.Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("create Kafka client: no broker is given: hint: set kafka.brokers to a list of host:port")
	}
	cl, err := kgo.NewClient(append(defaults(cfg), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("create Kafka client: %w", err)
	}
	return cl, nil
}

func defaults(cfg Config) []kgo.Opt {
	id := cfg.ClientID
	if id == "" {
		id = "tributary"
	}
	log := clientLog(cfg.Log)
	opts := []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID(id),
		kgo.WithLogger(kzerolog.New(&log)),
		kgo.DialTimeout(dialTimeout),
		// A topic that was just created is looked for again soon.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(MaxMessageBytes),
		kgo.MaxBufferedBytes(maxBufferedBytes),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}
	if cfg.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(cfg.TLS.Clone()))
	}
	if cfg.SASL != nil {
		opts = append(opts, kgo.SASL(cfg.SASL))
	}
	return opts
}

// clientLog lets the client's warnings through, and its events from debug
// level on: what it calls information comes with every connection.
func clientLog(log zerolog.Logger) zerolog.Logger {
	switch level := log.GetLevel(); {
	case level == zerolog.TraceLevel:
		return log
	case level == zerolog.DebugLevel:
		return log.Level(zerolog.InfoLevel)
	case level < zerolog.WarnLevel:
		return log.Level(zerolog.WarnLevel)
	default:
		return log
	}
}
