// Package state is what a pipeline remembers in Kafka: the records of
// <pipeline>.state (compacted, one partition, JSON values under typed keys) and
// of <pipeline>.control.
//
// A value is written by one owner only: capture writes the source's identity
// and its position, snapshot the manifests and the progress of chunks, every
// service its own status, apply the registration of its group. What must be
// exact is written inside the Kafka transaction that it describes; readers read
// committed records only.
package state
