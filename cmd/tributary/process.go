package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/admin"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"golang.org/x/sync/errgroup"
)

// serviceFlags are those of every command that runs services.
type serviceFlags struct{ config, http, instance string }

func (f *serviceFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.config, "config", "", "`FILE` that describes the pipeline (required)")
	fs.StringVar(&f.http, "http", "", "`ADDRESS` for /metrics, /healthz, /readyz and /status, instead of http.address; off for none")
	fs.StringVar(&f.instance, "instance", "", "`NAME` of this process in status and logs (default: the host's name)")
}

// process is what the services of one process share.
type process struct {
	app      *app
	cfg      *config.Config
	instance string
	address  string
	log      zerolog.Logger
	kafka    kafka.Config
	topics   kafka.TopicSpec
	registry *prometheus.Registry
	limits   *throttles
}

// newProcess reads the configuration and makes what derives from it. Nothing is
// connected.
func newProcess(a *app, f serviceFlags) (*process, error) {
	cfg, err := a.load(f.config)
	if err != nil {
		return nil, err
	}
	p := &process{app: a, cfg: cfg, instance: f.instance, address: cfg.HTTP.Address, registry: prometheus.NewRegistry()}
	if p.instance == "" {
		if p.instance, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("ask for the host's name: %w: hint: give -instance NAME", err)
		}
	}
	if f.http != "" {
		p.address = f.http
	}
	if p.log, err = a.logger(cfg.Log); err != nil {
		return nil, err
	}
	p.log = p.log.With().Str(logfield.Pipeline, cfg.Name).Logger()
	for _, w := range cfg.Warnings() {
		p.log.Warn().Msg(w)
	}
	if p.kafka, err = kafkaConfig(cfg, p.log); err != nil {
		return nil, err
	}
	p.topics = topicSpec(cfg)
	p.limits = newThrottles(cfg, p.log)
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return p, nil
}

// launch is what the commands of services have in common: read flags and
// configuration, check with prepare what the services need, create the topics,
// run. Prepare returns what to run.
func (a *app) launch(ctx context.Context, fs *flag.FlagSet, args []string, prepare func(context.Context, *process) ([]part, error)) error {
	var f serviceFlags
	f.register(fs)
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	p, err := newProcess(a, f)
	if err != nil {
		return err
	}
	begin := time.Now()
	parts, err := prepare(ctx, p)
	if err != nil {
		return err
	}
	// A status can be published from here on.
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	p.log.Info().Str(logfield.Version, a.version).Str(logfield.Instance, p.instance).
		Stringer("checked_in", time.Since(begin).Round(time.Millisecond)).Msg("everything that the configuration names was checked")
	return p.serve(ctx, parts...)
}

// load reads the configuration that -config names.
func (a *app) load(path string) (*config.Config, error) {
	if path == "" {
		return nil, usageError("no configuration is given: hint: add -config FILE; `tributary config example` prints one to start from")
	}
	cfg, err := config.Load(path, a.env)
	if err != nil && errors.Is(err, os.ErrNotExist) {
		return nil, usageError(err.Error())
	}
	return cfg, err
}

// logger writes to stderr; console lines for people, JSON for machines.
func (a *app) logger(cfg config.Log) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		return zerolog.Logger{}, fmt.Errorf("set log level: %w", err)
	}
	if cfg.Format == config.FormatJSON {
		return zerolog.New(a.stderr).Level(level).With().Timestamp().Logger(), nil
	}
	console := zerolog.ConsoleWriter{Out: a.stderr, NoColor: true, TimeFormat: "15:04:05.000"}
	return zerolog.New(console).Level(level).With().Timestamp().Logger(), nil
}

func kafkaConfig(cfg *config.Config, log zerolog.Logger) (kafka.Config, error) {
	tls, err := cfg.Kafka.TLSConfig()
	if err != nil {
		return kafka.Config{}, fmt.Errorf("configure kafka.tls: %w", err)
	}
	mechanism, err := cfg.Kafka.SASLMechanism()
	if err != nil {
		return kafka.Config{}, fmt.Errorf("configure kafka.sasl: %w", err)
	}
	return kafka.Config{Brokers: cfg.Kafka.Brokers, TLS: tls, SASL: mechanism, Log: log, ClientID: "tributary." + cfg.Name}, nil
}

func topicSpec(cfg *config.Config) kafka.TopicSpec {
	return kafka.TopicSpec{
		Partitions: int32(cfg.Kafka.Partitions), SnapshotPartitions: int32(cfg.Kafka.SnapshotPartitions),
		ReplicationFactor: int16(cfg.Kafka.ReplicationFactor), MinInsyncReplicas: cfg.Kafka.MinInsyncReplicas,
		SnapshotDisk: int64(cfg.Kafka.SnapshotDisk), Retention: cfg.Kafka.Retention,
	}
}

