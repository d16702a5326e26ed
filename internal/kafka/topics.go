package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The settings of topics that Tributary chooses.
const (
	settingCleanup      = "cleanup.policy"
	settingTimestamp    = "message.timestamp.type"
	settingRetention    = "retention.ms"
	settingMinInsync    = "min.insync.replicas"
	settingMessageBytes = "max.message.bytes"
	settingSegment      = "segment.bytes"

	cleanupDelete  = "delete"
	cleanupCompact = "compact"
	logAppendTime  = "LogAppendTime"
)

// largestSegment is that of a snapshot topic, however much may wait on it.
const largestSegment = 256 << 20

// controlRetention is how long the operator's commands stay readable.
const controlRetention = 7 * 24 * time.Hour

// unlimited is the retention of topics that time must not empty.
const unlimited = time.Duration(-1)

// metadataWait bounds how long EnsureTopics waits for the brokers to agree
// about topics that were just created.
const metadataWait = 15 * time.Second

// TopicSpec is the part of the topics' settings that the configuration chooses.
type TopicSpec struct {
	// Partitions is the partition count of the change topic, fixed for its
	// life; SnapshotPartitions that of the snapshot and chunks topics.
	Partitions         int32
	SnapshotPartitions int32
	ReplicationFactor  int16
	MinInsyncReplicas  int
	// SnapshotDisk is what may wait on the snapshot topic, in bytes: a new topic
	// gets segments that are small beside it, since brokers delete whole
	// segments. Zero leaves them as the broker has them.
	SnapshotDisk int64
	// Retention is how long changes stay readable: the replay window.
	Retention time.Duration
	// MaxMessageBytes is the largest record batch that new topics ask for;
	// zero means MaxMessageBytes. Topics that take less are used as they are:
	// larger records are split (see Limits).
	MaxMessageBytes int
}

// topic is what one topic must look like.
type topic struct {
	name       string
	partitions int32
	replicas   int16
	cleanup    string
	retention  time.Duration // unlimited: -1; zero: none set (compacted)
	minInsync  int
	maxBytes   int
	segment    int64 // zero: the broker's own
}

// PrepareTopics is EnsureTopics with a client of its own, for callers that need
// none afterwards.
func PrepareTopics(ctx context.Context, cfg Config, topics route.Topics, spec TopicSpec) error {
	client, err := NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	return EnsureTopics(ctx, client, topics, spec)
}

// EnsureTopics creates the topics of a pipeline that are missing and checks
// those that exist; safe to call from many processes at once. Every wrong
// setting is in the one error (a *WrongTopicsError), with the command that puts
// it right. It blocks until all brokers know the topics, 15 s at most.
func EnsureTopics(ctx context.Context, cl *kgo.Client, topics route.Topics, spec TopicSpec) error {
	if err := Ping(ctx, cl); err != nil {
		return err
	}
	return ensure(ctx, cl, wanted(topics, spec))
}

// ensure creates the topics that are missing and checks all of them.
func ensure(ctx context.Context, cl *kgo.Client, want []topic) error {
	admin := kadm.NewClient(cl)
	missing, err := missingTopics(ctx, admin, want)
	if err != nil {
		return err
	}
	for _, t := range missing {
		if err := create(ctx, admin, t); err != nil {
			return err
		}
	}
	settings, err := describe(ctx, admin, want)
	if err != nil {
		return err
	}
	return compare(seeds(cl), want, settings)
}

// wanted lists the topics with all their settings.
func wanted(names route.Topics, spec TopicSpec) []topic {
	snapshot := spec.topic(names.Snapshot, spec.SnapshotPartitions, cleanupDelete, unlimited)
	if spec.SnapshotDisk > 0 {
		snapshot.segment = min(max(spec.SnapshotDisk/int64(4*spec.SnapshotPartitions), int64(snapshot.maxBytes)+1<<20), largestSegment)
	}
	return []topic{
		spec.topic(names.Changes, spec.Partitions, cleanupDelete, spec.Retention),
		snapshot,
		spec.topic(names.Chunks, spec.SnapshotPartitions, cleanupDelete, unlimited),
		spec.topic(names.State, 1, cleanupCompact, 0),
		spec.topic(names.Control, 1, cleanupDelete, controlRetention),
	}
}

