package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// DefaultReportInterval is how often a status is published when nothing
// changes.
const DefaultReportInterval = 5 * time.Second

// lastReport bounds the publication of the last status after the end of Run's
// context.
const lastReport = 3 * time.Second

// ReporterConfig configures a Reporter.
type ReporterConfig struct {
	Kafka kafka.Config
	// Topic is the pipeline's state topic.
	Topic string
	// Interval is the time between two publications without a change of state;
	// zero means DefaultReportInterval.
	Interval time.Duration
	// Status names the instance: Service, Instance, Destination, Version. Its
	// state is StateStarting until something else is said.
	Status Status
	Log    zerolog.Logger
}

// Reporter holds the status of one service instance and publishes it to the
// state topic: at once when the state changes, else at an interval. Status is
// not part of any promise, so it has a producer of its own, outside of
// transactions, and what cannot be published is replaced by the next.
//
// All methods but Run are safe for concurrent use, never block, and may be
// called on a nil Reporter, which drops everything.
type Reporter struct {
	cfg     ReporterConfig
	client  *kgo.Client
	changed chan struct{}

	mu     sync.Mutex
	status Status
}

// NewReporter prepares the producer without connecting it.
func NewReporter(cfg ReporterConfig) (*Reporter, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultReportInterval
	}
	client, err := kafka.NewClient(cfg.Kafka,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(cfg.Interval),
		// Without a broker the last publication must end with its time; a
		// status that is there twice does no harm.
		kgo.AllowIdempotentProduceCancellation(),
	)
	if err != nil {
		return nil, fmt.Errorf("report status topic=%s: %w", cfg.Topic, err)
	}
	status := cfg.Status
	if status.State == "" {
		status.State = StateStarting
	}
	status.Since = time.Now().UTC()
	return &Reporter{cfg: cfg, client: client, changed: make(chan struct{}, 1), status: status}, nil
}

// Run publishes until ctx ends, then the last status once more, and closes the
// producer. It returns nil: failures are logged, since a status that cannot be
// published is no reason to stop a service. Cancel its context after the
// service has set its last state.
func (r *Reporter) Run(ctx context.Context) error {
	defer r.client.Close()
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	failing := false
	for {
		err := r.publish(ctx)
		switch {
		case err == nil:
			failing = false
		case !failing && ctx.Err() == nil:
			failing = true
			r.cfg.Log.Warn().Err(err).Msg("status cannot be published for now")
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastReport)
			defer cancel()
			if err := r.publish(last); err != nil {
				r.cfg.Log.Warn().Err(err).Msg("last status was not published")
			}
			return nil
		case <-r.changed:
		case <-tick.C:
		}
	}
}

// publish writes the present status and waits for the broker.
func (r *Reporter) publish(ctx context.Context) error {
	status := r.Status()
	record, err := Record(r.cfg.Topic, KeyStatus(status.Service, status.Instance), status)
	if err != nil {
		return err
	}
	if err := r.client.ProduceSync(ctx, record).FirstErr(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("publish status topic=%s: %w", r.cfg.Topic, err)
	}
	return nil
}

// Status returns a copy of the present status, stamped now.
func (r *Reporter) Status() Status {
	if r == nil {
		return Status{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	status := r.status
	status.Detail = maps.Clone(status.Detail)
	status.Updated = time.Now().UTC()
	return status
}

// Set enters a state. The cause is for operators: no credentials, no content of
// documents. Setting the present state with the present cause changes nothing.
func (r *Reporter) Set(state, cause string) {
	r.change(state, cause, time.Time{}, time.Time{})
}

// Retrying enters StateRetrying: since is the first failure, until when the
// service gives up.
func (r *Reporter) Retrying(since, until time.Time, cause string) {
	r.change(StateRetrying, cause, since.UTC(), until.UTC())
}

func (r *Reporter) change(state, cause string, since, until time.Time) {
	if r == nil {
		return
	}
	r.mu.Lock()
	s := &r.status
	same := s.State == state && s.Cause == cause && s.Until.Equal(until)
	if !same {
		if since.IsZero() {
			since = time.Now().UTC()
		}
		if s.State != state || state == StateRetrying {
			s.Since = since
		}
		s.State, s.Cause, s.Until = state, cause, until
	}
	r.mu.Unlock()
	if same {
		return
	}
	select {
	case r.changed <- struct{}{}:
	default: // a publication is due already and will take this state along
	}
}

// Progress says where the service has come and how far it lags, in seconds (-1
// where that is not known). It is published at the next interval.
func (r *Reporter) Progress(p event.Position, lagSeconds float64) {
	r.Update(func(s *Status) { s.Position, s.LagSeconds = p, lagSeconds })
}

// Update changes the status in place under the reporter's lock; it is published
// at the next interval. The function must not keep the status or block.
func (r *Reporter) Update(change func(*Status)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// Count sets a counter of the status's detail.
func (r *Reporter) Count(name string, value int64) {
	r.Update(func(s *Status) {
		if s.Detail == nil {
			s.Detail = map[string]int64{}
		}
		s.Detail[name] = value
	})
}