func (p *process) retry() retry.Policy {
	return retry.Policy{Connection: p.cfg.Retry.Connection, Other: p.cfg.Retry.Other}
}

// ensureTopics creates and checks the topics.
func (p *process) ensureTopics(ctx context.Context) error {
	return kafka.PrepareTopics(ctx, p.kafka, route.TopicsOf(p.cfg.Name), p.topics)
}

// part is a service to run in the process.
type part struct {
	service, destination string
	build                func(*process, environment) (runner, error)
}

// environment is what a part gets for itself.
type environment struct {
	instance   string
	log        zerolog.Logger
	registerer prometheus.Registerer
	report     *state.Reporter
}

// runner is any of the three services.
type runner interface {
	Run(ctx context.Context) error
}

// serve runs parts until all of them have ended. One that fails stops the
// others; one that finishes does not. Order of the end: services drain and
// commit, then reporters publish the last status, then the HTTP server stops,
// so that both can be asked until nothing more happens.
func (p *process) serve(ctx context.Context, parts ...part) error {
	var reporters []*state.Reporter
	statuses := func() []state.Status {
		list := make([]state.Status, len(reporters))
		for i, r := range reporters {
			list[i] = r.Status()
		}
		return list
	}
	server, err := p.listen(ctx, statuses)
	if err != nil {
		return err
	}
	p.limitMemory(parts)
	var services []runner
	if reporters, services, err = p.build(parts); err != nil {
		return errors.Join(err, server.Close())
	}
	var background, showing errgroup.Group
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	working, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, r := range reporters {
		background.Go(func() error { return r.Run(after) })
	}
	background.Go(func() error { return p.limits.follow(after, p.kafka, route.TopicsOf(p.cfg.Name).State, p.retry()) })
	background.Go(func() error {
		err := server.Run(after)
		fail(err) // without it nobody sees what happens: stop
		return err
	})
	showing.Go(func() error { return p.newDisplay(statuses).run(after) })
	g, working := errgroup.WithContext(working)
	for i, s := range services {
		g.Go(func() error {
			err := s.Run(working)
			p.log.Info().Str(logfield.Service, parts[i].label()).Msg("service has ended")
			return err
		})
	}
	err = g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // a stop that was asked for is no failure
	}
	end()
	err = errors.Join(err, showing.Wait()) // the block stands before anything is printed below it
	if err == nil {
		err = p.tellOutcomes(ctx, parts, services)
	}
	if serving := background.Wait(); serving != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return serving // it is why the services were stopped
	}
	return err
}

// closeAll ends reporters that have not run: they publish once, which closes
// their producers.
func closeAll(reporters []*state.Reporter) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var all []error
	for _, r := range reporters {
		all = append(all, r.Run(ctx))
	}
	return errors.Join(all...)
}

// label is "capture" or "apply replica".
func (p part) label() string {
	if p.destination == "" {
		return p.service
	}
	return p.service + " " + p.destination
}

// build makes reporter and service of every part.
func (p *process) build(parts []part) ([]*state.Reporter, []runner, error) {
	labels := prometheus.Labels{"pipeline": p.cfg.Name}
	for name, value := range p.cfg.Labels {
		labels[name] = value
	}
	var (
		reporters []*state.Reporter
		services  []runner
	)
	for _, part := range parts {
		instance := p.instance
		log := p.log.With().Str(logfield.Service, part.service)
		if part.destination != "" {
			instance += "/" + part.destination // a process may hold several
			log = log.Str(logfield.Destination, part.destination)
		}
		env := environment{instance: instance, log: log.Logger(), registerer: prometheus.WrapRegistererWith(labels, p.registry)}
		var err error
		env.report, err = state.NewReporter(state.ReporterConfig{
			Kafka: p.kafka, Topic: route.TopicsOf(p.cfg.Name).State, Log: env.log,
			Status: state.Status{Service: part.service, Instance: instance, Destination: part.destination, Version: p.app.version, LagSeconds: -1},
		})
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(reporters))
		}
		reporters = append(reporters, env.report)
		s, err := part.build(p, env)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(reporters))
		}
		services = append(services, s)
	}
	return reporters, services, nil
}

// listen takes the address for HTTP; the server answers once it runs.
func (p *process) listen(ctx context.Context, statuses func() []state.Status) (*admin.Server, error) {
	cfg := admin.Config{Address: p.address, Gatherer: p.registry, Statuses: statuses, Log: p.log}
	if p.address == config.AddressOff {
		cfg.Address = ""
	}
	return admin.Listen(ctx, cfg)
}
