package main

import (
	"context"

	"github.com/tributarydb/tributary/capture"
)

// runCapture is `tributary capture`.
func runCapture(ctx context.Context, a *app, args []string) error {
	return a.launch(ctx, a.flags("capture"), args, func(ctx context.Context, p *process) ([]part, error) {
		return []part{capturePart()}, p.checkSource(ctx)
	})
}

func capturePart() part {
	return part{service: "capture", build: func(p *process, env environment) (runner, error) {
		selection, err := p.cfg.Selection()
		if err != nil {
			return nil, err
		}
		unique, err := p.cfg.EnforcesUnique()
		if err != nil {
			return nil, err
		}
		begin, err := p.cfg.FirstStart()
		if err != nil {
			return nil, err
		}
		service, err := capture.New(capture.Config{
			Start:    begin,
			Pipeline: p.cfg.Name, Instance: env.instance, Kafka: p.kafka, Topics: p.topics, Source: p.source(),
			MaxRetention: p.cfg.Kafka.StretchedRetention(), DropLoaded: p.cfg.Snapshot.RetainRuns == 0, LoadedBy: p.cfg.LoadingDocuments(),
			Select: selection, Patterns: p.cfg.Patterns(), EnforcesUnique: unique, Mode: p.cfg.Source.Mode,
			CatalogInterval: p.cfg.Source.CatalogInterval, CommitInterval: p.cfg.Capture.CommitInterval,
			CommitEvents: p.cfg.Capture.CommitEvents, QueueBytes: int64(p.cfg.Capture.Queue), Retry: p.retry(),
			Log: env.log, Registerer: env.registerer, Report: env.report,
		})
		if err != nil || !p.cfg.OneOff() {
			return service, err
		}
		return &untilLoaded{capture: service, process: p, log: env.log}, nil
	}}
}
