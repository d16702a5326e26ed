package testenv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tributarydb/tributary/internal/testenv"
)

// The tests of this file say what Tributary takes for granted of Kafka. They run
// on the stand-in and on a real broker.

func TestKafkaTransactionsAreAtomic(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		topic := newTopic(t, b, 2, nil)
		producer := newClient(t, b, kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		transact(t, producer, kgo.TryAbort, topic, "aborted")
		transact(t, producer, kgo.TryCommit, topic, "committed")
		want := []string{"0 committed", "1 committed"}
		if diff := cmp.Diff(want, readCommitted(t, b, topic, len(want))); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func TestKafkaFencesAnOlderProducer(t *testing.T) {
	tests := map[string]struct {
		open bool
		how  kgo.TransactionEndTry
	}{
		"in a transaction that commits": {open: true, how: kgo.TryCommit},
		"in a transaction that aborts":  {open: true, how: kgo.TryAbort},
		"idle":                          {how: kgo.TryAbort},
	}
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				topic := newTopic(t, b, 2, nil)
				join := func() *kgo.Client {
					return newClient(t, b, kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
				}
				older := join()
				transact(t, older, kgo.TryCommit, topic, "1")
				if test.open {
					begin(t, older, topic, "lost")
				}
				newer := join()
				if _, _, err := newer.ProducerID(t.Context()); err != nil {
					t.Fatalf("obtain producer id: %v", err)
				}
				if test.open {
					if err := older.EndTransaction(t.Context(), test.how); !errors.Is(err, kerr.ProducerFenced) {
						t.Errorf("end of the older producer's transaction: %v, want PRODUCER_FENCED", err)
					}
				}
				checkFenced(t, older, topic)
				transact(t, newer, kgo.TryCommit, topic, "2")
				want := []string{"0 1", "0 2", "1 1", "1 2"}
				if diff := cmp.Diff(want, readCommitted(t, b, topic, len(want))); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// checkFenced tries to bring something to the topic, whatever the errors.
//
// A commit may return nil although nothing was written, as when every record of
// the transaction was refused: whoever commits has to look at the records'
// errors too.
func checkFenced(t *testing.T, client *kgo.Client, topic string) {
	t.Helper()
	for range 3 {
		begun := client.BeginTransaction()
		produced := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("zombie")}).FirstErr()
		if produced == nil {
			t.Error("a fenced producer wrote a record")
		}
		committed := client.EndTransaction(t.Context(), kgo.TryCommit)
		aborted := client.EndTransaction(t.Context(), kgo.TryAbort)
		t.Logf("begin: %v; produce: %v; commit: %v; abort: %v", begun, produced, committed, aborted)
	}
}

func TestKafkaAbortsTheTransactionOfADeadProducer(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		topic := newTopic(t, b, 2, nil)
		dead := newClient(
			t, b, kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.TransactionTimeout(time.Second),
		)
		begin(t, dead, topic, "dead")
		dead.Close()

		// A record behind it can be read only when the transaction is over.
		alive := newClient(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		produce(t, alive, topic, "alive")
		want := []string{"0 alive", "1 alive"}
		if diff := cmp.Diff(want, readCommitted(t, b, topic, len(want))); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func TestKafkaCommitsOffsetsInTransactions(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		in, out := newTopic(t, b, 1, nil), newTopic(t, b, 1, nil)
		group := in + ".group"
		produce(t, newClient(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner())), in, "work")
		session, err := kgo.NewGroupTransactSession(
			kgo.SeedBrokers(b.Brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(in),
			kgo.TransactionalID(group), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		for _, how := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
			if n := session.PollFetches(t.Context()).NumRecords(); n != 1 {
				t.Fatalf("fetched %d records, want 1", n)
			}
			if err := session.Begin(); err != nil {
				t.Fatal(err)
			}
			session.Produce(t.Context(), &kgo.Record{Topic: out, Value: []byte("done")}, nil)
			if committed, err := session.End(t.Context(), how); err != nil || committed != bool(how) {
				t.Fatalf("end: committed=%t, %v", committed, err)
			}
		}
		// The mark that makes the offset count is written after the answer.
		admin := kadm.NewClient(newClient(t, b))
		testenv.Eventually(t, time.Minute, func() error {
			offsets, err := admin.FetchOffsets(t.Context(), group)
			if err != nil {
				return err
			}
			if at, ok := offsets.Lookup(in, 0); !ok || at.At != 1 {
				return fmt.Errorf("committed offset is %+v, want 1", at)
			}
			return nil
		})
		if diff := cmp.Diff([]string{"0 done"}, readCommitted(t, b, out, 1)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func TestKafkaDeletesRecords(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		topic := newTopic(t, b, 1, nil)
		client := newClient(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for i := range 5 {
			produce(t, client, topic, fmt.Sprint(i))
		}
		admin := kadm.NewClient(client)
		var upTo kadm.Offsets
		upTo.Add(kadm.Offset{Topic: topic, At: 3})
		if deleted, err := admin.DeleteRecords(t.Context(), upTo); err != nil || deleted.Error() != nil {
			t.Fatalf("delete records: %v %v", err, deleted.Error())
		}
		start, err := admin.ListStartOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := start.Lookup(topic, 0); at.Offset != 3 {
			t.Errorf("first offset is %d, want 3", at.Offset)
		}
		if diff := cmp.Diff([]string{"0 3", "0 4"}, readCommitted(t, b, topic, 2)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
		// A fetch below the first offset must be an error and no silent jump.
		reader := newClient(t, b, kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.ConsumePartitions(
			map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1)}}))
		err = reader.PollFetches(t.Context()).Err()
		if !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("fetch below the first offset: %v, want OFFSET_OUT_OF_RANGE", err)
		}
	})
}

func TestKafkaKeepsTopicSettings(t *testing.T) {
	want := map[string]string{
		"cleanup.policy":         "compact",
		"message.timestamp.type": "LogAppendTime",
		"max.message.bytes":      "25165824",
		"min.insync.replicas":    "1",
		"retention.ms":           "123456",
	}
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		settings := map[string]*string{}
		for k, v := range want {
			settings[k] = &v
		}
		topic := newTopic(t, b, 1, settings)
		admin := kadm.NewClient(newClient(t, b))
		got := describe(t, admin, topic, want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
		longer := "654321"
		if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "retention.ms", Value: &longer}}, topic); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			if got := describe(t, admin, topic, want)["retention.ms"]; got != longer {
				return fmt.Errorf("retention.ms is %s, want %s", got, longer)
			}
			return nil
		})
		if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
			t.Errorf("second creation: %v, want TOPIC_ALREADY_EXISTS", err)
		}
	})
}

