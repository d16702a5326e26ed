package capture

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
)

// loadedInterval is how often the active capture looks whether a full load can
// be deleted from Kafka: capture is the service that outlives a load.
const loadedInterval = 5 * time.Minute

// dropLoaded deletes what a complete run has left on the snapshot topic, once
// all have loaded it, until ctx ends. Failures are logged and made good by the
// next look.
func (s *Service) dropLoaded(ctx context.Context) {
	tick := time.NewTicker(loadedInterval)
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, retentionTimeout)
		run, err := state.DeleteLoaded(look, s.cfg.Kafka, s.topics, s.cfg.LoadedBy)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.cfg.Log.Warn().Err(err).Msg("the full load was not deleted from Kafka; it is tried again")
		case run != "":
			s.cfg.Log.Info().Str(logfield.Run, run).Str(logfield.Topic, s.topics.Snapshot).
				Msg("the full load was deleted from Kafka: every destination has loaded it")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
