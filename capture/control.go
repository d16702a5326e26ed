package capture

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// controlBytes bounds what is fetched of the control topic ahead of need.
const controlBytes = 4 << 20

// command is a record of the control topic.
type command struct {
	offset int64
	value  []byte
}

// followControl hands the committed records of the control topic over, from an
// offset on, as fast as they are taken. Records that retention has removed are
// passed over: whoever needs an answer asks again. It blocks until ctx ends,
// which is no error, or reading fails.
func followControl(ctx context.Context, cfg kafka.Config, topic string, from int64, out chan<- command) error {
	client, err := kafka.NewClient(cfg,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(controlBytes), kgo.FetchMaxPartitionBytes(controlBytes),
	)
	if err != nil {
		return fmt.Errorf("follow topic=%s: %w", topic, err)
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("follow topic=%s: %w", topic, err)
		}
		for _, r := range fetches.Records() {
			select {
			case out <- command{offset: r.Offset, value: r.Value}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
