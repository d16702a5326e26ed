package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/wire"
	"golang.org/x/sync/errgroup"
)

// loadTimeout bounds reading the state topic; transactions that were open are
// ended by then.
const loadTimeout = time.Minute

// errDrained ends what a stop could not commit in time.
var errDrained = errors.New("stop took longer than the drain timeout")

// life is one attempt: fence, load, resume, publish until the first error or
// the end of ctx. A nil error means that ctx ended and everything read was
// committed.
func (s *Service) life(ctx context.Context, alive func()) error {
	s.metrics.lives.Inc()
	// The fence comes first: what is loaded afterwards no longer changes under
	// another instance's hands.
	producer, err := newProducer(ctx, &s.cfg, s.topics)
	if err != nil {
		return err
	}
	defer producer.close()
	p, t, err := s.resume(ctx, producer)
	if err != nil {
		return err
	}
	defer t.close(context.WithoutCancel(ctx))
	p.committed = func() {
		alive()
		s.cfg.Report.Set(state.StateRunning, "")
		s.cfg.Report.Count("events", s.published+p.total)
		s.tellOpen(p.open)
		if s.cfg.seams.committed != nil {
			s.cfg.seams.committed(p.position)
		}
	}
	defer func() { s.published += p.total }()
	s.cfg.Log.Info().Stringer(logfield.Position, p.position).Msg("capture follows the source")
	return s.stream(ctx, p, t)
}

