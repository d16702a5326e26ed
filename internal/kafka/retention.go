package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Retention returns how long a topic keeps its records; a negative time means
// for ever.
func Retention(ctx context.Context, cl *kgo.Client, topic string) (time.Duration, error) {
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topic)
	var rc kadm.ResourceConfig
	if err == nil {
		rc, err = configs.On(topic, nil)
	}
	if err == nil {
		err = rc.Err
	}
	if err != nil {
		return 0, fmt.Errorf("describe retention of topic %s: %w", topic, err)
	}
	for _, c := range rc.Configs {
		if c.Key != settingRetention || c.Value == nil {
			continue
		}
		ms, err := strconv.ParseInt(*c.Value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("describe retention of topic %s: %w", topic, err)
		}
		if ms < 0 {
			return unlimited, nil
		}
		return time.Duration(ms) * time.Millisecond, nil
	}
	return 0, fmt.Errorf("describe retention of topic %s: the broker does not say", topic)
}

// SetRetention has a topic keep its records for d; other settings stay as they
// are.
func SetRetention(ctx context.Context, cl *kgo.Client, topic string, d time.Duration) error {
	change := kadm.AlterConfig{Op: kadm.SetConfig, Name: settingRetention, Value: new(strconv.FormatInt(d.Milliseconds(), 10))}
	answers, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, []kadm.AlterConfig{change}, topic)
	if err == nil {
		var answer kadm.AlterConfigsResponse
		if answer, err = answers.On(topic, nil); err == nil {
			err = answer.Err
		}
	}
	if err != nil {
		return fmt.Errorf("set retention of topic %s to %s: %w: hint: the Kafka user needs AlterConfigs on the pipeline's topics", topic, d, err)
	}
	return nil
}
