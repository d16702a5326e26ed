package capture

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// logOf describes everything in a partition of the change topic, committed or
// not, by producer and transaction.
func logOf(t testing.TB, cfg Config, partition int32) string {
	t.Helper()
	topic := route.TopicsOf(cfg.Pipeline).Changes
	client, err := kafka.NewClient(cfg.Kafka, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return err.Error()
	}
	end, _ := ends.Lookup(topic, partition)
	var b strings.Builder
	var run string
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return b.String() + err.Error()
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			what := fmt.Sprintf("producer %d epoch %d transactional %t", r.ProducerID, r.ProducerEpoch, r.Attrs.IsTransactional())
			if r.Attrs.IsControl() {
				what += fmt.Sprintf(" control %x", r.Key)
			}
			if what != run || r.Attrs.IsControl() {
				fmt.Fprintf(&b, "offset %d: %s\n", r.Offset, what)
				run = what
			}
		})
	}
	return b.String()
}

// producersOf describes who has transactions open where, for a failure.
func producersOf(t testing.TB, cfg Config) string {
	t.Helper()
	client, err := kafka.NewClient(cfg.Kafka)
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	topics := route.TopicsOf(cfg.Pipeline)
	admin := kadm.NewClient(client)
	var b strings.Builder
	transactions, err := admin.DescribeTransactions(ctx, route.CaptureTransactionalID(cfg.Pipeline))
	fmt.Fprintf(&b, "transactions %+v %v\n", transactions, err)
	var set kadm.TopicsSet
	set.Add(topics.State, 0)
	for p := range int32(testPartitions) {
		set.Add(topics.Changes, p)
	}
	producers, err := admin.DescribeProducers(ctx, set)
	for _, p := range producers.SortedProducers() {
		fmt.Fprintf(&b, "%+v\n", p)
	}
	fmt.Fprintf(&b, "producers %v\n", err)
	stable, err := admin.ListCommittedOffsets(ctx, topics.State, topics.Changes)
	fmt.Fprintf(&b, "committed %+v %v\n", stable, err)
	ends, err := admin.ListEndOffsets(ctx, topics.State, topics.Changes)
	fmt.Fprintf(&b, "ends %+v %v\n", ends, err)
	return b.String()
}
