package capture

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
	"go.mongodb.org/mongo-driver/v2/bson"
)

// The ways to follow a source. ModeOplog tails local.oplog.rs; ModeChangeStream
// watches the whole deployment, also a sharded one; ModeAuto is the oplog where
// it can be read, else the change stream. A pipeline keeps the mode that it was
// begun in.
const (
	ModeOplog        = "oplog"
	ModeChangeStream = "change_stream"
	ModeAuto         = "auto"
)

// The defaults of a Config.
const (
	DefaultCommitInterval     = 100 * time.Millisecond
	DefaultCommitEvents       = 10_000
	DefaultQueueBytes         = 64 << 20
	DefaultWorkers            = 2
	DefaultWatermarkInterval  = time.Second
	DefaultIdleInterval       = time.Second
	DefaultTransactionTimeout = 15 * time.Second
	DefaultSessionTimeout     = 8 * time.Second
	DefaultDrainTimeout       = 10 * time.Second
	DefaultCatalogInterval    = 30 * time.Second
)

// minQueueBytes lets at least one work batch of ordinary size through.
const minQueueBytes = 1 << 20

// Config configures a Service. Zero values take the defaults above.
type Config struct {
	// Pipeline names the pipeline; its topics derive from it.
	Pipeline string
	// Instance names this process among others of the service.
	Instance string
	Kafka    kafka.Config
	// Topics are the settings that the pipeline's topics are created with and
	// checked against.
	Topics kafka.TopicSpec
	// MaxRetention is up to what the change topic's retention is stretched
	// while a registered group stands before what would be deleted; zero
	// leaves it alone.
	MaxRetention time.Duration
	// DropLoaded says that what a complete run has left on the snapshot topic is
	// deleted there once every registered group, and each of LoadedBy, has loaded
	// it. LoadedBy names the destinations that load documents.
	DropLoaded bool
	LoadedBy   []string
	Source     mongodb.Options
	// Select says which namespaces are captured; nil captures all.
	Select *rules.Selection
	// Patterns are Select as it is written. A change of them between two lives
	// of a pipeline is noticed by them.
	Patterns rules.Patterns
	// EnforcesUnique holds, by destination, the selections under which unique
	// indexes are enforced: collections that have one keep the order of all
	// their documents. It must not grow during the life of a pipeline.
	EnforcesUnique map[string]*rules.Selection
	// Mode is one of the modes above; empty is ModeAuto.
	Mode string
	// CatalogInterval is how often the source's catalogue is compared with what
	// was told of it, where a change stream does not report its changes.
	CatalogInterval time.Duration
	// Start is the cluster time behind which a new pipeline begins: every change
	// later than it is published. Zero is the present. It is refused if it is
	// later than that, and is an ErrHistoryLost if the source's oplog does not
	// reach back to it. A pipeline that has begun goes on where it was.
	Start bson.Timestamp
	// CommitInterval and CommitEvents end a Kafka transaction, whichever comes
	// first; the operations of one oplog entry are kept together.
	CommitInterval time.Duration
	CommitEvents   int
	// QueueBytes bounds the memory of entries and events under way.
	QueueBytes int64
	// Workers decode and encode in parallel.
	Workers int
	// WatermarkInterval is the least time between two watermarks. IdleInterval
	// is the time after which the last watermark is repeated while nothing
	// happens, which tells readers that capture is alive and the source idle.
	WatermarkInterval, IdleInterval time.Duration
	// TransactionTimeout is after which the broker ends an abandoned
	// transaction. SessionTimeout is after which a silent active instance is
	// replaced by a standby.
	TransactionTimeout, SessionTimeout time.Duration
	// DrainTimeout bounds how long a stop may take to commit what was read.
	DrainTimeout time.Duration
	// Retry bounds retries; its OnRetry is replaced by the service.
	Retry retry.Policy
	Log   zerolog.Logger
	// Registerer takes the metrics; nil keeps them to oneself.
	Registerer prometheus.Registerer
	// Report publishes the status; nil drops it. The caller runs it.
	Report *state.Reporter

	// seams are faults that only tests can cause.
	seams seams
}

// Validate reports every fault of the configuration at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if err := route.ValidateName("pipeline", c.Pipeline); err != nil {
		faults = append(faults, err)
	}
	if c.Mode != "" && c.Mode != ModeOplog && c.Mode != ModeChangeStream && c.Mode != ModeAuto {
		fault("capture mode %q is not known: use %s, %s or %s", c.Mode, ModeAuto, ModeOplog, ModeChangeStream)
	}
	if c.QueueBytes != 0 && c.QueueBytes < minQueueBytes {
		fault("queue of %d bytes is too small: give it at least %d", c.QueueBytes, minQueueBytes)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"commit interval", c.CommitInterval},
		{"watermark interval", c.WatermarkInterval},
		{"idle interval", c.IdleInterval},
		{"transaction timeout", c.TransactionTimeout},
		{"session timeout", c.SessionTimeout},
		{"drain timeout", c.DrainTimeout},
		{"catalogue interval", c.CatalogInterval},
	} {
		if d.value < 0 {
			fault("%s %s is negative", d.name, d.value)
		}
	}
	if c.CommitEvents < 0 || c.Workers < 0 {
		fault("commit events %d and workers %d must not be negative", c.CommitEvents, c.Workers)
	}
	if c.CommitInterval > 0 && c.TransactionTimeout > 0 && c.CommitInterval >= c.TransactionTimeout {
		fault("commit interval %s must be shorter than the transaction timeout %s", c.CommitInterval, c.TransactionTimeout)
	}
	return errors.Join(faults...)
}

func (c *Config) setDefaults() {
	c.Mode = cmp.Or(c.Mode, ModeAuto)
	c.CatalogInterval = cmp.Or(c.CatalogInterval, DefaultCatalogInterval)
	c.CommitInterval = cmp.Or(c.CommitInterval, DefaultCommitInterval)
	c.CommitEvents = cmp.Or(c.CommitEvents, DefaultCommitEvents)
	c.QueueBytes = cmp.Or(c.QueueBytes, DefaultQueueBytes)
	c.Workers = cmp.Or(c.Workers, DefaultWorkers)
	c.WatermarkInterval = cmp.Or(c.WatermarkInterval, DefaultWatermarkInterval)
	c.IdleInterval = cmp.Or(c.IdleInterval, DefaultIdleInterval)
	c.TransactionTimeout = cmp.Or(c.TransactionTimeout, DefaultTransactionTimeout)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, DefaultSessionTimeout)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
}
