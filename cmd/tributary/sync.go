package main

import (
	"fmt"

	"github.com/tributarydb/tributary/internal/config"
)

// checkSync refuses what the configuration may ask for and this version does not
// do yet.
func checkSync(cfg *config.Config) error {
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		if d.Loads() && !(d.Syncs(config.SyncSchema) && d.Syncs(config.SyncFull) && d.Syncs(config.SyncIncremental)) || !d.Loads() {
			return usageError(fmt.Sprintf("synchronise destination %s by %v: this version cannot do that yet: hint: remove the key sync", d.Name, d.Sync))
		}
	}
	return nil
}
