package kafka

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// minMessageBytes is the least that a topic must take: records are split,
	// but not those of the state and control topics.
	minMessageBytes = 256 << 10
	// recordOverhead is more than a record batch of one record takes beside
	// the record's key and value: 61 bytes of the batch's header, and the
	// lengths, attributes and deltas of the record.
	recordOverhead = 200
)

// Limits knows the largest record batches that topics take. Brokers count a
// batch as it is compressed, the client before that: what the client lets
// through, a broker takes. It is safe for concurrent use.
type Limits struct {
	mu      sync.Mutex
	byTopic map[string]int
}

// Option has the client that it is given to keep within the limits. They must
// be learned before the first record of a topic is produced.
func (l *Limits) Option() kgo.Opt {
	return kgo.ProducerBatchMaxBytesFn(func(topic string) int32 { return int32(l.batch(topic)) })
}

// Learn asks for the topics' limits (max.message.bytes as the broker applies
// it, wherever it is set). It blocks on the broker.
func (l *Limits) Learn(ctx context.Context, cl *kgo.Client, topics ...string) error {
	if len(topics) == 0 {
		return nil
	}
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return fmt.Errorf("describe topics' limits: %w", err)
	}
	learned := map[string]int{}
	for _, topic := range topics {
		rc, err := configs.On(topic, nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return fmt.Errorf("describe limit of topic %s: %w", topic, err)
		}
		for _, c := range rc.Configs {
			if c.Key != settingMessageBytes || c.Value == nil {
				continue
			}
			n, err := strconv.Atoi(*c.Value)
			if err != nil {
				return fmt.Errorf("describe limit of topic %s: %w", topic, err)
			}
			learned[topic] = n
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byTopic = learned
	return nil
}

// batch is the largest batch that is sent to a topic. Where a broker takes
// more than topics ask for, that is not used: readers' memory counts on it.
func (l *Limits) batch(topic string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.byTopic[topic]
	if !ok {
		return MaxMessageBytes
	}
	return min(max(n, minMessageBytes), MaxMessageBytes)
}

// Record returns how many bytes the key and the value of one record of the
// topic may have together.
func (l *Limits) Record(topic string) int { return l.batch(topic) - recordOverhead }
