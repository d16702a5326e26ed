package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestOnePartitionFails stops the partition of an event that cannot be applied,
// and that one alone; the status says which and why. A restart tries it again.
func TestOnePartitionFails(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		var reporter *state.Reporter
		r.edit = func(c *Config) {
			var err error
			reporter, err = state.NewReporter(state.ReporterConfig{
				Kafka: r.kafka, Topic: r.topics.State, Status: state.Status{Service: "apply", Instance: c.Instance}, Log: testLog(),
			})
			if err != nil {
				t.Fatal(err)
			}
			runReporter(t, reporter)
			c.Report = reporter
		}
		c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}}
		bad := event.Namespace{DB: "shop", Coll: "bad"}
		m := r.begin(t, c)
		s := r.start(t, "a")
		r.load(t, m, c)
		r.await(t, r.watermark(t), s)

		refused := inserted(t, bad, bson.D{{Key: "_id", Value: "x"}, {Key: "card", Value: "4111"}})
		partition := r.records(t, &refused)[0].Partition
		broken := r.records(t, &refused)[0]
		broken.Value = broken.Value[:len(broken.Value)/2]
		r.produce(t, broken)
		var want []bson.Raw
		for i := range 30 {
			e := inserted(t, c.ns, bson.D{{Key: "_id", Value: fmt.Sprint(i)}})
			if r.records(t, &e)[0].Partition != partition {
				want = append(want, e.Document)
			}
			r.publish(t, e)
		}
		testenv.Eventually(t, settled, func() error {
			if n := len(r.held(t, c.ns)); n < len(want) {
				return fmt.Errorf("%d of %d documents are there", n, len(want))
			}
			return nil
		})
		r.same(t, c.ns, want)
		testenv.Eventually(t, settled, func() error {
			status := reporter.Status()
			if status.State != state.StateFailed || !strings.Contains(status.Cause, fmt.Sprintf("partition %s/%d stopped: decode change event", r.topics.Changes, partition)) {
				return fmt.Errorf("status is %s: %s", status.State, status.Cause)
			}
			return nil
		})
		if err := s.fails(t); err == nil || strings.Contains(err.Error(), "4111") {
			t.Errorf("the end says %v", err)
		}
		if err := r.start(t, "b").fails(t); !strings.Contains(err.Error(), "decode change event") {
			t.Errorf("the restart says %v", err)
		}
	})
}

// TestEndOfFailedPartitions: an event that cannot be applied ends no process that
// follows changes, whether it has one partition or more; an outage does, once
// nothing works, and so does any failure of a one-off copy.
func TestEndOfFailedPartitions(t *testing.T) {
	broken, outage := errors.New("decode"), fmt.Errorf("%w: no answer", retry.ErrGaveUp)
	for _, tc := range []struct {
		name   string
		once   bool
		owned  int32
		causes []error
		ends   bool
	}{
		{"the only one", false, 1, []error{broken}, false},
		{"one of two", false, 2, []error{broken}, false},
		{"both", false, 2, []error{broken, broken}, false},
		{"the only one, outage", false, 1, []error{outage}, true},
		{"one of two, outage", false, 2, []error{outage}, false},
		{"both, outage", false, 2, []error{outage, broken}, true},
		{"one-off copy", true, 2, []error{broken}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := newMetrics(nil, "dest", "", func() float64 { return 0 })
			if err != nil {
				t.Fatal(err)
			}
			s := &Service{cfg: Config{Sync: Sync{Full: true, Incremental: !tc.once}}, failures: newFailures(), metrics: m}
			a := &assigner{s: s, workers: map[topicPartition]*handle{}}
			a.leaving.Store(true)
			for p := range tc.owned {
				a.workers[topicPartition{topic: "t", partition: p}] = nil
			}
			stop := make(chan struct{})
			close(stop)
			for p, cause := range tc.causes {
				err = a.ended(topicPartition{topic: "t", partition: int32(p)}, stop, cause)
			}
			if (err != nil) != tc.ends {
				t.Errorf("got %v", err)
			}
			if s.failures.err() == nil {
				t.Error("nothing is left for the status")
			}
		})
	}
}

// runReporter runs a reporter until the test ends.
func runReporter(t *testing.T, r *state.Reporter) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}