func TestKafkaStampsAppendTime(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		appendTime := "LogAppendTime"
		topic := newTopic(t, b, 1, map[string]*string{"message.timestamp.type": &appendTime})
		client := newClient(t, b)
		record := &kgo.Record{Topic: topic, Value: []byte("v"), Timestamp: time.Unix(1, 0)}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		reader := newClient(t, b, kgo.ConsumePartitions(
			map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
		// kfake keeps the setting and ignores it: what depends on the broker's
		// time is tested on a real broker.
		real := b.KafkaEngine == testenv.Kafka
		for _, r := range reader.PollFetches(t.Context()).Records() {
			if stamped := r.Attrs.TimestampType() == 1 && time.Since(r.Timestamp) < time.Hour; stamped != real {
				t.Errorf("record is stamped %s, type %d", r.Timestamp, r.Attrs.TimestampType())
			}
		}
	})
}

func TestKafkaRefusesTooLargeRecords(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		limit := "1000"
		topic := newTopic(t, b, 1, map[string]*string{"max.message.bytes": &limit})
		client := newClient(t, b)
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 100_000)}).FirstErr()
		if !errors.Is(err, kerr.MessageTooLarge) {
			t.Errorf("produce: %v, want MESSAGE_TOO_LARGE", err)
		}
	})
}

func TestKafkaTakesLargeRecords(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		limit := "25165824"
		topic := newTopic(t, b, 1, map[string]*string{"max.message.bytes": &limit})
		client := newClient(t, b, kgo.ProducerBatchMaxBytes(25165824-1024), kgo.BrokerMaxWriteBytes(100<<20))
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 20<<20)}).FirstErr()
		if err != nil {
			t.Errorf("produce 20 MiB: %v", err)
		}
	})
}

