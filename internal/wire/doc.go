// Package wire turns change events and snapshot batches into the Avro records
// of the topics and back. The schemas are in package schemas.
//
// Framing is fixed: Avro single-object encoding, that is the two bytes C3 01,
// the schema's 64-bit Rabin fingerprint in little-endian order and the Avro
// binary body (Avro specification, "Single-object encoding"). A fingerprint
// that is not known is ErrUnknownSchema, never a guess.
//
// A record that is larger than the broker takes travels as several RecordPart
// records; Split makes them and an Assembler puts them together again.
//
// The package is pure: no client, no logger, no metrics.
package wire
