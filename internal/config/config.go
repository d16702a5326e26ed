package config

import (
	"time"

	"github.com/tributarydb/tributary/internal/retry"
)

// Config describes a pipeline. Load returns it complete: with defaults, checked,
// references resolved. It holds secrets: never write it anywhere.
type Config struct {
	// Name is the pipeline's name; its topics and groups derive from it.
	Name string `yaml:"name"`
	// Labels are added to every metric.
	Labels       map[string]string `yaml:"labels"`
	Source       Source            `yaml:"source"`
	Kafka        Kafka             `yaml:"kafka"`
	Select       Select            `yaml:"select"`
	Capture      Capture           `yaml:"capture"`
	Snapshot     Snapshot          `yaml:"snapshot"`
	Destinations []Destination     `yaml:"destinations"`
	Retry        Retry             `yaml:"retry"`
	HTTP         HTTP              `yaml:"http"`
	Log          Log               `yaml:"log"`
}

// Source is the deployment to follow.
type Source struct {
	// URI is a MongoDB connection string; a secret.
	URI string `yaml:"uri"`
	// Mode is "auto", "oplog" or "change_stream".
	Mode string `yaml:"mode"`
	// CatalogInterval is how often collections and indexes are compared, where
	// the change stream does not report them.
	CatalogInterval time.Duration `yaml:"catalog_interval"`
	// Throttle limits the reads of full loads.
	Throttle ReadThrottle `yaml:"throttle"`
}

// Kafka says how to reach the brokers and what the topics look like.
type Kafka struct {
	// Brokers are host:port.
	Brokers           []string `yaml:"brokers"`
	ReplicationFactor int      `yaml:"replication_factor"`
	MinInsyncReplicas int      `yaml:"min_insync_replicas"`
	// Partitions is the change topic's count, fixed for its life.
	Partitions         int `yaml:"partitions"`
	SnapshotPartitions int `yaml:"snapshot_partitions"`
	// SnapshotDisk bounds what of a full load waits in Kafka, before
	// compression.
	SnapshotDisk Bytes `yaml:"snapshot_disk"`
	// Retention is how long changes stay readable.
	Retention time.Duration `yaml:"retention"`
	// MaxRetention is up to what capture stretches that while a destination is
	// far behind; see StretchedRetention.
	MaxRetention time.Duration `yaml:"max_retention"`
	TLS          TLS           `yaml:"tls"`
	SASL         SASL          `yaml:"sasl"`
}

// TLS of the connections to Kafka. Paths are relative to the file's directory.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// SASL authenticates to Kafka. An empty mechanism means none.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism string `yaml:"mechanism"`
	Username  string `yaml:"username"`
	Password  string `yaml:"password"`
}

// Select names what is included and excluded; see rules.CompileSelection.
type Select struct {
	Include []string `yaml:"include"`
	Exclude []string `yaml:"exclude"`
}

// Capture tunes the capture service.
type Capture struct {
	CommitInterval time.Duration `yaml:"commit_interval"`
	CommitEvents   int           `yaml:"commit_events"`
	Queue          Bytes         `yaml:"queue"`
}

// Snapshot tunes the snapshot service.
type Snapshot struct {
	// Batch is the size of one record's documents.
	Batch   Bytes `yaml:"batch"`
	Workers int   `yaml:"workers"`
	// Chunk and ChunkDocuments are the aimed size of a work item, whichever is
	// reached first.
	Chunk          Bytes `yaml:"chunk"`
	ChunkDocuments int   `yaml:"chunk_documents"`
	// RetainRuns is of how many of the last runs the records stay in Kafka
	// after every destination has loaded them.
	RetainRuns int `yaml:"retain_runs"`
	// ReadPreference says which members are read: "primary",
	// "primaryPreferred", "secondary", "secondaryPreferred" or "nearest"; empty
	// leaves it to the connection string.
	ReadPreference string `yaml:"read_preference"`
	// ReadTags are sets of tags ("dc:east,use:reporting"), in the order in which
	// they are tried, that narrow ReadPreference.
	ReadTags []string `yaml:"read_tags"`
}

