package apply

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
)

// Service applies a pipeline to one destination as a member of its group.
type Service struct {
	cfg        Config
	log        zerolog.Logger
	policy     retry.Policy
	topics     topicNames
	stateTopic string
	codec      *wire.Codec
	metrics    *metrics
	phases     *phases
	progress   *account
	loading    *loading
	barriers   *barriers
	failures   *failures
	fetcher    *fetcher
	sender     *sender
	builder    *indexBuilder
	// poked asks the coordinator to look at the group now.
	poked chan struct{}
	// groups are those of the destination, this service's first.
	groups []groupRules
	// seam, if set, hears of the steps of barriers before they are taken; tests
	// freeze and cut off there.
	seam func(context.Context, step)
	// mostWanted is maxWanted; tests make do with fewer.
	mostWanted int
	// retryingUntil is when the status may leave "retrying", in Unix
	// nanoseconds.
	retryingUntil atomic.Int64

	// Set by Run before anything else runs.
	client     *mongo.Client
	deployment mongodb.Deployment
	able       abilities
	store      *store
}

// New prepares a service without connecting it. A service runs once.
func New(cfg Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	topics := route.TopicsOf(cfg.Pipeline)
	s := &Service{
		cfg: cfg, log: cfg.Log, topics: topicNames{changes: topics.Changes, snapshot: topics.Snapshot}, stateTopic: topics.State,
		codec: codec, groups: rulesOf(&cfg), phases: newPhases(), progress: newAccount(), loading: newLoading(), barriers: newBarriers(), failures: newFailures(),
		poked: make(chan struct{}, 1), mostWanted: maxWanted,
	}
	if s.fetcher, err = newFetcher(cfg.Kafka, codec, cfg.QueueBytes, cfg.Retry.Connection, cfg.Log); err != nil {
		return nil, err
	}
	s.metrics, err = newMetrics(cfg.Registerer, cfg.Destination, cfg.Group, func() float64 { return float64(s.fetcher.queued()) })
	if err != nil {
		return nil, err
	}
	s.sender, s.builder = newSender(s), newIndexBuilder(s)
	s.policy = cfg.Retry
	s.policy.OnRetry = s.onRetry
	return s, nil
}

// onRetry reports a failure that will be tried again.
func (s *Service) onRetry(a retry.Attempt) {
	s.metrics.retries.Inc()
	if a.Wait == 0 {
		return
	}
	s.retryingUntil.Store(time.Now().Add(a.Wait + statusInterval).UnixNano())
	s.cfg.Report.Retrying(a.Since, a.Until, a.Err.Error())
	s.log.Warn().Err(a.Err).Dur("wait", a.Wait).Time("until", a.Until).Msg("will try again")
}

// Run applies until ctx ends or nothing is left that it could do, and returns
// after every goroutine that it started. The end of ctx is no error. An event
// that cannot be applied stops its partition alone; it is the error of Run when
// ctx ends, at once in a one-off copy, and when no partition is left that works
// and a retry window of one is over.
//
// The order of the end: the group is left first, which takes the partitions
// away from the workers; each finishes the batch in hand within the drain time,
// which commits its offset; then fetching stops, and the clients close.
func (s *Service) Run(ctx context.Context) (err error) {
	s.cfg.Report.Set(state.StateStarting, "")
	defer func() {
		if failed := s.failures.err(); failed != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = failed // a stop that was asked for does not mend it
		}
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
			err = nil
			s.cfg.Report.Set(state.StateFinished, "stopped")
		case errors.Is(err, errDone):
			err = nil
			s.cfg.Report.Set(state.StateFinished, s.verdict())
		case errors.Is(err, errHistoryLost):
			s.cfg.Report.Set(state.StateHistoryLost, err.Error())
		case err != nil:
			s.cfg.Report.Set(state.StateFailed, err.Error())
		}
	}()
	if err := s.connect(ctx); err != nil {
		s.fetcher.client.Close()
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		err = errors.Join(err, s.client.Disconnect(end))
	}()
	if err := s.changeRules(ctx); err != nil {
		s.fetcher.client.Close()
		return err
	}
	return s.serve(ctx)
}

// serve runs the service's parts.
func (s *Service) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	group.Go(func() error { return s.fetcher.run(hard) })
	group.Go(func() error { return s.builder.run(hard) })
	group.Go(func() error { return s.report(ctx) })
	group.Go(func() error { return (&surveyor{s: s}).run(ctx) })
	c := &coordinator{s: s, manifests: make(chan state.Manifest, 1)}
	group.Go(func() error { return c.run(ctx) })
	group.Go(func() error { return (&enforcer{s: s, said: map[deferredID]string{}}).run(ctx) })
	group.Go(func() error { return s.sender.run(ctx) })
	member, err := s.join(hard, group.Go)
	if err != nil {
		cut()
		return errors.Join(err, group.Wait())
	}
	group.Go(func() error {
		defer cut()
		return member.run(ctx)
	})
	return group.Wait()
}

