package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// errFinished ends the service's goroutines when the run is complete.
var errFinished = errors.New("the run is complete")

// RunFailedError says that the pipeline's full load cannot be completed. It is
// final: what a destination has loaded of it cannot be taken back here.
type RunFailedError struct {
	// Run is the run's id, Cause what happened, with the remedy.
	Run, Cause string
}

// Error names the run and the cause.
func (e *RunFailedError) Error() string {
	return fmt.Sprintf("full load run=%s failed: %s", e.Run, e.Cause)
}

// ErrHistoryLost is wrapped by the error that says that changes which the run
// needs are no longer on the change topic.
var ErrHistoryLost = errors.New("history lost")

// Service loads a source into a pipeline's snapshot topic, together with the
// other processes of the same pipeline.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	topics  route.Topics
	codec   *wire.Codec
	metrics *metrics
	board   *board
	// slots are the workers that may read at the same time.
	slots *semaphore.Weighted
	mood  mood
	disk  *disk
	// client and deployment are set by Run before anything else starts.
	client     *mongo.Client
	deployment mongodb.Deployment
}

// New checks the configuration and prepares a service. Nothing is connected.
func New(cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("configure snapshot: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, log: cfg.Log, topics: route.TopicsOf(cfg.Pipeline), codec: codec, metrics: m, board: newBoard(),
		disk: newDisk(cfg.DiskBytes, int64(cfg.BatchBytes)), slots: semaphore.NewWeighted(int64(cfg.Workers)), mood: mood{report: cfg.Report, base: state.StateStarting},
	}, nil
}

// Run works until the run is complete, and returns nil then, also if it was
// complete before. It returns nil as well when ctx ends, after what was read is
// committed (10 s at most). A run that was begun is gone on with, never begun
// again. Run is called once; when it returns, all its goroutines have ended.
func (s *Service) Run(ctx context.Context) error {
	err := s.run(ctx)
	switch {
	case errors.Is(err, errFinished):
		s.log.Info().Msg("full load is complete")
		s.cfg.Report.Set(state.StateFinished, "")
		return nil
	case ctx.Err() != nil && !isFinal(err):
		return nil
	case err == nil:
		return nil
	case errors.Is(err, ErrHistoryLost):
		s.cfg.Report.Set(state.StateHistoryLost, err.Error())
	default:
		s.cfg.Report.Set(state.StateFailed, err.Error())
	}
	return err
}

// isFinal reports whether err is news although the service was being stopped.
func isFinal(err error) bool {
	_, failed := errors.AsType[*RunFailedError](err)
	return failed || errors.Is(err, ErrHistoryLost)
}

func (s *Service) run(ctx context.Context) (err error) {
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.disconnect()) }()
	if err := s.prepareTopics(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.awaitEnd(ctx) })
	g.Go(func() error { return s.showProgress(ctx) })
	g.Go(func() error { return s.keepDisk(ctx) })
	g.Go(func() error { return newMembership(s).run(ctx) })
	return g.Wait()
}

// connect sets client and deployment.
func (s *Service) connect(ctx context.Context) error {
	return s.policy().Do(ctx, mongodb.Classify, func(ctx context.Context) error {
		client, err := mongodb.Connect(ctx, s.cfg.Source)
		if err != nil {
			return err
		}
		d, err := mongodb.Describe(ctx, client)
		if err == nil {
			err = d.CheckSource()
		}
		if err != nil {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			return errors.Join(err, client.Disconnect(end))
		}
		s.client, s.deployment = client, d
		return nil
	})
}

func (s *Service) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("disconnect from source: %w", err)
	}
	return nil
}

func (s *Service) prepareTopics(ctx context.Context) error {
	return s.policy().Do(ctx, kafka.Classify, func(ctx context.Context) error {
		return kafka.PrepareTopics(ctx, s.cfg.Kafka, s.topics, s.cfg.Topics)
	})
}

// watch feeds the board.
func (s *Service) watch(ctx context.Context) error {
	return s.policy().Loop(ctx, kafka.Classify, func(ctx context.Context, alive func()) error {
		return state.Follow(ctx, s.cfg.Kafka, s.topics.State, func(key string, value []byte) error {
			alive()
			s.mood.well()
			return s.board.apply(key, value)
		}, s.board.isCurrent)
	})
}

// awaitEnd ends the service when the run has ended, whoever ended it.
func (s *Service) awaitEnd(ctx context.Context) error {
	var m state.Manifest
	err := s.board.wait(ctx, func(b *board) bool {
		var ok bool
		m, ok = b.runs.LatestRun()
		// All that was there comes first: the last status tells of it.
		return ok && m.State != state.RunLoading && b.current
	})
	if err != nil {
		return err
	}
	return verdictOf(&m)
}

// verdictOf is how a run's end ends the service; nil while it is loading.
func verdictOf(m *state.Manifest) error {
	switch m.State {
	case state.RunComplete:
		return errFinished
	case state.RunFailed:
		return &RunFailedError{Run: m.Run, Cause: m.Cause}
	}
	return nil
}

// policy is the configured one with a place for its news. Each user has its
// own entry in the service's mood.
func (s *Service) policy() retry.Policy {
	policy, next := s.cfg.Retry, s.cfg.Retry.OnRetry
	policy.OnRetry = func(a retry.Attempt) {
		s.metrics.retries.Inc()
		s.mood.retrying(a)
		s.log.Warn().Err(a.Err).Time(logfield.Until, a.Until).
			Dur(logfield.Wait, a.Wait).Msg("will try again")
		if next != nil {
			next(a)
		}
	}
	return policy
}
