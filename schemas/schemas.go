// Package schemas embeds the Avro schemas of the records that Tributary puts
// on Kafka. It holds no logic: package wire encodes and decodes.
package schemas

import _ "embed"

// ChangeEvent is the schema of the records of <pipeline>.changes.
//
//go:embed change_event.avsc
var ChangeEvent string

// SnapshotBatch is the schema of the records of <pipeline>.snapshot.
//
//go:embed snapshot_batch.avsc
var SnapshotBatch string

// RecordPart is the schema of the parts of a record that is larger than the
// broker takes, on either of those topics.
//
//go:embed record_part.avsc
var RecordPart string

// ChangeEvent1 is the first schema of change events, without as_of. Records of
// it stay readable.
//
//go:embed change_event_1.avsc
var ChangeEvent1 string