func TestKafkaMakesNoTopicsByItself(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		client := newClient(t, b, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: testenv.NewPipeline(t), Value: []byte("v")}).FirstErr()
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("produce to an unknown topic: %v, want UNKNOWN_TOPIC_OR_PARTITION", err)
		}
	})
}

func TestKafkaSharesPartitionsInAGroup(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		topic := newTopic(t, b, 4, nil)
		group := topic + ".group"
		join := func() *kgo.Client {
			return newClient(t, b, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.SessionTimeout(6*time.Second))
		}
		first, second := join(), join()
		poll := func(c *kgo.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			c.PollFetches(ctx)
		}
		assigned := func(c *kgo.Client) int {
			dump := kadm.NewClient(c)
			groups, err := dump.DescribeGroups(t.Context(), group)
			if err != nil {
				t.Fatal(err)
			}
			return len(groups[group].Members)
		}
		testenv.Eventually(t, time.Minute, func() error {
			poll(first)
			poll(second)
			if n := assigned(first); n != 2 {
				return fmt.Errorf("group has %d members, want 2", n)
			}
			return nil
		})
		// A member that goes leaves its partitions to the other one.
		second.Close()
		testenv.Eventually(t, time.Minute, func() error {
			poll(first)
			if n := assigned(first); n != 1 {
				return fmt.Errorf("group has %d members, want 1", n)
			}
			return nil
		})
	})
}

func TestKafkaCompactedTopicKeepsTheLastOfAKey(t *testing.T) {
	b := testenv.StandIn(t)
	compact := "compact"
	topic := newTopic(t, b, 1, map[string]*string{"cleanup.policy": &compact})
	client := newClient(t, b)
	for i := range 10 {
		r := &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte(fmt.Sprint(i))}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	b.Cluster.Compact()
	got := readCommitted(t, b, topic, 1)
	if last := got[len(got)-1]; last != "0 9" {
		t.Errorf("last record is %q, want 9", last)
	}
}

// newTopic makes a topic that no other test uses.
func newTopic(t *testing.T, b testenv.Broker, partitions int32, settings map[string]*string) string {
	t.Helper()
	topic := testenv.NewPipeline(t)
	admin := kadm.NewClient(newClient(t, b))
	if _, err := admin.CreateTopic(t.Context(), partitions, 1, settings, topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	// Every broker must know it before somebody relies on that.
	testenv.Eventually(t, 10*time.Second, func() error {
		topics, err := admin.ListTopics(t.Context(), topic)
		if err == nil {
			err = topics.Error()
		}
		return err
	})
	return topic
}

func newClient(t *testing.T, b testenv.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Brokers...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce sends a value to every partition of a topic of at most two.
func produce(t *testing.T, client *kgo.Client, topic, value string) {
	t.Helper()
	topics, err := kadm.NewClient(client).ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for p := range topics[topic].Partitions {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: []byte(value)})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// begin opens a transaction with a record in every partition.
func begin(t *testing.T, client *kgo.Client, topic, value string) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, client, topic, value)
}

func transact(t *testing.T, client *kgo.Client, how kgo.TransactionEndTry, topic, value string) {
	t.Helper()
	begin(t, client, topic, value)
	if err := client.EndTransaction(t.Context(), how); err != nil {
		t.Fatalf("end transaction: %v", err)
	}
}

// readCommitted returns the first records of a topic, each as partition and
// value, sorted.
func readCommitted(t *testing.T, b testenv.Broker, topic string, atLeast int) []string {
	t.Helper()
	reader := newClient(t, b, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for len(got) < atLeast {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("fetch after %v: %v", got, err)
		}
		for _, r := range fetches.Records() {
			got = append(got, fmt.Sprintf("%d %s", r.Partition, r.Value))
		}
	}
	slices.Sort(got)
	return got
}

// describe returns some of a topic's settings.
func describe(t *testing.T, admin *kadm.Client, topic string, keys map[string]string) map[string]string {
	t.Helper()
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range configs[0].Configs {
		if _, ok := keys[c.Key]; ok {
			got[c.Key] = c.MaybeValue()
			if c.Source != kmsg.ConfigSourceDynamicTopicConfig {
				t.Errorf("%s comes from %s, want the topic", c.Key, c.Source)
			}
		}
	}
	return got
}
