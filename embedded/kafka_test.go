package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// freeAddress is one on which a broker can be started again.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func kafkaClient(t *testing.T, s *stand, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.Brokers...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// TestKafkaSurvivesKill kills the broker while a transaction is open and looks
// at what is left.
func TestKafkaSurvivesKill(t *testing.T) {
	args := []string{"--dir", t.TempDir(), "--kafka", freeAddress(t)}
	first := start(t, args...)
	const topic, group = "p.changes", "tributary.p.a"
	client := kafkaClient(t, first, kgo.TransactionalID("tributary.p.capture"), kgo.DefaultProduceTopic(topic))
	admin := kadm.NewClient(client)
	retention := "123456"
	if _, err := admin.CreateTopic(t.Context(), 1, 1, map[string]*string{"retention.ms": &retention}, topic); err != nil {
		t.Fatal(err)
	}
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		produce(t, client, fmt.Sprint(i))
		if err := client.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 2})
	if err := admin.CommitAllOffsets(t.Context(), group, offsets); err != nil {
		t.Fatal(err)
	}
	produce(t, client, "open")
	first.kill()

	second := start(t, args...)
	if diff := cmp.Diff(first.Brokers, second.Brokers); diff != "" {
		t.Fatalf("addresses (-before +after):\n%s", diff)
	}
	admin = kadm.NewClient(kafkaClient(t, second))
	checkKept(t, admin, topic, group, retention)

	// The next producer of that name ends the transaction that was open.
	next := kafkaClient(t, second, kgo.TransactionalID("tributary.p.capture"), kgo.DefaultProduceTopic(topic))
	produce(t, next, "3")
	if err := next.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatalf("commit after the restart: %v", err)
	}
	if diff := cmp.Diff([]string{"0", "2", "3"}, committed(t, second, topic, 3)); diff != "" {
		t.Errorf("committed records (-want +got):\n%s", diff)
	}
	// What was aborted by the kill stays aborted at the next one.
	second.kill()
	third := start(t, args...)
	if diff := cmp.Diff([]string{"0", "2", "3"}, committed(t, third, topic, 3)); diff != "" {
		t.Errorf("committed records after a second kill (-want +got):\n%s", diff)
	}
	// The old one is fenced, restart or not.
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); !errors.Is(err, kerr.ProducerFenced) {
		t.Errorf("commit of the old producer: %v, want PRODUCER_FENCED", err)
	}
}

// checkKept looks for the topic's settings and the group's offset.
func checkKept(t *testing.T, admin *kadm.Client, topic, group, retention string) {
	t.Helper()
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool {
		return c.Key == "retention.ms" && c.MaybeValue() == retention
	})
	if !kept {
		t.Error("the topic's retention is lost")
	}
	offsets, err := admin.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := offsets.Lookup(topic, 0); !ok || at.At != 2 {
		t.Errorf("the group's offset is %+v, want 2", at)
	}
}

// produce opens a transaction and sends a record.
func produce(t *testing.T, client *kgo.Client, value string) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatalf("produce %s: %v", value, err)
	}
}

// committed reads a number of records from the start of a topic.
func committed(t *testing.T, s *stand, topic string, count int) []string {
	t.Helper()
	reader := kafkaClient(t, s, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for len(got) < count {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("fetch after %v: %v", got, err)
		}
		for _, r := range fetches.Records() {
			got = append(got, string(r.Value))
		}
	}
	return got
}