// connect reaches both sides and finds out what the destination can do.
func (s *Service) connect(ctx context.Context) error {
	if err := kafka.EnsureTopics(ctx, s.fetcher.client, route.TopicsOf(s.cfg.Pipeline), s.cfg.Topics); err != nil {
		return err
	}
	if s.cfg.OnError == OnErrorDeadLetter {
		if err := kafka.EnsureDeadTopic(ctx, s.fetcher.client, route.DeadTopic(s.cfg.Pipeline, s.cfg.Destination), s.cfg.Topics); err != nil {
			return err
		}
	}
	client, err := mongodb.Connect(ctx, s.cfg.Target)
	if err != nil {
		return err
	}
	s.client = client
	if err := s.survey(ctx); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		return errors.Join(err, client.Disconnect(end))
	}
	return nil
}

// survey finds out what the destination is and can do.
func (s *Service) survey(ctx context.Context) error {
	d, err := mongodb.Describe(ctx, s.client)
	if err != nil {
		return err
	}
	s.deployment = d
	s.able = abilities{nestedDollar: !d.Standin && d.AtLeast(5, 0), sharded: d.Sharded}
	if !s.cfg.Sharding.None() && !d.Sharded {
		return fmt.Errorf("use destination %s with rules of sharding: it is no sharded cluster: hint: remove sharding from its configuration, or connect to a mongos", s.cfg.Destination)
	}
	if err := errors.Join(probeExact(ctx, s.client, &s.able), probeCollectionUUID(ctx, s.client, &s.able)); err != nil {
		return err
	}
	reason := "switched off by configuration"
	if s.cfg.ExactlyOnce != ExactlyOnceOff {
		if s.able.transactions, reason, err = mongodb.ProbeTransactions(ctx, s.client); err != nil {
			return err
		}
	}
	switch {
	case s.able.transactions:
		s.log.Info().Str("version", d.Version).Msg("changes take effect exactly once: transactions work")
	case s.cfg.ExactlyOnce == ExactlyOnceOn:
		return fmt.Errorf("use destination %s exactly once: transactions do not work there: %s: hint: use a replica set, or set exactly_once to auto", s.cfg.Destination, reason)
	default:
		s.log.Warn().Str("version", d.Version).Str("reason", reason).Msg("changes take effect at least once: no transactions")
	}
	owner := s.cfg.Instance + "/" + bson.NewObjectID().Hex()
	s.store = newStore(s.client, groupID{Pipeline: s.cfg.Pipeline, Group: s.cfg.groupName()}, owner, s.topics)
	return s.store.ensureCollections(ctx)
}

// newWorker prepares the worker of a partition; stop ends it.
func (s *Service) newWorker(tp topicPartition, stop <-chan struct{}) *worker {
	return &worker{
		s: s, tp: tp, id: s.store.partition(tp.topic, tp.partition), limit: s.cfg.BatchEvents, stop: stop,
		log: s.log.With().Str("topic", tp.topic).Int32("partition", tp.partition).Logger(),
	}
}

// poke has the coordinator look at the group now.
func (s *Service) poke() {
	select {
	case s.poked <- struct{}{}:
	default: // it is about to
	}
}

// sleep waits and reports whether ctx is still alive.
func (s *Service) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Service) kafkaRetry(ctx context.Context, fn func(context.Context) error) error {
	return s.policy.Do(ctx, classify(kafka.Classify), fn)
}

// loadState reads the pipeline's state topic.
func (s *Service) loadState(ctx context.Context) (view *state.View, err error) {
	err = s.kafkaRetry(ctx, func(ctx context.Context) error {
		view, err = state.Load(ctx, s.cfg.Kafka, s.stateTopic)
		return err
	})
	return view, err
}

// register tells the pipeline where the group stands. The truth is in the
// destination; a registration that is not written is made good by the next.
func (s *Service) register(ctx context.Context, g *groupRecord) {
	record, err := state.Record(s.stateTopic, state.KeyGroup(s.cfg.Destination, s.cfg.Group), state.GroupRegistration{
		Destination: s.cfg.Destination, Group: s.cfg.Group, Phase: g.Phase, Run: g.Run, Updated: time.Now().UTC(),
		WithoutFull: !s.cfg.Sync.Full, ChangeOffsets: g.ChangeOffsets, Select: g.Select,
	})
	if err != nil {
		s.log.Warn().Err(err).Msg("group was not registered")
		return
	}
	said := func(_ *kgo.Record, err error) {
		if err != nil {
			s.log.Warn().Err(err).Msg("group was not registered")
		}
	}
	if g.Phase != state.PhaseDone {
		s.fetcher.client.Produce(context.WithoutCancel(ctx), record, said)
		return
	}
	// The service ends now, and nothing says it later.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain+endTimeout)
	defer cancel()
	said(s.fetcher.client.ProduceSync(end, record).First())
}
