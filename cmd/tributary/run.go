package main

import (
	"context"
	"time"
)

// runAll is `tributary run`: every service of the pipeline in one process. Each
// goes on where it stood, as it does alone.
func runAll(ctx context.Context, a *app, args []string) error {
	var f serviceFlags
	fs := a.flags("run")
	f.register(fs)
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	p, err := newProcess(a, f)
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, _, err := p.checkAll(ctx); err != nil {
		return err
	}
	if err := p.ensureTopics(ctx); err != nil {
		return err
	}
	p.started(begin)
	parts := []part{capturePart(), snapshotPart()}
	for _, d := range p.cfg.Destinations {
		parts = append(parts, applyPart(d))
	}
	return p.serve(ctx, parts...)
}
