package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/capture"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"golang.org/x/sync/errgroup"
)

// syncOf is what apply does of a destination's types of synchronisation.
func syncOf(d config.Destination) apply.Sync {
	return apply.Sync{Schema: d.Syncs(config.SyncSchema), Full: d.Syncs(config.SyncFull), Incremental: d.Syncs(config.SyncIncremental)}
}

// tellOutcomes prints how one-off copies have ended.
func (p *process) tellOutcomes(ctx context.Context, parts []part, services []runner) error {
	ends := false
	for i, s := range services {
		copied, ok := s.(*apply.Service)
		if !ok {
			continue
		}
		if o, ended := copied.Outcome(); ended {
			ends = true
			if err := p.app.print(fmt.Sprintf("destination %s: complete; %s\n", parts[i].destination, o.Text)); err != nil {
				return err
			}
		}
	}
	if ends && p.cfg.OneOff() && p.cfg.Snapshot.RetainRuns == 0 {
		p.dropLoaded(ctx)
	}
	return nil
}

// dropTimeout bounds the end of a one-off copy.
const dropTimeout = time.Minute

// dropLoaded deletes from Kafka what a one-off copy has loaded, if this was the
// last destination: elsewhere capture does it, which has ended here.
func (p *process) dropLoaded(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	topics := route.TopicsOf(p.cfg.Name)
	run, err := state.DeleteLoaded(ctx, p.kafka, topics, p.cfg.LoadingDocuments())
	switch {
	case err != nil:
		p.log.Warn().Err(err).Msg("the full load was not deleted from Kafka")
	case run != "":
		p.log.Info().Str(logfield.Run, run).Str(logfield.Topic, topics.Snapshot).Msg("the full load was deleted from Kafka: every destination has loaded it")
	}
}

// errLoaded ends capture when nobody follows the changes after the load.
var errLoaded = errors.New("the load is complete, and no destination follows changes")

// untilLoaded is capture for a pipeline of one-off copies: a load needs the
// changes that come while it is made, and nobody those after it.
type untilLoaded struct {
	capture *capture.Service
	process *process
	log     zerolog.Logger
}

// Run captures until ctx ends or the latest run of snapshot has ended.
func (u *untilLoaded) Run(ctx context.Context) error {
	working, end := context.WithCancelCause(ctx)
	defer end(nil)
	g, working := errgroup.WithContext(working)
	g.Go(func() error {
		defer end(nil)
		return u.capture.Run(working)
	})
	g.Go(func() error {
		err := u.watch(working)
		if errors.Is(err, errLoaded) {
			u.log.Info().Msg("capture ends: " + errLoaded.Error())
			end(err)
			return nil
		}
		if working.Err() != nil {
			return nil
		}
		return err
	})
	return g.Wait()
}

// watch returns errLoaded when the latest run has ended.
func (u *untilLoaded) watch(ctx context.Context) error {
	topic := route.TopicsOf(u.process.cfg.Name).State
	judge := func(err error) retry.Verdict {
		if errors.Is(err, errLoaded) {
			return retry.Stop
		}
		return kafka.Classify(err)
	}
	return u.process.retry().Loop(ctx, judge, func(ctx context.Context, alive func()) error {
		runs := state.NewView()
		err := state.Watch(ctx, u.process.kafka, topic, func(key string, value []byte) error {
			alive()
			if !state.IsRun(key) {
				return nil
			}
			if err := runs.Apply(key, value); err != nil {
				return err
			}
			if m, ok := runs.LatestRun(); ok && m.State != state.RunLoading {
				return errLoaded
			}
			return nil
		})
		return err
	})
}
