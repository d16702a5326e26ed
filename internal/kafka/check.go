package kafka

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/retry"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// WrongTopicsError says that existing topics have settings under which a
// promise would not hold.
type WrongTopicsError struct {
	// Settings are in the order of the topics.
	Settings []WrongSetting
}

// WrongSetting is one of them.
type WrongSetting struct {
	Topic, Setting, Has, Wants string
	// Remedy is a command, or the change of configuration that is needed
	// where no command can help.
	Remedy string
}

// Error lists every wrong setting and the remedies, each once.
func (e *WrongTopicsError) Error() string {
	var b strings.Builder
	b.WriteString("check Kafka topics: ")
	for i, s := range e.Settings {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s has %s=%s, wants %s", s.Topic, s.Setting, s.Has, s.Wants)
	}
	seen := map[string]bool{}
	for _, s := range e.Settings {
		if !seen[s.Remedy] {
			b.WriteString(": hint: " + s.Remedy)
		}
		seen[s.Remedy] = true
	}
	return b.String()
}

// actual is what a topic looks like on the brokers.
type actual struct {
	partitions int
	replicas   int
	// settings holds what the brokers report; a stand-in may leave out some.
	settings map[string]string
}

// describe asks for the topics' settings until every topic is known, within
// metadataWait.
func describe(ctx context.Context, admin *kadm.Client, want []topic) (map[string]actual, error) {
	policy := retry.Policy{Connection: metadataWait, MaxBackoff: time.Second}
	var found map[string]actual
	err := policy.Do(ctx, Classify, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, metadataWait)
		defer cancel()
		var err error
		found, err = describeOnce(ctx, admin, want)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe Kafka topics: %w%s", err, authorizationHint(err))
	}
	return found, nil
}

func describeOnce(ctx context.Context, admin *kadm.Client, want []topic) (map[string]actual, error) {
	listed, err := admin.ListTopics(ctx, names(want)...)
	if err != nil {
		return nil, err
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names(want)...)
	if err != nil {
		return nil, err
	}
	found := make(map[string]actual, len(want))
	for _, t := range want {
		d := listed[t.name]
		if d.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", t.name, d.Err)
		}
		rc, err := configs.On(t.name, nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return nil, fmt.Errorf("settings of topic %s: %w", t.name, err)
		}
		a := actual{partitions: len(d.Partitions), replicas: d.Partitions.NumReplicas(), settings: map[string]string{}}
		for _, c := range rc.Configs {
			if c.Value != nil {
				a.settings[c.Key] = *c.Value
			}
		}
		found[t.name] = a
	}
	return found, nil
}

// compare returns a *WrongTopicsError for the settings that would break a
// promise. More than is asked for (a longer retention, larger records, more
// replicas) is the operator's right.
func compare(brokers []string, want []topic, found map[string]actual) error {
	var wrong []WrongSetting
	for _, t := range want {
		wrong = append(wrong, t.wrong(brokers, found[t.name])...)
	}
	if len(wrong) == 0 {
		return nil
	}
	return &WrongTopicsError{Settings: wrong}
}

func (t topic) wrong(brokers []string, a actual) []WrongSetting {
	var wrong []WrongSetting
	var fixes []string
	check := func(setting, wants string, ok func(has string) bool) {
		has, reported := a.settings[setting]
		if !reported || ok(has) {
			return
		}
		wrong = append(wrong, WrongSetting{Topic: t.name, Setting: setting, Has: has, Wants: wants})
		fixes = append(fixes, setting+"="+wants)
	}
	equal := func(wants string) func(string) bool { return func(has string) bool { return has == wants } }
	check(settingCleanup, t.cleanup, equal(t.cleanup))
	check(settingTimestamp, logAppendTime, equal(logAppendTime))
	if t.retention != 0 {
		check(settingRetention, t.retentionMillis(), t.retains)
	}
	check(settingMinInsync, strconv.Itoa(t.minInsync), atLeast(t.minInsync))
	// Larger records are split: less than was asked for is slower, not wrong.
	check(settingMessageBytes, strconv.Itoa(minMessageBytes), atLeast(minMessageBytes))
	command := fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s",
		strings.Join(brokers, ","), t.name, strings.Join(fixes, ","))
	for i := range wrong {
		wrong[i].Remedy = command
	}
	return append(wrong, t.wrongShape(a)...)
}

// wrongShape checks what no configuration command changes.
func (t topic) wrongShape(a actual) []WrongSetting {
	var wrong []WrongSetting
	if a.partitions != int(t.partitions) {
		remedy := "the partition count of a topic in use cannot change: set kafka.partitions and kafka.snapshot_partitions to what the topics have, or choose another pipeline name"
		if t.partitions == 1 {
			remedy = fmt.Sprintf("delete topic %s if nothing else uses it (Tributary makes it anew with one partition), or choose another pipeline name", t.name)
		}
		wrong = append(wrong, WrongSetting{
			Topic: t.name, Setting: "partitions", Has: strconv.Itoa(a.partitions), Wants: strconv.Itoa(int(t.partitions)), Remedy: remedy,
		})
	}
	if t.replicas > 0 && a.replicas < int(t.replicas) {
		wrong = append(wrong, WrongSetting{
			Topic: t.name, Setting: "replication factor", Has: strconv.Itoa(a.replicas), Wants: strconv.Itoa(int(t.replicas)),
			Remedy: "add replicas with kafka-reassign-partitions.sh, or set kafka.replication_factor to what the topics have",
		})
	}
	return wrong
}

// retains reports whether a retention.ms keeps records for at least as long as
// t asks; -1 is for ever.
func (t topic) retains(has string) bool {
	ms, err := strconv.ParseInt(has, 10, 64)
	if err != nil {
		return false
	}
	return ms < 0 || t.retention != unlimited && ms >= t.retention.Milliseconds()
}

func atLeast(least int) func(string) bool {
	return func(has string) bool {
		n, err := strconv.Atoi(has)
		return err == nil && n >= least
	}
}

// seeds returns the addresses that cl was configured with.
func seeds(cl *kgo.Client) []string {
	list, _ := cl.OptValue(kgo.SeedBrokers).([]string)
	return list
}
