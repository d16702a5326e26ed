package main

import "context"

// runAll is `tributary run`: every service of the pipeline in one process. Each
// goes on where it stood, as it does alone.
func runAll(ctx context.Context, a *app, args []string) error {
	return a.launch(ctx, a.flags("run"), args, func(ctx context.Context, p *process) ([]part, error) {
		parts := []part{capturePart()}
		if p.cfg.Loads() {
			parts = append(parts, snapshotPart())
		}
		for _, d := range p.cfg.Destinations {
			parts = append(parts, applyPart(d))
		}
		_, _, err := p.checkAll(ctx)
		return parts, err
	})
}
