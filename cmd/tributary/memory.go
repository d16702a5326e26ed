package main

import (
	"runtime/debug"

	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/snapshot"
)

// What a process takes beside the queues of its services. The queues count
// twice: for what the collector has not freed yet, and for what the stages
// behind them hold of the same events.
const (
	memoryOfProcess = 64 << 20
	// memoryOfService is the clients' buffers: a cursor's replies, fetches and
	// batches under way, their compression.
	memoryOfService = 128 << 20
)

// memoryShare is the part of the limit that Go's own count may reach; the rest
// is the program's text and what the system keeps for it.
const memoryShare = 0.85

// limitMemory has the collector keep the process under what the configuration
// gives its parts, unless the operator set GOMEMLIMIT, and says what that is.
func (p *process) limitMemory(parts []part) {
	var limit int64 = memoryOfProcess
	for _, part := range parts {
		limit += memoryOfService + 2*part.queue(p.cfg)
	}
	log := p.log.Info().Int64(logfield.MemoryLimit, limit)
	if _, set := p.app.env("GOMEMLIMIT"); set {
		log.Msg("GOMEMLIMIT says how much memory the process may take, not the configuration's queues")
		return
	}
	debug.SetMemoryLimit(int64(memoryShare * float64(limit)))
	log.Msg("the configuration's queues limit the process's memory")
}

// queue is how many bytes the part's queues may hold.
func (p part) queue(cfg *config.Config) int64 {
	switch p.service {
	case "capture":
		return int64(cfg.Capture.Queue)
	case "snapshot":
		return int64(cfg.Snapshot.Workers) * snapshot.DefaultQueueBytes
	}
	for _, d := range cfg.Destinations {
		if d.Name == p.destination {
			return int64(d.Queue)
		}
	}
	return 0
}
