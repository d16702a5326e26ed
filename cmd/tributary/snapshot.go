package main

import (
	"context"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/snapshot"
)

// runSnapshot is `tributary snapshot`.
func runSnapshot(ctx context.Context, a *app, args []string) error {
	return a.launch(ctx, a.flags("snapshot"), args, func(ctx context.Context, p *process) ([]part, error) {
		if !p.cfg.Loads() {
			return nil, usageError("snapshot: no destination takes part in a load: hint: nothing is to be done; add schema or full to a destination's sync where it is wanted")
		}
		return []part{snapshotPart()}, p.checkSource(ctx)
	})
}

func snapshotPart() part {
	return part{service: "snapshot", build: func(p *process, env environment) (runner, error) {
		selection, err := p.cfg.Selection()
		if err != nil {
			return nil, err
		}
		preference, err := p.cfg.Snapshot.ReadFrom()
		if err != nil {
			return nil, err
		}
		disk := int64(p.cfg.Kafka.SnapshotDisk)
		if p.cfg.Snapshot.RetainRuns > 0 {
			disk = 0 // what is kept cannot make room
		}
		return snapshot.New(snapshot.Config{
			DiskBytes: disk, Destinations: p.cfg.LoadingDocuments(),
			Pipeline: p.cfg.Name, Instance: env.instance, Kafka: p.kafka, Topics: p.topics, Source: p.source(),
			Select: selection, Patterns: p.cfg.Patterns(), WithoutDocuments: !p.cfg.LoadsDocuments(), OneOff: p.cfg.OneOff(), BatchBytes: int(p.cfg.Snapshot.Batch), ChunkBytes: int64(p.cfg.Snapshot.Chunk),
			ChunkDocuments: int64(p.cfg.Snapshot.ChunkDocuments), Workers: p.cfg.Snapshot.Workers, Retry: p.retry(),
			Throttle:       p.limits.limiters[state.ThrottleSource],
			ReadPreference: preference, Log: env.log, Registerer: env.registerer, Report: env.report,
		})
	}}
}
