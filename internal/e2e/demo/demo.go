package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/verify"
)

const (
	// pipelineName is the demo's.
	pipelineName = "demo"
	// renaming is the destination that has database shop under another name,
	// plain the one that has it as it is.
	renaming, plain = "eu", "us"
	// catchUpTimeout bounds the wait for a service to be where it should be.
	catchUpTimeout = 90 * time.Second
	// deadTime is how long a killed service stays away.
	deadTime = 2 * time.Second
)

// demo is one performance.
type demo struct {
	cfg    config
	dir    string
	screen *screen

	servers *stack.Servers
	source  *mongo.Client
	fleet   *stack.Fleet
	board   *board
	live    *workload.Live
	work    workload.Config
	report  report
}

// report is what the closing table tells.
type report struct {
	writing time.Duration
	kills   int
	results map[string]*verify.Result
	events  stack.Events
}

// play goes through the scenes.
func (d *demo) play(ctx context.Context) error {
	if err := d.startServers(ctx); err != nil {
		return err
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	if err := d.follow(ctx); err != nil {
		return err
	}
	if err := d.check(ctx); err != nil {
		return err
	}
	d.screen.print(d.table())
	if d.cfg.keep {
		d.screen.print(d.addresses())
		<-ctx.Done()
	}
	return d.verdict()
}

// startServers builds the program and starts the servers.
func (d *demo) startServers(ctx context.Context) error {
	if d.cfg.binary == "" {
		path, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
		if err != nil {
			return err
		}
		d.cfg.binary = path
	}
	d.screen.say("starting servers")
	servers, err := stack.StartServers(ctx, d.dir, d.cfg.engines, renaming, plain)
	if err != nil {
		return err
	}
	d.servers = servers
	d.screen.say("one broker (%s), a source and two destinations (%s) are up", servers.Kafka, servers.MongoDB)
	if d.cfg.engines == stack.Auto {
		for _, missing := range servers.Missing {
			d.screen.say("no real %s: %s", missing.Engine, missing.Remedy)
		}
	}
	return nil
}

// load fills the source.
func (d *demo) load(ctx context.Context) error {
	client, err := mongodb.Connect(ctx, mongodb.Options{URI: d.servers.Source, AppName: "demo"})
	if err != nil {
		return err
	}
	d.source = client
	d.work = workload.Config{
		Client: client, Seed: d.cfg.seed, Standin: d.servers.Standin(), DDL: true,
		Documents: d.cfg.documents, Rate: d.cfg.rate,
	}
	if d.work.Documents == 0 {
		d.work.Documents = 200_000
		if d.work.Standin {
			d.work.Documents = 20_000
		}
	}
	if d.work.Rate == 0 {
		d.work.Rate = 1500
		if d.work.Standin {
			d.work.Rate = 150
		}
	}
	d.screen.say("filling the source with %d documents (seed %d)", d.work.Documents, d.work.Seed)
	return workload.Load(ctx, d.work, func(n int64) {
		d.screen.show([]string{fmt.Sprintf("%d of %d documents", n, d.work.Documents)})
	})
}

// follow runs the pipeline while the source is being written to, kills services
// on the way, and stops writing at the end.
func (d *demo) follow(ctx context.Context) error {
	fleet, err := stack.NewFleet(d.dir, d.cfg.binary, stack.Pipeline{
		Name: pipelineName, Brokers: d.servers.Brokers, Source: d.servers.Source,
		Destinations: []stack.Destination{
			{Name: renaming, URI: d.servers.Destinations[renaming], Databases: map[string]string{"shop": "shop_eu"}},
			{Name: plain, URI: d.servers.Destinations[plain]},
		},
	})
	if err != nil {
		return err
	}
	d.fleet = fleet
	d.live = workload.NewLive(d.work)
	d.board = newBoard(fleet, d.live)
	started := time.Now()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.live.Run(writing) })
	g.Go(func() error {
		defer stopWriting()
		return d.script(ctx)
	})
	err = g.Wait()
	d.report.writing = time.Since(started)
	return err
}

