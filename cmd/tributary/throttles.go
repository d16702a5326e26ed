package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
)

// throttles are the limiters of one process. They hold what is configured until
// the state topic says otherwise. After New, one goroutine changes them.
type throttles struct {
	log zerolog.Logger
	// limiters and configured are by the name of the limits.
	limiters   map[string]*throttle.Limiter
	configured map[string]throttle.Limits
	// statuses are the services that have said something, by key.
	statuses map[string]state.Status
}

// throttleNames lists the limits of a pipeline in the order of its file.
func throttleNames(cfg *config.Config) []string {
	names := []string{state.ThrottleSource}
	for _, d := range cfg.Destinations {
		names = append(names, state.ThrottleLoad(d.Name), state.ThrottleChanges(d.Name))
	}
	return names
}

// configuredLimits are those of the file, by name.
func configuredLimits(cfg *config.Config) map[string]throttle.Limits {
	limits := map[string]throttle.Limits{state.ThrottleSource: cfg.Source.Throttle.Limits()}
	for _, d := range cfg.Destinations {
		limits[state.ThrottleLoad(d.Name)] = d.Throttle.Load.Limits()
		limits[state.ThrottleChanges(d.Name)] = d.Throttle.Changes.Limits()
	}
	return limits
}

func newThrottles(cfg *config.Config, log zerolog.Logger) *throttles {
	t := &throttles{log: log, limiters: map[string]*throttle.Limiter{}, configured: configuredLimits(cfg), statuses: map[string]state.Status{}}
	for name, limits := range t.configured {
		t.limiters[name] = throttle.New(limits)
	}
	return t
}

// follow obeys the state topic until ctx ends. Where it cannot be read for as
// long as retries last, the services cannot work either: that is theirs to say.
func (t *throttles) follow(ctx context.Context, cfg kafka.Config, topic string, policy retry.Policy) error {
	policy.OnRetry = nil
	err := policy.Loop(ctx, kafka.Classify, func(ctx context.Context, alive func()) error {
		return state.Watch(ctx, cfg, topic, func(key string, value []byte) error {
			alive()
			return t.apply(key, value, time.Now())
		})
	})
	if err != nil && ctx.Err() == nil {
		t.log.Error().Err(err).Msg("limits are no longer followed; those in force stay")
	}
	return nil
}

// apply takes over one record of the state topic.
func (t *throttles) apply(key string, value []byte, now time.Time) error {
	if name, ok := state.IsThrottle(key); ok {
		return t.set(name, value)
	}
	if !state.IsStatus(key) {
		return nil
	}
	delete(t.statuses, key)
	if value != nil {
		var s state.Status
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("decode state record key=%s: %w", key, err)
		}
		t.statuses[key] = s
	}
	t.share(now)
	return nil
}

// set obeys what the operator has set, or removed.
func (t *throttles) set(name string, value []byte) error {
	limiter, known := t.limiters[name]
	if !known {
		return nil // of a destination that is no longer configured
	}
	var set state.Throttle
	if value != nil {
		if err := json.Unmarshal(value, &set); err != nil {
			return fmt.Errorf("decode throttle %s: %w", name, err)
		}
	}
	limits := set.Over(t.configured[name])
	if limits != limiter.Limits() {
		t.log.Info().Str(logfield.Reason, "tributary throttle").Msgf("limits of %s are now: %s", name, limitsText(limits, name))
	}
	limiter.Set(limits)
	return nil
}

// share divides the limits by the processes that work on the same thing.
func (t *throttles) share(now time.Time) {
	counts := t.sharers(now)
	for name, limiter := range t.limiters {
		limiter.Share(counts[name])
	}
}

// sharers counts the processes that take part of each limit.
func (t *throttles) sharers(now time.Time) map[string]int {
	counts := map[string]int{}
	for _, s := range t.statuses {
		if hasEnded(s) || silent(s, now) {
			continue
		}
		switch s.Service {
		case "snapshot":
			counts[state.ThrottleSource]++
		case "apply":
			counts[state.ThrottleLoad(s.Destination)]++
			counts[state.ThrottleChanges(s.Destination)]++
		}
	}
	return counts
}

// limitsText says limits for people. Changes count operations.
func limitsText(l throttle.Limits, name string) string {
	if l.Unlimited() {
		return "unlimited"
	}
	documents := "documents"
	if strings.HasPrefix(name, state.ThrottleChanges("")) {
		documents = "operations"
	}
	var list []string
	if l.Queries > 0 {
		list = append(list, fmt.Sprintf("%d queries/s", l.Queries))
	}
	if l.Documents > 0 {
		list = append(list, fmt.Sprintf("%d %s/s", l.Documents, documents))
	}
	if l.Bytes > 0 {
		list = append(list, config.Bytes(l.Bytes).String()+"/s")
	}
	return strings.Join(list, ", ")
}
