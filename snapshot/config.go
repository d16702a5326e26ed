package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// The defaults of a Config.
const (
	DefaultBatchBytes     = 1 << 20
	DefaultCommitBytes    = 16 << 20
	DefaultCommitInterval = time.Second
	DefaultQueueBytes     = 16 << 20
	DefaultChunkBytes     = 64 << 20
	DefaultChunkDocuments = 500_000
	DefaultWorkers        = 4
	DefaultSessionTimeout = 10 * time.Second
)

// minSessionTimeout is the smallest that brokers accept by default
// (group.min.session.timeout.ms).
const minSessionTimeout = 6 * time.Second

// Config configures a Service. Zero values of sizes and times mean the
// defaults.
type Config struct {
	// Pipeline names the topics.
	Pipeline string
	// Instance names this process among those of the service.
	Instance string
	Kafka    kafka.Config
	Topics   kafka.TopicSpec
	Source   mongodb.Options
	// Select says which namespaces belong to the pipeline; nil selects all.
	Select *rules.Selection
	// Patterns are Select as it is written.
	Patterns rules.Patterns
	// WithoutDocuments makes runs of the source's catalogue alone.
	WithoutDocuments bool
	// OneOff says that no destination follows changes: collections that are
	// renamed meanwhile are not asked for again, as nobody would take them.
	OneOff bool

	// ReadPreference says which members the documents are read from; nil
	// leaves it to the connection string.
	ReadPreference *readpref.ReadPref

	// DiskBytes bounds what waits on the snapshot topic, encoded and before
	// compression: reading is held back until Destinations have loaded, and what
	// all of them have loaded is deleted. Zero bounds nothing and deletes
	// nothing. CommitBytes for each worker may come on top.
	DiskBytes int64
	// Destinations are those that load the run, by name.
	Destinations []string

	// BatchBytes is the size of one record's documents; a larger document
	// stands alone in its record.
	BatchBytes int
	// CommitBytes and CommitInterval bound what one Kafka transaction carries,
	// and so what a killed process has to read again.
	CommitBytes    int
	CommitInterval time.Duration
	// QueueBytes bounds what one worker holds between reading and the broker's
	// acknowledgement; one oversized document may go beyond it.
	QueueBytes int64
	// ChunkBytes and ChunkDocuments are the aimed size of a chunk, whichever
	// is reached first.
	ChunkBytes     int64
	ChunkDocuments int64
	// Workers is how many chunks are read at the same time.
	Workers int
	// SessionTimeout is how long a process may be silent before its chunks go
	// to others.
	SessionTimeout time.Duration
	// Throttle limits what this process reads from the source; nil limits
	// nothing. Its owner may change it at any time.
	Throttle *throttle.Limiter

	Retry retry.Policy
	Log   zerolog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Report takes the status; nil reports nothing. Its owner runs it.
	Report *state.Reporter
}

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var faults []error
	if err := route.ValidateName("pipeline", c.Pipeline); err != nil {
		faults = append(faults, err)
	}
	positive := func(name string, n int64) {
		if n <= 0 {
			faults = append(faults, fmt.Errorf("%s is %d: want more than 0", name, n))
		}
	}
	positive("batch bytes", int64(c.BatchBytes))
	positive("commit bytes", int64(c.CommitBytes))
	positive("commit interval", int64(c.CommitInterval))
	positive("queue bytes", c.QueueBytes)
	positive("chunk bytes", c.ChunkBytes)
	positive("chunk documents", c.ChunkDocuments)
	positive("workers", int64(c.Workers))
	if c.BatchBytes > kafka.MaxMessageBytes/2 {
		faults = append(faults, fmt.Errorf("batch bytes is %d: want at most %d", c.BatchBytes, kafka.MaxMessageBytes/2))
	}
	if c.CommitInterval > maxCommitInterval {
		faults = append(faults, fmt.Errorf("commit interval is %s: want at most %s", c.CommitInterval, maxCommitInterval))
	}
	if c.SessionTimeout < minSessionTimeout {
		faults = append(faults, fmt.Errorf("session timeout is %s: want at least %s", c.SessionTimeout, minSessionTimeout))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("configure snapshot: %w", err)
	}
	return nil
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	c.BatchBytes = cmp.Or(c.BatchBytes, DefaultBatchBytes)
	c.CommitBytes = cmp.Or(c.CommitBytes, DefaultCommitBytes)
	c.CommitInterval = cmp.Or(c.CommitInterval, DefaultCommitInterval)
	c.QueueBytes = cmp.Or(c.QueueBytes, DefaultQueueBytes)
	c.ChunkBytes = cmp.Or(c.ChunkBytes, DefaultChunkBytes)
	c.ChunkDocuments = cmp.Or(c.ChunkDocuments, DefaultChunkDocuments)
	c.Workers = cmp.Or(c.Workers, DefaultWorkers)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, DefaultSessionTimeout)
	return c
}
