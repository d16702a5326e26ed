package main

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/capture"
	"github.com/tributarydb/tributary/internal/precheck"
)

// runCapture is `tributary capture`.
func runCapture(ctx context.Context, a *app, args []string) error {
	var f serviceFlags
	fs := a.flags("capture")
	f.register(fs)
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	p, err := newProcess(a, f)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := precheck.Brokers(ctx, p.kafka); err != nil {
		return err
	}
	if _, err := p.checkSource(ctx); err != nil {
		return err
	}
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	p.started(begin)
	return p.serve(ctx, capturePart())
}

func capturePart() part {
	return part{service: "capture", build: func(p *process, env environment) (runner, error) {
		selection, err := p.cfg.Selection()
		if err != nil {
			return nil, err
		}
		return capture.New(capture.Config{
			Pipeline: p.cfg.Name, Instance: env.instance, Kafka: p.kafka, Topics: p.topics, Source: p.source(),
			Select: selection, Mode: p.cfg.Source.Mode, CommitInterval: p.cfg.Capture.CommitInterval,
			CommitEvents: p.cfg.Capture.CommitEvents, QueueBytes: int64(p.cfg.Capture.Queue), Retry: p.retry(),
			Log: env.log, Registerer: env.registerer, Report: env.report,
		})
	}}
}