// script is what happens to the services while the source is written to.
func (d *demo) script(ctx context.Context) error {
	d.screen.say("writing to the source, %d operations a second, and starting capture, snapshot and two applies", d.work.Rate)
	if err := d.fleet.Start(); err != nil {
		return err
	}
	if err := d.await(ctx, "both destinations to catch up", "capture", "apply-"+renaming, "apply-"+plain); err != nil {
		return err
	}
	d.screen.say("both destinations have caught up and follow")
	for _, victim := range []string{"capture", "apply-" + renaming} {
		if err := d.watch(ctx, d.cfg.writing/4); err != nil {
			return err
		}
		if err := d.kill(ctx, victim); err != nil {
			return err
		}
	}
	if err := d.watch(ctx, d.cfg.writing/2); err != nil {
		return err
	}
	d.screen.say("no more writes")
	return nil
}

// kill kills a service, lets it be dead for a while, and starts it again.
func (d *demo) kill(ctx context.Context, name string) error {
	m := d.fleet.Member(name)
	d.screen.say("kill -9 %s (pid %d)", name, m.PID())
	if err := m.Kill(); err != nil {
		return err
	}
	d.board.forget(name)
	d.report.kills++
	if err := d.watch(ctx, deadTime); err != nil {
		return err
	}
	d.screen.say("starting %s again", name)
	if err := m.Start(); err != nil {
		return err
	}
	return d.await(ctx, name+" to follow again", name)
}

// await shows what happens until the named services are running.
func (d *demo) await(ctx context.Context, what string, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpTimeout, fmt.Errorf("%s took longer than %s", what, catchUpTimeout))
	defer cancel()
	for {
		ready := true
		for _, name := range names {
			ready = ready && d.board.running(d.fleet.Member(name))
		}
		if ready {
			return nil
		}
		if err := d.watch(ctx, pollInterval); err != nil {
			return d.explain(err)
		}
	}
}

// explain adds the last lines of every service's log.
func (d *demo) explain(err error) error {
	for _, m := range d.fleet.Members {
		if tail := m.Tail(5); tail != "" {
			err = fmt.Errorf("%w\n--- %s\n%s", err, m.Name, tail)
		}
	}
	return err
}

// watch shows what happens for a while.
func (d *demo) watch(ctx context.Context, while time.Duration) error {
	end := time.NewTimer(while)
	defer end.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-end.C:
			d.board.poll(ctx)
			d.screen.show(d.board.lines())
			return d.fleet.Check()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		d.board.poll(ctx)
		d.screen.show(d.board.lines())
		if err := d.fleet.Check(); err != nil {
			return err
		}
	}
}

// check compares both destinations with the source and counts the events.
func (d *demo) check(ctx context.Context) error {
	d.screen.say("verifying both destinations")
	results := make([]*verify.Result, 2)
	g, verifying := errgroup.WithContext(ctx)
	for i, name := range []string{renaming, plain} {
		g.Go(func() (err error) {
			results[i], err = d.fleet.Verify(verifying, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return d.explain(err)
	}
	d.report.results = map[string]*verify.Result{renaming: results[0], plain: results[1]}
	d.board.poll(ctx)
	var err error
	d.report.events, err = stack.CountEvents(ctx, d.servers.Brokers, pipelineName)
	return err
}

// verdict is nil if both destinations are equal to the source.
func (d *demo) verdict() error {
	for _, name := range []string{renaming, plain} {
		if r := d.report.results[name]; r.Verdict != verify.Equal {
			return fmt.Errorf("destination %s: %s %s", name, r.Verdict, r.Cause)
		}
	}
	return nil
}

// stop ends everything that was started.
func (d *demo) stop(ctx context.Context) error {
	var errs []error
	if d.fleet != nil {
		errs = append(errs, d.fleet.Kill())
	}
	if d.source != nil {
		errs = append(errs, d.source.Disconnect(ctx))
	}
	if d.servers != nil {
		errs = append(errs, d.servers.Stop())
	}
	return errors.Join(errs...)
}
