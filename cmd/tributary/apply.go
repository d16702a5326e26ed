package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/precheck"
)

// runApply is `tributary apply`.
func runApply(ctx context.Context, a *app, args []string) error {
	var (
		f           serviceFlags
		destination string
	)
	fs := a.flags("apply")
	f.register(fs)
	fs.StringVar(&destination, "destination", "", "`NAME` of the destination to write (required where there are several)")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	p, err := newProcess(a, f)
	if err != nil {
		return err
	}
	d, err := pick(p.cfg, "apply", destination)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := precheck.Brokers(ctx, p.kafka); err != nil {
		return err
	}
	if _, err := p.checkDestination(ctx, d); err != nil {
		return err
	}
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	p.started(begin)
	return p.serve(ctx, applyPart(d))
}

// pick returns the destination that a flag names; the flag may be left out
// where there is only one.
func pick(cfg *config.Config, command, name string) (config.Destination, error) {
	if name == "" && len(cfg.Destinations) == 1 {
		return cfg.Destinations[0], nil
	}
	if name == "" {
		var known []string
		for _, d := range cfg.Destinations {
			known = append(known, d.Name)
		}
		return config.Destination{}, usageError(fmt.Sprintf("%s: no destination is named: hint: add -destination with one of %s", command, strings.Join(known, ", ")))
	}
	d, err := cfg.Destination(name)
	if err != nil {
		return config.Destination{}, usageError(fmt.Sprintf("%s: %v", command, err))
	}
	return d, nil
}

func applyPart(d config.Destination) part {
	return part{service: "apply", destination: d.Name, build: func(p *process, env environment) (runner, error) {
		rules, err := p.cfg.Rules(d)
		if err != nil {
			return nil, err
		}
		digest, err := p.cfg.RulesDigest(d)
		if err != nil {
			return nil, err
		}
		return apply.New(apply.Config{
			Pipeline: p.cfg.Name, Instance: env.instance, Destination: d.Name, Kafka: p.kafka, Topics: p.topics,
			Target: p.target(d), Rules: rules, RulesDigest: digest, ExactlyOnce: d.ExactlyOnce,
			BatchEvents: d.BatchDocuments, BatchBytes: int64(d.BatchBytes), QueueBytes: int64(d.Queue), Retry: p.retry(),
			Log: env.log, Registerer: env.registerer, Report: env.report,
		})
	}}
}
