package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deadRetention is how long dead letters stay readable.
const deadRetention = 30 * 24 * time.Hour

// EnsureDeadTopic creates the dead-letter topic of a destination, or checks its
// settings where it exists: one partition, so that a letter is named by its
// offset. It blocks and fails as EnsureTopics does.
func EnsureDeadTopic(ctx context.Context, cl *kgo.Client, name string, spec TopicSpec) error {
	if spec.MaxMessageBytes == 0 {
		spec.MaxMessageBytes = MaxMessageBytes
	}
	want := []topic{{
		name: name, partitions: 1, replicas: spec.ReplicationFactor, cleanup: cleanupDelete,
		retention: deadRetention, minInsync: spec.MinInsyncReplicas, maxBytes: spec.MaxMessageBytes,
	}}
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