// Destination is a deployment to write to.
type Destination struct {
	Name string `yaml:"name"`
	// URI is a MongoDB connection string; a secret.
	URI string `yaml:"uri"`
	// Sync lists the types of synchronisation: schema, full, incremental.
	Sync []string `yaml:"sync"`
	// Start is where incremental alone begins: "now", an RFC 3339 time or a
	// cluster time.
	Start string `yaml:"start"`
	// Select narrows the pipeline's selection.
	Select Select `yaml:"select"`
	Rename Rename `yaml:"rename"`
	// ExactlyOnce is "auto", "on" or "off".
	ExactlyOnce string `yaml:"exactly_once"`
	// Sharding says how collections are spread over a sharded destination.
	Sharding Sharding `yaml:"sharding"`
	// Indexes says when unique and TTL indexes take effect.
	Indexes Indexes `yaml:"indexes"`
	// OnError is "stop" or "dead_letter".
	OnError string `yaml:"on_error"`
	// Conflicts is "fail", "keep" or "overwrite": what documents mean that the
	// destination holds under _ids of the load.
	Conflicts string `yaml:"conflicts"`
	// IndexBuilds is of how many collections indexes are built at a time behind
	// the load.
	IndexBuilds    int   `yaml:"index_builds"`
	BatchDocuments int   `yaml:"batch_documents"`
	BatchBytes     Bytes `yaml:"batch_bytes"`
	Queue          Bytes `yaml:"queue"`
	// Throttle limits the writes.
	Throttle WriteThrottle `yaml:"throttle"`
}

// Indexes says of unique and TTL indexes whether the destination has them from
// the end of catching up ("enforced") or from `tributary finalize` on
// ("deferred").
type Indexes struct {
	Unique string `yaml:"unique"`
	TTL    string `yaml:"ttl"`
}

// Rename maps names of the source to names of the destination.
type Rename struct {
	Databases map[string]string `yaml:"databases"`
}

// Retry bounds how long failures may follow one another.
type Retry struct {
	Connection time.Duration `yaml:"connection"`
	Other      time.Duration `yaml:"other"`
}

// HTTP is where a service answers /metrics, /healthz, /readyz and /status.
type HTTP struct {
	// Address is host:port; "off" for no server.
	Address string `yaml:"address"`
}

// Log says how the log looks.
type Log struct {
	// Level is trace, debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is json or console.
	Format string `yaml:"format"`
}

// Bytes is a size; in the file a number or one with a unit, as 64MiB.
type Bytes int64

// Values of the configuration that code compares with.
const (
	ModeAuto         = "auto"
	ModeOplog        = "oplog"
	ModeChangeStream = "change_stream"
	AddressOff       = "off"

	MechanismPlain    = "PLAIN"
	MechanismScram256 = "SCRAM-SHA-256"
	MechanismScram512 = "SCRAM-SHA-512"

	IndexesDeferred = "deferred"
	IndexesEnforced = "enforced"

	OnErrorStop       = "stop"
	OnErrorDeadLetter = "dead_letter"

	ConflictsFail      = "fail"
	ConflictsKeep      = "keep"
	ConflictsOverwrite = "overwrite"

	FormatJSON    = "json"
	FormatConsole = "console"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// defaults returns what holds where the file says nothing.
func defaults() Config {
	return Config{
		Source: Source{Mode: ModeAuto, CatalogInterval: 30 * time.Second},
		Kafka: Kafka{
			ReplicationFactor: 3, MinInsyncReplicas: 2, Partitions: 8, SnapshotPartitions: 8, SnapshotDisk: 50 * gib, Retention: 7 * 24 * time.Hour, MaxRetention: 30 * 24 * time.Hour,
		},
		Capture:  Capture{CommitInterval: 100 * time.Millisecond, CommitEvents: 10_000, Queue: 64 * mib},
		Snapshot: Snapshot{Batch: mib, Workers: 4, Chunk: 64 * mib, ChunkDocuments: 500_000},
		Retry:    Retry{Connection: retry.DefaultConnection, Other: retry.DefaultOther},
		HTTP:     HTTP{Address: "127.0.0.1:9600"},
		Log:      Log{Level: "info", Format: FormatConsole},
	}
}

// StretchedRetention is the longest retention that the change topic may get:
// never less than the usual one.
func (k *Kafka) StretchedRetention() time.Duration { return max(k.MaxRetention, k.Retention) }

// setDefaults makes Destination an element with defaults of its own.
func (d *Destination) setDefaults() {
	*d = Destination{
		Sync:        []string{SyncSchema, SyncFull, SyncIncremental},
		ExactlyOnce: "auto", Indexes: Indexes{Unique: IndexesDeferred, TTL: IndexesDeferred}, OnError: OnErrorStop,
		Sharding:  Sharding{Default: ShardingNone},
		Conflicts: ConflictsFail, IndexBuilds: 2, BatchDocuments: 1000, BatchBytes: 8 * mib, Queue: 128 * mib,
	}
}
