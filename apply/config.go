package apply

import (
	"errors"
	"fmt"
	"strings"
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
	"go.mongodb.org/mongo-driver/v2/bson"
)

// How batches take effect.
const (
	// ExactlyOnceAuto uses transactions where a probe shows that they work.
	ExactlyOnceAuto = "auto"
	// ExactlyOnceOn refuses a destination without working transactions.
	ExactlyOnceOn = "on"
	// ExactlyOnceOff never uses transactions.
	ExactlyOnceOff = "off"
)

// The defaults of a Config.
const (
	DefaultBatchEvents = 1000
	DefaultBatchBytes  = 8 << 20
	DefaultQueueBytes  = 128 << 20
	DefaultDrain       = 10 * time.Second
	// DefaultIndexBuilds is small: a server shares its memory for index builds
	// (maxIndexBuildMemoryUsageMegabytes) among those that run.
	DefaultIndexBuilds = 2
	// DefaultSessionTimeout is not below what brokers allow (6 s).
	DefaultSessionTimeout = 10 * time.Second
)

const (
	// maxBatchEvents is where a batch's one find and one transaction stop to
	// pay.
	maxBatchEvents = 10_000
	// maxBatchBytes leaves room beside the largest document in what servers
	// take as one transaction.
	maxBatchBytes = 64 << 20
	// maxIndexBuilds is more than any server does at a time without waiting
	// (maxNumActiveUserIndexBuilds is 3).
	maxIndexBuilds = 16
)

// Config configures a Service.
type Config struct {
	Pipeline string
	// Instance names this process among the group's members.
	Instance string
	// Destination names the destination, Group its group; empty for its only
	// one.
	Destination string
	Group       string
	Kafka       kafka.Config
	Topics      kafka.TopicSpec
	// Target says how to reach the destination.
	Target mongodb.Options
	Rules  rules.Destination
	// Peers are the destination's other groups. All processes of a destination
	// must be given the same ones.
	Peers []Peer
	// RulesDigest stands for Rules among the members of the group: one with
	// another digest is refused. Empty is a digest like any other.
	RulesDigest string
	// Select is the selection of Rules as it is written, the pipeline's patterns
	// first, and FixedDigest stands for the rest of Rules: with both, a group
	// whose processes were all stopped takes over a changed selection. Without,
	// it is refused as any other change of the rules.
	Select      rules.Layers
	FixedDigest string
	// Sync says what the group synchronises; zero means everything.
	Sync Sync
	// Sharding says how collections are spread over a sharded destination; zero
	// leaves those that apply makes unsharded.
	Sharding Sharding
	// Start is for a group that follows changes without a load: the cluster time
	// as of which, or later, the destination holds the source. Zero is the
	// present. It does not change during a group's life (RulesDigest).
	Start bson.Timestamp
	// ExactlyOnce is one of ExactlyOnceAuto, ExactlyOnceOn and ExactlyOnceOff;
	// empty means auto.
	ExactlyOnce string
	// OnError is OnErrorStop or OnErrorDeadLetter; empty means stop.
	OnError string
	// Conflicts is one of ConflictsFail, ConflictsKeep and ConflictsOverwrite;
	// empty means fail.
	Conflicts string
	// IndexBuilds is how many collections' indexes are built at a time behind
	// the load; zero means the default.
	IndexBuilds int
	// BatchEvents and BatchBytes bound a batch; zero means the default. A
	// batch holds at least one record.
	BatchEvents int
	BatchBytes  int64
	// QueueBytes bounds what is fetched and not yet applied, for all
	// partitions together, apart from 1 MiB that each may hold; zero means the
	// default.
	QueueBytes int64
	// LoadThrottle limits what this process writes of a full load, and
	// ChangesThrottle what it writes of changes; nil limits nothing. Their owner
	// may change them at any time.
	LoadThrottle, ChangesThrottle *throttle.Limiter
	// Drain bounds how long a batch in hand may take when the service or the
	// ownership of its partition ends; zero means the default.
	Drain time.Duration
	// SessionTimeout is after which a silent member's partitions go to others;
	// zero means the default.
	SessionTimeout time.Duration
	// Retry bounds retries; its OnRetry is replaced by the service. Zero
	// windows mean the defaults.
	Retry      retry.Policy
	Log        zerolog.Logger
	Registerer prometheus.Registerer
	// Report receives the status; nil drops it. The caller runs it.
	Report *state.Reporter
}

