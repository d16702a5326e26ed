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
