package main

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/snapshot"
)

// runSnapshot is `tributary snapshot`.
func runSnapshot(ctx context.Context, a *app, args []string) error {
	var f serviceFlags
	fs := a.flags("snapshot")
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
	return p.serve(ctx, snapshotPart())
}

func snapshotPart() part {
	return part{service: "snapshot", build: func(p *process, env environment) (runner, error) {
		selection, err := p.cfg.Selection()
		if err != nil {
			return nil, err
		}
		return snapshot.New(snapshot.Config{
			Pipeline: p.cfg.Name, Instance: env.instance, Kafka: p.kafka, Topics: p.topics, Source: p.source(),
			Select: selection, BatchBytes: int(p.cfg.Snapshot.Batch), ChunkBytes: int64(p.cfg.Snapshot.Chunk),
			ChunkDocuments: int64(p.cfg.Snapshot.ChunkDocuments), Workers: p.cfg.Snapshot.Workers, Retry: p.retry(),
			Log: env.log, Registerer: env.registerer, Report: env.report,
		})
	}}
}