// Validate reports every fault of the configuration at once.
func (c *Config) Validate() error {
	var faults []error
	faults = append(faults, route.ValidateName("pipeline", c.Pipeline), route.ValidateName("destination", c.Destination))
	if c.Group != "" {
		faults = append(faults, route.ValidateName("group", c.Group))
	}
	// Group names are joined with dots, and must not meet.
	for what, name := range map[string]string{"destination": c.Destination, "group": c.Group} {
		if strings.Contains(name, ".") {
			faults = append(faults, fmt.Errorf("%s name %q has a dot: use letters, digits, _ and -", what, name))
		}
	}
	if c.Instance == "" {
		faults = append(faults, errors.New("instance name is empty"))
	}
	switch c.ExactlyOnce {
	case "", ExactlyOnceAuto, ExactlyOnceOn, ExactlyOnceOff:
	default:
		faults = append(faults, fmt.Errorf("exactly_once is %q: want auto, on or off", c.ExactlyOnce))
	}
	switch c.OnError {
	case "", OnErrorStop, OnErrorDeadLetter:
	default:
		faults = append(faults, fmt.Errorf("on_error is %q: want stop or dead_letter", c.OnError))
	}
	switch c.Conflicts {
	case "", ConflictsFail, ConflictsKeep, ConflictsOverwrite:
	default:
		faults = append(faults, fmt.Errorf("conflicts is %q: want fail, keep or overwrite", c.Conflicts))
	}
	if c.IndexBuilds < 0 || c.IndexBuilds > maxIndexBuilds {
		faults = append(faults, fmt.Errorf("index builds are %d: want 1 to %d", c.IndexBuilds, maxIndexBuilds))
	}
	if c.BatchEvents < 0 || c.BatchEvents > maxBatchEvents {
		faults = append(faults, fmt.Errorf("batch of %d events: want 1 to %d", c.BatchEvents, maxBatchEvents))
	}
	if c.BatchBytes < 0 || c.BatchBytes > maxBatchBytes {
		faults = append(faults, fmt.Errorf("batch of %d bytes: want 1 to %d", c.BatchBytes, maxBatchBytes))
	}
	if c.QueueBytes < 0 {
		faults = append(faults, fmt.Errorf("queue of %d bytes: want 1 or more", c.QueueBytes))
	}
	return errors.Join(faults...)
}

// withDefaults fills in what was left open.
func (c Config) withDefaults() Config {
	if c.Sync == (Sync{}) {
		c.Sync = Sync{Schema: true, Full: true, Incremental: true}
	}
	if c.ExactlyOnce == "" {
		c.ExactlyOnce = ExactlyOnceAuto
	}
	if c.Conflicts == "" {
		c.Conflicts = ConflictsFail
	}
	if c.IndexBuilds == 0 {
		c.IndexBuilds = DefaultIndexBuilds
	}
	if c.BatchEvents == 0 {
		c.BatchEvents = DefaultBatchEvents
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = DefaultBatchBytes
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = DefaultQueueBytes
	}
	if c.Drain == 0 {
		c.Drain = DefaultDrain
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = DefaultSessionTimeout
	}
	if c.Retry.Connection == 0 && c.Retry.Other == 0 {
		c.Retry = retry.Default()
	}
	return c
}

// groupName is the group's name inside the destination: "<destination>" or
// "<destination>.<group>".
func (c *Config) groupName() string {
	if c.Group == "" {
		return c.Destination
	}
	return c.Destination + "." + c.Group
}