// topic gives a topic what all of a pipeline have in common.
func (s TopicSpec) topic(name string, partitions int32, cleanup string, retention time.Duration) topic {
	t := topic{
		name: name, partitions: partitions, replicas: s.ReplicationFactor, cleanup: cleanup,
		retention: retention, minInsync: s.MinInsyncReplicas, maxBytes: s.MaxMessageBytes,
	}
	if t.maxBytes == 0 {
		t.maxBytes = MaxMessageBytes
	}
	return t
}

// settings returns the configuration to create t with.
func (t topic) settings() map[string]*string {
	set := map[string]*string{
		settingCleanup:      new(t.cleanup),
		settingTimestamp:    new(logAppendTime),
		settingMinInsync:    new(strconv.Itoa(t.minInsync)),
		settingMessageBytes: new(strconv.Itoa(t.maxBytes)),
	}
	if t.segment != 0 {
		set[settingSegment] = new(strconv.FormatInt(t.segment, 10))
	}
	if t.retention != 0 {
		set[settingRetention] = new(t.retentionMillis())
	}
	return set
}

func (t topic) retentionMillis() string {
	if t.retention == unlimited {
		return "-1"
	}
	return strconv.FormatInt(t.retention.Milliseconds(), 10)
}

func missingTopics(ctx context.Context, admin *kadm.Client, want []topic) ([]topic, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataWait)
	defer cancel()
	found, err := admin.ListTopics(ctx, names(want)...)
	if err != nil {
		return nil, fmt.Errorf("list Kafka topics: %w: hint: a broker answered, but the addresses that the brokers advertise (advertised.listeners) must be reachable from here too", err)
	}
	var missing []topic
	for _, t := range want {
		d := found[t.name]
		switch {
		case d.Err == nil && len(d.Partitions) > 0:
		case d.Err == nil, errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, t)
		case Classify(d.Err) == retry.Connection: // exists, a leader is being elected
		default:
			return nil, fmt.Errorf("describe Kafka topic %s: %w%s", t.name, d.Err, authorizationHint(d.Err))
		}
	}
	return missing, nil
}

// create creates a topic. A broker that refuses its limit of bytes is asked
// for a topic with the limit that the broker has.
func create(ctx context.Context, admin *kadm.Client, t topic) error {
	settings := t.settings()
	err := createWith(ctx, admin, t, settings)
	if errors.Is(err, kerr.InvalidConfig) || errors.Is(err, kerr.PolicyViolation) {
		delete(settings, settingMessageBytes)
		delete(settings, settingSegment)
		if createWith(ctx, admin, t, settings) == nil {
			return nil
		}
	}
	return err
}

func createWith(ctx context.Context, admin *kadm.Client, t topic, settings map[string]*string) error {
	resp, err := admin.CreateTopics(ctx, t.partitions, t.replicas, settings, t.name)
	if err != nil {
		return fmt.Errorf("create Kafka topic %s: %w", t.name, err)
	}
	got, err := resp.On(t.name, nil)
	if err == nil {
		err = got.Err
	}
	if err == nil || errors.Is(err, kerr.TopicAlreadyExists) { // another process was faster: the check follows
		return nil
	}
	detail := ""
	if got.ErrMessage != "" {
		detail = " (" + got.ErrMessage + ")"
	}
	return fmt.Errorf("create Kafka topic %s: %w%s%s", t.name, err, detail, createHint(t, err))
}

func createHint(t topic, err error) string {
	switch {
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return fmt.Sprintf(": hint: replication factor %d needs as many brokers: set kafka.replication_factor (and kafka.min_insync_replicas) lower, or add brokers", t.replicas)
	case errors.Is(err, kerr.InvalidConfig), errors.Is(err, kerr.PolicyViolation):
		return fmt.Sprintf(": hint: the broker refuses a setting that Tributary needs (%s): allow it on the brokers", strings.Join(slices.Sorted(maps.Keys(t.settings())), ", "))
	case errors.Is(err, kerr.InvalidTopicException):
		return ": hint: a topic whose name differs only in '.' and '_' exists, or the name is not legal: choose another pipeline name"
	}
	return authorizationHint(err)
}

func authorizationHint(err error) string {
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return ": hint: the Kafka user needs Create, Describe, DescribeConfigs, Read and Write on the pipeline's topics (prefix <pipeline>.)"
	}
	return ""
}

func names(topics []topic) []string {
	list := make([]string, len(topics))
	for i, t := range topics {
		list[i] = t.name
	}
	slices.Sort(list)
	return list
}
