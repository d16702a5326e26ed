package route

import (
	"fmt"
	"strings"
)

// maxPipelineName leaves room for the suffixes below Kafka's limit of 249
// characters for a topic name.
const maxPipelineName = 128

// Topics are the names of one pipeline's topics.
type Topics struct {
	// Changes carries change events, keyed by namespace and _id.
	Changes string
	// Snapshot carries batches of documents of full loads.
	Snapshot string
	// Chunks carries the work items of snapshot.
	Chunks string
	// State is compacted, one partition: positions, manifests, status.
	State string
	// Control carries the operator's commands, one partition.
	Control string
}

// TopicsOf names the topics of a pipeline.
func TopicsOf(pipeline string) Topics {
	return Topics{
		Changes:  pipeline + ".changes",
		Snapshot: pipeline + ".snapshot",
		Chunks:   pipeline + ".chunks",
		State:    pipeline + ".state",
		Control:  pipeline + ".control",
	}
}

// DeadTopic names the dead-letter topic of one destination.
func DeadTopic(pipeline, destination string) string { return pipeline + ".dead." + destination }

// CaptureGroup is the one-partition group on the control topic that elects the
// active capture.
func CaptureGroup(pipeline string) string { return "tributary." + pipeline + ".capture" }

// CaptureTransactionalID fences captures of one pipeline against each other.
func CaptureTransactionalID(pipeline string) string { return "tributary." + pipeline + ".capture" }

// SnapshotGroup shares the partitions of the chunks topic out among snapshot
// processes.
func SnapshotGroup(pipeline string) string { return "tributary." + pipeline + ".snapshot" }

// SnapshotTransactionalID fences the owners of one partition of the chunks
// topic against each other.
func SnapshotTransactionalID(pipeline string, partition int32) string {
	return fmt.Sprintf("tributary.%s.snapshot.%d", pipeline, partition)
}

// ApplyGroup is the consumer group of one destination; group is empty for a
// destination's only group.
func ApplyGroup(pipeline, destination, group string) string {
	name := "tributary." + pipeline + "." + destination
	if group != "" {
		name += "." + group
	}
	return name
}

// ValidateName checks a pipeline's, destination's or group's name: it becomes
// part of topic and group names, so Kafka's rules for topic names hold
// (org.apache.kafka.common.internals.Topic: letters, digits, '.', '_', '-';
// not "." or ".."). What names the thing in the message, as "pipeline".
func ValidateName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s name is empty: give it one of letters, digits, '_', '-' and '.'", what)
	case len(name) > maxPipelineName:
		return fmt.Errorf("%s name has %d characters: at most %d are allowed", what, len(name), maxPipelineName)
	case name == "." || name == "..":
		return fmt.Errorf("%s name %q is reserved by Kafka: choose another", what, name)
	}
	if i := strings.IndexFunc(name, illegalInName); i >= 0 {
		return fmt.Errorf("%s name %q has the character %q: Kafka allows letters, digits, '.', '_' and '-'", what, name, []rune(name[i:])[0])
	}
	return nil
}

func illegalInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}