// resume finds out where to go on and opens the source there.
func (s *Service) resume(ctx context.Context, producer *producer) (*publisher, tail, error) {
	loading, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	view, err := state.Load(loading, s.cfg.Kafka, s.topics.State)
	if err != nil {
		return nil, nil, err
	}
	if r, ok := s.source.(recaller); ok {
		if err := r.recall(ctx, view); err != nil {
			return nil, nil, err
		}
	}
	source, err := s.source.describe(ctx)
	if err != nil {
		return nil, nil, err
	}
	p := &publisher{
		cfg: &s.cfg, metrics: s.metrics, producer: producer, source: source,
		marks: watermarks{interval: s.cfg.WatermarkInterval, idle: s.cfg.IdleInterval},
	}
	if err := s.identify(p, view, source); err != nil {
		return nil, nil, err
	}
	at, err := s.position(ctx, p, view)
	if err != nil {
		return nil, nil, err
	}
	t, confirmed, err := s.source.open(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	p.position, p.readFrom, p.token = confirmed, confirmed, at.ResumeToken
	if at.ReadFrom.IsZero() || at.ReadFrom == at.PublishedThrough {
		p.marks.pass(confirmed.Time)
	} else {
		// A transaction may be published in part: its time has not passed.
		p.readFrom = at.ReadFrom
	}
	if err := s.attach(ctx, p, view); err != nil {
		t.close(context.WithoutCancel(ctx))
		return nil, nil, err
	}
	return p, t, nil
}

// attach gives the publisher what it knows of collections and of requests.
func (s *Service) attach(ctx context.Context, p *publisher, view *state.View) error {
	p.refresher = &refresher{
		requests: newRequests(s.topics.State, view, s.cfg.Log), publisher: p, retry: s.cfg.Retry, stopping: s.images == nil,
	}
	if err := s.reselect(p, view); err != nil {
		return err
	}
	p.images = s.images
	if p.images == nil {
		return nil
	}
	catalogue, through, err := p.images.list(ctx, p.position.Time)
	if err != nil {
		return err
	}
	p.classes.complete(catalogue, through, s.cfg.Select.Match)
	return nil
}

// serveRequests runs what reads requests and documents for the publisher until
// work ends; an error ends work.
func (s *Service) serveRequests(work context.Context, endWork context.CancelCauseFunc, g *errgroup.Group, f *refresher) {
	jobs, results, commands := make(chan job, 1), make(chan result, 1), make(chan command)
	f.jobs, f.results, f.commands = jobs, results, commands
	from := f.offset
	g.Go(func() error {
		if err := followControl(work, s.cfg.Kafka, s.topics.Control, from, commands); err != nil {
			endWork(err)
		}
		return nil
	})
	if s.images == nil {
		return
	}
	g.Go(func() error {
		readImages(work, s.images, jobs, results)
		return nil
	})
}

// identify binds the pipeline to its source or refuses another one.
func (s *Service) identify(p *publisher, view *state.View, source event.Source) error {
	held, bound := view.Identity()
	if bound {
		if held.Deployment != source.Deployment {
			return &finalError{fmt.Errorf("capture pipeline %s: %w: it follows deployment %s, the configured source is deployment %s: hint: give this source a pipeline name of its own",
				s.cfg.Pipeline, ErrOtherSource, held.Deployment, source.Deployment)}
		}
		return nil
	}
	record, err := state.Record(s.topics.State, state.KeyIdentity(), state.Identity{
		Deployment: source.Deployment, Mode: source.Mode, Created: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	p.identity = record
	return nil
}

// position returns where to go on: behind what is committed, or at the present
// for a new pipeline.
func (s *Service) position(ctx context.Context, p *publisher, view *state.View) (state.CapturePosition, error) {
	held, ok := view.Position()
	if !ok {
		if err := s.unused(ctx); err != nil {
			return held, err
		}
		at, err := s.source.start(ctx)
		p.classes = newClasses(at.ByNamespace)
		p.classes.unique, p.enforcedSince = s.cfg.EnforcesUnique, uniqueRules(s.cfg.EnforcesUnique).names()
		return at, err
	}
	if held.Partitions != p.producer.partitions {
		return held, &finalError{fmt.Errorf("capture pipeline %s: topic %s has %d partitions, but its events were placed over %d: "+
			"the order of each document would break: hint: the partition count cannot change; start a new pipeline name with a full load",
			s.cfg.Pipeline, s.topics.Changes, p.producer.partitions, held.Partitions)}
	}
	if err := uniqueRules(s.cfg.EnforcesUnique).check(s.cfg.Pipeline, held.EnforcedSince); err != nil {
		return held, &finalError{err}
	}
	p.classes = newClasses(held.ByNamespace)
	p.classes.unique, p.enforcedSince = s.cfg.EnforcesUnique, held.EnforcedSince
	p.marks.last = held.Watermark
	return held, nil
}

// stream runs the stages. Stop order: intake first, then what was read passes
// through and is committed within the drain timeout, then the stages end; the
// clients are closed by life.
func (s *Service) stream(ctx context.Context, p *publisher, t tail) error {
	encoders, err := s.encoders(p)
	if err != nil {
		return err
	}
	p.encoder = encoders[len(encoders)-1]
	p.pipeline = newPipeline(t, s.cfg.QueueBytes, s.cfg.Workers, s.metrics)
	work, endWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endWork(nil)
	p.producer.expired = endWork
	intake, endIntake := context.WithCancel(ctx)
	defer endIntake()

	var g errgroup.Group
	p.stop = intake.Done()
	s.serveRequests(work, endWork, &g, p.refresher)
	p.pipeline.start(intake, work, &g, encoders[:s.cfg.Workers])
	g.Go(func() error { // the drain timeout
		select {
		case <-work.Done():
			return nil
		case <-ctx.Done():
		}
		timer := time.NewTimer(s.cfg.DrainTimeout)
		defer timer.Stop()
		select {
		case <-work.Done():
		case <-timer.C:
			endWork(errDrained)
		}
		return nil
	})
	err = p.run(work)
	if errors.Is(err, errDrained) {
		s.cfg.Log.Warn().Err(err).Msg("not everything that was read is committed; it is read again at the next start")
	}
	endIntake()
	endWork(nil)
	s.metrics.queueBytes.Set(0)
	if stopped := g.Wait(); err == nil {
		err = stopped
	}
	if err == nil {
		err = p.pipeline.readErr
	}
	return err
}

// encoders returns one encoder for each worker and one for the publisher.
func (s *Service) encoders(p *publisher) ([]*encoder, error) {
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, &finalError{err}
	}
	encoders := make([]*encoder, s.cfg.Workers+1)
	for i := range encoders {
		encoders[i] = &encoder{
			decoder: s.source.decoder(p.source, s.cfg.Select.Match),
			codec:   codec, topic: s.topics.Changes, partitions: p.producer.partitions,
			limit: p.producer.limits.Record(s.topics.Changes),
		}
	}
	return encoders, nil
}
