package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/state"
)

// runApply is `tributary apply`.
func runApply(ctx context.Context, a *app, args []string) error {
	fs := a.flags("apply")
	name := fs.String("destination", "", "`NAME` of the destination to write (required where there are several)")
	return a.launch(ctx, fs, args, func(ctx context.Context, p *process) ([]part, error) {
		d, err := pick(p.cfg, "apply", *name)
		if err != nil {
			return nil, err
		}
		return []part{applyPart(d)}, p.checkDestination(ctx, d)
	})
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
		fixed, err := p.cfg.FixedDigest(d)
		if err != nil {
			return nil, err
		}
		begin, err := d.StartTime()
		if err != nil {
			return nil, err
		}
		sharding, err := shardingOf(d)
		if err != nil {
			return nil, err
		}
		return apply.New(apply.Config{
			Start:    begin,
			Pipeline: p.cfg.Name, Instance: env.instance, Destination: d.Name, Kafka: p.kafka, Topics: p.topics,
			Target: p.target(d), Rules: rules, RulesDigest: digest, Select: p.cfg.Layers(d), FixedDigest: fixed, Sharding: sharding, Sync: syncOf(d), ExactlyOnce: d.ExactlyOnce, OnError: d.OnError, Conflicts: d.Conflicts, IndexBuilds: d.IndexBuilds,
			BatchEvents: d.BatchDocuments, BatchBytes: int64(d.BatchBytes), QueueBytes: int64(d.Queue), Retry: p.retry(),
			LoadThrottle: p.limits.limiters[state.ThrottleLoad(d.Name)], ChangesThrottle: p.limits.limiters[state.ThrottleChanges(d.Name)],
			Log: env.log, Registerer: env.registerer, Report: env.report,
		})
	}}
}
