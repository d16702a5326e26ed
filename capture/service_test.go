package capture

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func testDecoder(cfg Config, s *script) *oplog.Decoder {
	return &oplog.Decoder{Source: event.Source{Deployment: s.deployment, Mode: ModeOplog, ServerVersion: "8.0.0"}, Select: cfg.Select.Match}
}

func TestEventsArriveOnceAndInOrder(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		r := newRand(t)
		for range 5 {
			s.write(r, 500)
			until(t, cfg, s.last())
		}
		service.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}

// TestWatermarkWithoutChanges: a reader that waits for a watermark gets one in
// every partition although nothing ever happens.
func TestWatermarkWithoutChanges(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "idle", s)
	service := start(t, cfg)
	until(t, cfg, s.last())
	first := len(committed(t, cfg))
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := len(committed(t, cfg)); n < first+2*testPartitions {
			return fmt.Errorf("%d watermarks, at first %d", n, first)
		}
		return nil
	})
	service.stop()
	for _, r := range committed(t, cfg) {
		if r.event.Op != event.OpWatermark || r.event.Position.Time != s.last() || r.key != watermarkKey {
			t.Errorf("partition %d offset %d: %s key %q, want only watermarks of the last entry", r.partition, r.offset, &r.event, r.key)
		}
	}
}

// TestPositionPassesUnselected: capture does not stay behind on a source whose
// changes are all unselected.
func TestPositionPassesUnselected(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "unselected", s)
	service := start(t, cfg)
	until(t, cfg, s.last())
	for i := range 3000 {
		s.insert("unselected", i)
	}
	until(t, cfg, s.last())
	service.stop()
}

// TestKills ends captures at random moments, without any goodbye of the
// producer, under a source that goes on.
func TestKills(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		r := newRand(t)
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		cfg.DrainTimeout = time.Nanosecond
		var client atomic.Pointer[kgo.Client]
		cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
		from := s.last()
		first := start(t, cfg)
		until(t, cfg, from)
		for range 8 {
			s.write(r, 1+r.IntN(3000))
			timer := time.NewTimer(time.Duration(r.IntN(60)) * time.Millisecond)
			<-timer.C
			first.kill(client.Load())
			first = start(t, cfg)
			testenv.Eventually(t, 20*time.Second, func() error {
				if client.Load() == nil {
					return errors.New("no producer yet")
				}
				return nil
			})
		}
		until(t, cfg, s.last())
		cfg.DrainTimeout = DefaultDrainTimeout
		first.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}

// TestSourceFailures: reading goes on at the position after every failure.
func TestSourceFailures(t *testing.T) {
	r := newRand(t)
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "flaky", s)
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	for range 10 {
		s.write(r, 200)
		s.fail(errNetwork)
	}
	until(t, cfg, s.last())
	service.stop()
	checkExactlyOnce(t, cfg, s, from)
}

func TestStandbyTakesOver(t *testing.T) {
	r := newRand(t)
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "standby", s)
	from := s.last()
	active := start(t, cfg)
	until(t, cfg, from)
	report, err := state.NewReporter(state.ReporterConfig{Kafka: cfg.Kafka, Topic: route.TopicsOf(cfg.Pipeline).State, Status: state.Status{Service: "capture", Instance: "second"}})
	if err != nil {
		t.Fatal(err)
	}
	reporting, end := context.WithCancel(t.Context())
	reported := make(chan error, 1)
	go func() { reported <- report.Run(reporting) }()
	defer func() {
		end()
		if err := <-reported; err != nil {
			t.Error(err)
		}
	}()
	second := cfg
	second.Report = report
	standby := start(t, second)
	s.write(r, 1000)
	until(t, cfg, s.last())
	if status := report.Status(); status.State != state.StateStarting || !strings.Contains(status.Cause, "standby") {
		t.Errorf("second capture says %s (%s), want a standby", status.State, status.Cause)
	}
	active.stop()
	s.write(r, 1000)
	until(t, cfg, s.last())
	testenv.Eventually(t, 10*time.Second, func() error {
		if status := report.Status(); status.State != state.StateRunning {
			return fmt.Errorf("state %s", status.State)
		}
		return nil
	})
	standby.stop()
	checkExactlyOnce(t, cfg, s, from)
}

// TestFencedCaptureComesBack: one that lost its producer id commits nothing any
// more, and goes on once it is the active one.
func TestFencedCaptureComesBack(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		r := newRand(t)
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		s.write(r, 1000)
		thief := cfg
		thief.setDefaults()
		p, err := newProducer(t.Context(), &thief, route.TopicsOf(cfg.Pipeline))
		if err != nil {
			t.Fatal(err)
		}
		p.close()
		s.write(r, 1000)
		until(t, cfg, s.last())
		service.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}

