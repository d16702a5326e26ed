package capture

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// faultyCluster is a broker that refuses or drops about one in odds of the
// requests that matter to a transaction, as long as faulty is set, and moves
// leaders and coordinators about.
func faultyCluster(t *testing.T, r *rand.Rand, odds int) (cluster *kfake.Cluster, faulty *atomic.Bool) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "26214400"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	faulty = new(atomic.Bool)
	dropped := errors.New("connection dropped")
	// Control functions run one at a time.
	strike := func() bool { return faulty.Load() && r.IntN(odds) == 0 }
	control := func(key kmsg.Key, refuse func(kmsg.Request) kmsg.Response) {
		cluster.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			if !strike() {
				return nil, nil, false
			}
			if r.IntN(3) == 0 {
				return nil, dropped, true
			}
			return refuse(req), nil, true
		})
	}
	oneOf := func(errs ...*kerr.Error) int16 { return errs[r.IntN(len(errs))].Code }
	control(kmsg.EndTxn, func(req kmsg.Request) kmsg.Response {
		resp := kmsg.NewPtrEndTxnResponse()
		resp.SetVersion(req.GetVersion())
		resp.ErrorCode = oneOf(kerr.CoordinatorNotAvailable, kerr.ConcurrentTransactions, kerr.UnknownServerError)
		return resp
	})
	control(kmsg.Produce, func(req kmsg.Request) kmsg.Response {
		return refuseProduce(req, oneOf(kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.UnknownServerError, kerr.InvalidTxnState))
	})
	control(kmsg.InitProducerID, func(req kmsg.Request) kmsg.Response {
		resp := kmsg.NewPtrInitProducerIDResponse()
		resp.SetVersion(req.GetVersion())
		resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
		return resp
	})
	return cluster, faulty
}

// refuseProduce answers every partition of a produce request with the code.
func refuseProduce(req kmsg.Request, code int16) kmsg.Response {
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(req.GetVersion())
	produce, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return resp
	}
	for _, topic := range produce.Topics {
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			one := kmsg.NewProduceResponseTopicPartition()
			one.Partition, one.ErrorCode = partition.Partition, code
			answer.Partitions = append(answer.Partitions, one)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// TestKafkaFaults: whatever the brokers refuse, drop or move, every change is
// on the topic once.
func TestKafkaFaults(t *testing.T) {
	r := newRand(t)
	cluster, faulty := faultyCluster(t, rand.New(rand.NewPCG(r.Uint64(), 0)), 25)
	s := newScript()
	cfg := testConfig(t, testenv.Broker{Brokers: cluster.ListenAddrs()}, "faults", s)
	cfg.SessionTimeout = 6 * time.Second
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	faulty.Store(true)
	for i := range 10 {
		s.write(r, 500)
		switch i % 3 {
		case 0:
			cluster.ShufflePartitionLeaders()
		case 1:
			cluster.RehashCoordinators()
		}
		until(t, cfg, s.last())
	}
	faulty.Store(false)
	service.stop()
	checkExactlyOnce(t, cfg, s, from)
}
