// Package logfield names the fields of log records, so that one thing has one
// name wherever it is logged. Fields never hold documents, credentials or
// connection strings.
package logfield

// The fields.
const (
	// Pipeline is the pipeline's name.
	Pipeline = "pipeline"
	// Service is capture, snapshot or apply.
	Service = "service"
	// Instance names a process among those of a service.
	Instance = "instance"
	// Destination is the destination's name, Group its group's.
	Destination = "destination"
	Group       = "group"
	// Namespace is database.collection, Target the same in the destination.
	Namespace = "ns"
	Target    = "target"
	// Topic, Partition and Offset are Kafka's.
	Topic     = "topic"
	Partition = "partition"
	Offset    = "offset"
	// Position is a place in the source's order of changes.
	Position = "position"
	// Watermark is the cluster time of a watermark.
	Watermark = "watermark"
	// Run and Chunk belong to snapshot.
	Run   = "run"
	Chunk = "chunk"
	// Phase is that of an apply group or a run.
	Phase = "phase"
	// Percent, Documents, Bytes, Chunks, Rate and Left tell how far a load has
	// come: what is done of what there is, how quickly, and for how long yet.
	Percent   = "percent"
	Documents = "documents"
	Bytes     = "bytes"
	Chunks    = "chunks"
	Rate      = "rate"
	Left      = "left"
	// Request is the id of a request for whole documents.
	Request = "request"
	// Deployment is the id of a MongoDB deployment, ServerVersion its version.
	Deployment    = "deployment"
	ServerVersion = "server_version"
	// Version is the program's.
	Version = "version"
	// Address is where a server listens.
	Address = "address"
	// Reason says why something was decided.
	Reason = "reason"
	// OplogWindow is how far back the source's oplog reaches, OplogHeld what it
	// holds now, OplogGrowth how many bytes it takes a second.
	OplogWindow = "oplog_window"
	OplogHeld   = "oplog_held"
	OplogGrowth = "oplog_bytes_per_second"
	// Retention is how long a topic keeps its records.
	Retention = "retention"
	// MemoryLimit is what a process may take, in bytes.
	MemoryLimit = "memory_limit"
	// Until is when retrying ends, Wait how long it rests first.
	Until = "until"
	Wait  = "wait"
	// Mode is how a source is followed, Offered what its change streams can do.
	Mode    = "mode"
	Offered = "offered"
	// Signal is that of the operating system.
	Signal = "signal"
)
