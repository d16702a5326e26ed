package kafka_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestRecordOfTheLimitIsTaken: what Record allows, the client lets through and
// the broker takes.
func TestRecordOfTheLimitIsTaken(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		names := route.TopicsOf(testenv.NewPipeline(t))
		small := spec()
		small.MaxMessageBytes = 1 << 20
		if err := kafka.EnsureTopics(t.Context(), newClient(t, kafka.Config{Brokers: b.Brokers}), names, small); err != nil {
			t.Fatal(err)
		}
		limits := &kafka.Limits{}
		cl := newClient(t, kafka.Config{Brokers: b.Brokers}, limits.Option(), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err := limits.Learn(t.Context(), cl, names.Changes); err != nil {
			t.Fatal(err)
		}
		key := bytes.Repeat([]byte("k"), 1000)
		for range 3 {
			r := &kgo.Record{Topic: names.Changes, Key: key, Value: make([]byte, limits.Record(names.Changes)-len(key))}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if n := limits.Record(names.Changes); n > 1<<20 || n < 1<<20-1<<10 {
			t.Errorf("limit of a record is %d", n)
		}
		if n := limits.Record("unknown"); n < 16<<20 {
			t.Errorf("limit of a topic that was not asked for is %d", n)
		}
	})
}

// TestBrokerThatRefusesTheLimit has a policy about topics' settings, as hosted
// ones do.
func TestBrokerThatRefusesTheLimit(t *testing.T) {
	b := testenv.StandIn(t)
	refused := 0
	b.Cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster.KeepControl()
		create, ok := req.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil, fmt.Errorf("a %T under the key of CreateTopics", req), true
		}
		for _, c := range create.Topics[0].Configs {
			if c.Name == "max.message.bytes" {
				refused++
				resp := kmsg.NewPtrCreateTopicsResponse()
				resp.Version = create.Version
				topic := kmsg.NewCreateTopicsResponseTopic()
				topic.Topic, topic.ErrorCode = create.Topics[0].Topic, kerr.PolicyViolation.Code
				resp.Topics = append(resp.Topics, topic)
				return resp, nil, true
			}
		}
		return nil, nil, false
	})
	cl := newClient(t, kafka.Config{Brokers: b.Brokers})
	names := route.TopicsOf(testenv.NewPipeline(t))
	if err := kafka.EnsureTopics(t.Context(), cl, names, spec()); err != nil {
		t.Fatal(err)
	}
	if refused == 0 {
		t.Error("the policy was never asked")
	}
}
