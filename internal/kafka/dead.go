package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// deadRetention is how long dead letters stay readable.
const deadRetention = 30 * 24 * time.Hour

// EnsureDeadTopic creates the dead-letter topic of a destination, or checks its
// settings where it exists: one partition, so that a letter is named by its
// offset. It blocks and fails as EnsureTopics does.
func EnsureDeadTopic(ctx context.Context, cl *kgo.Client, name string, spec TopicSpec) error {
	return ensure(ctx, cl, []topic{spec.topic(name, 1, cleanupDelete, deadRetention)})
}
