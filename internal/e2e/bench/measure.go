package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
)

// measurement is what services did between a twentieth and nineteen twentieths
// of a backlog: how long groups take to form is not in it.
type measurement struct {
	// rate is in events per second, megabytes in 10^6 bytes per second.
	rate, megabytes float64
	processes       []usage
	events          float64
}

// usage is what a process took.
type usage struct {
	name string
	// seconds of processor time within the window, over all of the events.
	seconds float64
	// resident is the most memory seen, in bytes.
	resident float64
}

// cpu lists the seconds for a million events of each process.
func (m *measurement) cpu() string {
	var parts []string
	for _, u := range m.processes {
		parts = append(parts, fmt.Sprintf("%s %.1f", u.name, u.seconds/m.events*1e6))
	}
	return strings.Join(parts, ", ")
}

// memory lists the most memory of each process.
func (m *measurement) memory() string {
	var parts []string
	for _, u := range m.processes {
		parts = append(parts, fmt.Sprintf("%s %.0f MB", u.name, u.resident/1e6))
	}
	return strings.Join(parts, ", ")
}

// point is what a process has said of itself.
type point struct {
	at     time.Time
	values map[string]float64
}

// measure watches a service, and others beside it, until it has done as many
// events as a fill has documents. The service's counters begin at zero.
func (b *bench) measure(ctx context.Context, m *stack.Member, events, bytes string, beside ...*stack.Member) (*measurement, error) {
	members := append([]*stack.Member{m}, beside...)
	total := float64(b.cfg.documents)
	result := &measurement{}
	first, last := make([]point, len(members)), make([]point, len(members))
	for _, member := range members {
		result.processes = append(result.processes, usage{name: member.Name})
	}
	stalled := &stall{}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if err := b.fleet.Check(); err != nil {
			return nil, err
		}
		now := make([]point, len(members))
		for i, member := range members {
			// A service that has just started does not answer yet.
			if values, err := member.Metrics(ctx); err == nil {
				now[i] = point{time.Now(), values}
				result.processes[i].resident = max(result.processes[i].resident, values[residentBytes])
			}
		}
		done := now[0].values[events]
		if err := stalled.check(m, done, total); err != nil {
			return nil, err
		}
		if done >= total/20 && now[len(now)-1].values != nil {
			if first[0].values == nil {
				first = now
			}
			last = now
		}
		if done >= total*19/20 && last[0].at.After(first[0].at) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("measure %s at %.0f of %.0f events: %w", m.Name, done, total, context.Cause(ctx))
		}
	}
	seconds := last[0].at.Sub(first[0].at).Seconds()
	result.events = last[0].values[events] - first[0].values[events]
	result.rate = result.events / seconds
	result.megabytes = (last[0].values[bytes] - first[0].values[bytes]) / 1e6 / seconds
	for i := range members {
		result.processes[i].seconds = last[i].values[cpuSeconds] - first[i].values[cpuSeconds]
	}
	return result, b.drain(ctx, m, events, total)
}

// drain waits until a service has done all of a backlog.
func (b *bench) drain(ctx context.Context, m *stack.Member, events string, total float64) error {
	stalled := &stall{}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		done, _, err := m.Metric(ctx, events)
		if err == nil && done >= total {
			return nil
		}
		if err := stalled.check(m, done, total); err != nil {
			return err
		}
		if err := b.fleet.Check(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", m.Name, context.Cause(ctx))
		}
	}
}

// stallTime is how long a service may make no progress.
const stallTime = time.Minute

// stall notices a service that makes no progress.
type stall struct {
	done  float64
	since time.Time
}

func (s *stall) check(m *stack.Member, done, total float64) error {
	if done != s.done || s.since.IsZero() {
		s.done, s.since = done, time.Now()
	}
	if time.Since(s.since) > stallTime {
		return fmt.Errorf("measure %s: at %.0f of %.0f events for %s:\n%s", m.Name, done, total, stallTime, m.Tail(30))
	}
	return nil
}