func TestOtherSourceIsRefused(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "mine", s)
	service := start(t, cfg)
	until(t, cfg, s.last())
	service.stop()
	other := newScript()
	other.deployment = "ffffffffffffffffffffffff"
	cfg.seams.source = other
	err := start(t, cfg).wait()
	if !errors.Is(err, ErrOtherSource) {
		t.Fatalf("error %v, want ErrOtherSource", err)
	}
	for _, part := range []string{s.deployment, other.deployment, "mine", "hint: "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("message %q does not name %q", err, part)
		}
	}
}

func TestHistoryLost(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "lost", s)
	service := start(t, cfg)
	s.insert("orders", 1)
	until(t, cfg, s.last())
	service.stop()
	s.insert("orders", 2)
	s.insert("orders", 3)
	s.lost = 3
	err := start(t, cfg).wait()
	if !errors.Is(err, ErrHistoryLost) {
		t.Fatalf("error %v, want ErrHistoryLost", err)
	}
	if msg := err.Error(); !strings.Contains(msg, "position=") || !strings.Contains(msg, "hint: ") {
		t.Errorf("message %q names no position or remedy", msg)
	}
}

// TestUnknownEntryStops: what comes before it is committed, nothing after it,
// and a capture that knows it goes on exactly there.
func TestUnknownEntryStops(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "unknown", s)
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	before := s.insert("orders", 1)
	at := s.append(bson.D{{Key: "op", Value: "x"}, {Key: "ns", Value: "shop.orders"}, {Key: "o", Value: bson.D{}}})
	s.insert("orders", 2)
	err := service.wait()
	if !errors.Is(err, oplog.ErrUnknown) || !strings.Contains(err.Error(), fmt.Sprintf("%d.%d", at.T, at.I)) {
		t.Fatalf("error %v, want an unknown entry at its position", err)
	}
	until(t, cfg, before)
	for _, r := range committed(t, cfg) {
		if r.event.Op == event.OpInsert && r.event.Position.Time != before {
			t.Errorf("committed %s, want nothing at or after the unknown entry", &r.event)
		}
	}
}

// TestCollectionsOrderedAsWhole: events of a capped collection share a key, from
// the create event on and after a restart.
func TestCollectionsOrderedAsWhole(t *testing.T) {
	s := newScript()
	listed, created, plain := event.UUID{1}, event.UUID{2}, event.UUID{3}
	s.whole = []event.UUID{listed}
	cfg := testConfig(t, testenv.StandIn(t), "whole", s)
	service := start(t, cfg)
	until(t, cfg, s.last())
	s.create("capped", created, bson.E{Key: "capped", Value: true})
	s.create("plain", plain)
	write := func(from int) {
		for i := range 20 {
			s.insertUUID("listed", from+i, listed)
			s.insertUUID("capped", from+i, created)
			s.insertUUID("plain", from+i, plain)
		}
		until(t, cfg, s.last())
	}
	write(0)
	service.stop()
	service = start(t, cfg)
	write(100)
	service.stop()
	seen := map[string]map[int32]int{}
	for _, r := range committed(t, cfg) {
		if r.event.Op != event.OpInsert {
			continue
		}
		if byDocument := strings.HasSuffix(r.event.NS.Coll, "plain"); byDocument == strings.HasSuffix(r.key, "|") {
			t.Errorf("event of %s has key %q", r.event.NS, r.key)
		}
		if seen[r.event.NS.Coll] == nil {
			seen[r.event.NS.Coll] = map[int32]int{}
		}
		seen[r.event.NS.Coll][r.partition]++
	}
	for coll, partitions := range map[string]int{"listed": 1, "capped": 1, "plain": testPartitions} {
		if len(seen[coll]) != partitions {
			t.Errorf("%s is in %d partitions, want %d", coll, len(seen[coll]), partitions)
		}
	}
}

// TestChangedPartitionCount is refused: the order of documents would break.
func TestChangedPartitionCount(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "partitions", s)
	service := start(t, cfg)
	until(t, cfg, s.last())
	service.stop()
	addPartitions(t, cfg)
	cfg.Topics.Partitions++
	if err := start(t, cfg).wait(); err == nil || !strings.Contains(err.Error(), "partition count cannot change") {
		t.Fatalf("error %v, want a refusal of the new partition count", err)
	}
}

// TestLostPosition: changes without a position are never gone on behind.
func TestLostPosition(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		topics := route.TopicsOf(cfg.Pipeline)
		service := start(t, cfg)
		until(t, cfg, s.last())
		service.stop()
		deleteTopic(t, cfg, topics.State)
		if err := start(t, cfg).wait(); !errors.Is(err, ErrHistoryLost) || !strings.Contains(err.Error(), topics.State) {
			t.Fatalf("error %v, want lost history with the name of the topic", err)
		}
	})
}

// TestAbortedBeginning: what a first life left behind without committing it does
// not keep the pipeline from beginning.
func TestAbortedBeginning(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		abortRecord(t, cfg)
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		service.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}

func TestValidate(t *testing.T) {
	cfg := Config{Pipeline: "a b", Mode: "other", QueueBytes: 1, CommitInterval: -1, Workers: -1}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"a b", "other", "queue", "commit interval", "workers"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not name %q:\n%v", part, err)
		}
	}
}
