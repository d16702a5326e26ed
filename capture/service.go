package capture

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
)

// heldShare is the part of the queue's bytes, one in so many, that open
// transactions of the source may take besides.
const heldShare = 4

// disconnectTimeout bounds the goodbye to the source.
const disconnectTimeout = 5 * time.Second

// seams are the places where a test takes the part of the outside world.
type seams struct {
	// source replaces the MongoDB deployment.
	source entrySource
	// images goes with source; nil has no documents to give.
	images imageSource
	// producer is given the Kafka client of each life.
	producer func(*kgo.Client)
	// committed is told each committed position.
	committed func(event.Position)
}

// Service is one capture process: active or standing by.
type Service struct {
	cfg     Config
	topics  route.Topics
	metrics *metrics
	source  entrySource
	// client is the source's; nil where a test is the source.
	client *mongo.Client
	// images is where whole documents come from; nil where a test has none.
	images imageSource
	// published counts the events of ended lives.
	published int64
}

// New checks the configuration; nothing is connected yet.
func New(cfg Config) (*Service, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure capture: %w", err)
	}
	return &Service{
		cfg: cfg, topics: route.TopicsOf(cfg.Pipeline), metrics: newMetrics(cfg.Registerer),
		source: cfg.seams.source, images: cfg.seams.images,
	}, nil
}

// Run captures until ctx ends (nil, after committing what was read, within the
// drain timeout) or until an error that retrying does not heal. While another
// instance is active it stands by. It returns after everything it started has
// stopped and may be called once.
func (s *Service) Run(ctx context.Context) error {
	err := s.run(ctx)
	switch {
	case err == nil, ctx.Err() != nil && errors.Is(err, context.Canceled):
		s.cfg.Report.Set(state.StateFinished, "stopped")
		return nil
	case errors.Is(err, ErrHistoryLost):
		s.cfg.Report.Set(state.StateHistoryLost, err.Error())
	default:
		s.cfg.Report.Set(state.StateFailed, err.Error())
	}
	return err
}

func (s *Service) run(ctx context.Context) error {
	s.cfg.Report.Set(state.StateStarting, "")
	if s.source == nil {
		client, err := mongodb.Connect(ctx, s.cfg.Source)
		if err != nil {
			return err
		}
		defer func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
			defer cancel()
			if err := client.Disconnect(end); err != nil {
				s.cfg.Log.Debug().Err(err).Msg("source was not told goodbye")
			}
		}()
		if err := s.check(ctx, client); err != nil {
			return err
		}
	}
	if err := s.ensureTopics(ctx); err != nil {
		return err
	}
	return s.lead(ctx)
}

// check looks at the source once before anything is created for it.
func (s *Service) check(ctx context.Context, client *mongo.Client) error {
	s.client, s.source = client, &deployment{cfg: &s.cfg, client: client, metrics: s.metrics}
	if _, err := s.source.describe(ctx); err != nil {
		return err
	}
	var err error
	s.images, err = newMongoImages(ctx, client)
	return err
}

func (s *Service) ensureTopics(ctx context.Context) error {
	return kafka.PrepareTopics(ctx, s.cfg.Kafka, s.topics, s.cfg.Topics)
}

// lead takes part in the election and serves its tenures.
func (s *Service) lead(ctx context.Context) error {
	outage := &outage{window: s.cfg.Retry.Connection, report: s.cfg.Report}
	e, err := newElection(&s.cfg, s.topics.Control, outage.over)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.watch(ctx, outage.failed) })
	g.Go(func() error {
		// Closing leaves the group, which calls back into the election: it
		// must not wait for a tenure that nobody serves any more.
		defer e.close()
		for {
			s.metrics.active.Set(0)
			s.tellOpen(nil) // they are the active one's to tell
			outage.standBy()
			select {
			case t := <-e.tenures:
				err := s.serve(ctx, t)
				close(t.done)
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// serve captures for the length of a tenure. Nil means that the tenure is over.
func (s *Service) serve(ctx context.Context, t *tenure) error {
	s.metrics.active.Set(1)
	s.cfg.Report.Set(state.StateStarting, "resuming from the committed position")
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		select {
		case <-t.ended:
			s.cfg.Log.Info().Msg("capture is no longer the active one")
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	if s.client != nil {
		g.Go(func() error {
			s.watchWindow(ctx, func(ctx context.Context) (oplogWindow, error) { return measureOplog(ctx, s.client) })
			return nil
		})
	}
	if s.cfg.MaxRetention > 0 {
		g.Go(func() error {
			s.keepRetention(ctx)
			return nil
		})
	}
	if s.cfg.DropLoaded {
		g.Go(func() error {
			s.dropLoaded(ctx)
			return nil
		})
	}
	policy := s.cfg.Retry
	policy.OnRetry = s.retrying
	err := policy.Loop(ctx, classify, func(ctx context.Context, alive func()) error {
		err := s.life(ctx, alive)
		if errors.Is(err, errFenced) {
			s.pause(ctx)
		}
		return err
	})
	ended := ctx.Err() != nil
	cancel()
	if err := g.Wait(); err != nil {
		return err
	}
	if ended {
		return nil
	}
	return err
}

// pause gives the election time to notice that another instance is active, so
// that two of them do not fence each other in turns.
func (s *Service) pause(ctx context.Context) {
	s.metrics.active.Set(0)
	s.cfg.Log.Warn().Err(errFenced).Msg("producer was fenced")
	s.cfg.Report.Set(state.StateStarting, "standby: "+errFenced.Error())
	timer := time.NewTimer(s.cfg.SessionTimeout / 2)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.metrics.active.Set(1)
	case <-ctx.Done():
	}
}

func (s *Service) retrying(a retry.Attempt) {
	s.cfg.Log.Warn().Err(a.Err).Time(logfield.Until, a.Until).Stringer(logfield.Wait, a.Wait).Msg("capture begins again at its committed position")
	s.cfg.Report.Retrying(a.Since, a.Until, a.Err.Error())
}

// standby is the cause that the status of a waiting instance gives.
const standby = "standby: waiting to become the active capture of the pipeline"

// outage bounds how long the group may be out of reach, since the client itself
// tries for ever, and keeps the status of an instance that is not active.
type outage struct {
	window time.Duration
	report *state.Reporter
	mu     sync.Mutex
	since  time.Time
}

// failed notes a failure and returns it once the window is over.
func (o *outage) failed(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	until := o.since.Add(o.window)
	if !now.Before(until) {
		return fmt.Errorf("give up after %s of failures: %w", now.Sub(o.since).Round(time.Second), err)
	}
	o.report.Retrying(o.since, until, err.Error())
	return nil
}

// over notes that the group is within reach.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.since.IsZero() {
		o.since = time.Time{}
		o.report.Set(state.StateStarting, standby)
	}
}

// standBy reports an instance that waits, unless there is worse to say.
func (o *outage) standBy() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.report.Set(state.StateStarting, standby)
	}
}
