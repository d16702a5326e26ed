package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/state"
)

// pollInterval is how often the services are asked how they are.
const pollInterval = 250 * time.Millisecond

// board holds what the services say of themselves.
type board struct {
	fleet *stack.Fleet
	live  *workload.Live

	mu    sync.Mutex
	faces map[string]*face
}

// face is what is known of one service, over all its lives.
type face struct {
	status state.Status
	// answered says that the process that runs now has answered.
	answered bool
	// counted is what earlier lives had counted, last what the present one
	// has, both by name.
	counted, last map[string]int64
	maxLag        float64
}

func newBoard(fleet *stack.Fleet, live *workload.Live) *board {
	b := &board{fleet: fleet, live: live, faces: map[string]*face{}}
	for _, m := range fleet.Members {
		b.faces[m.Name] = &face{counted: map[string]int64{}, last: map[string]int64{}}
	}
	return b
}

// poll asks every service once.
func (b *board) poll(ctx context.Context) {
	for _, m := range b.fleet.Members {
		status, err := m.Status(ctx)
		b.mu.Lock()
		f := b.faces[m.Name]
		if f.answered = err == nil; f.answered {
			f.take(status)
		}
		b.mu.Unlock()
	}
}

func (f *face) take(status state.Status) {
	f.status = status
	for name, value := range status.Detail {
		if value < f.last[name] {
			f.counted[name] += f.last[name]
		}
		f.last[name] = value
	}
	if status.State == state.StateRunning {
		f.maxLag = max(f.maxLag, status.LagSeconds)
	}
}

func (f *face) total(name string) int64 { return f.counted[name] + f.last[name] }

// forget makes a service that was killed unknown until it answers again.
func (b *board) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faces[name].answered = false
	b.faces[name].status = state.Status{}
}

// running reports whether a service says that it is, and that it has come to
// the changes if it applies.
func (b *board) running(m *stack.Member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.faces[m.Name]
	following := m.Destination == "" || f.status.Phase == state.PhaseChanges
	return f.answered && f.status.State == state.StateRunning && following
}

// maxLag is the longest lag, in seconds, that a service has reported while it
// was running.
func (b *board) maxLag(name string) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faces[name].maxLag
}

// lines describe the present.
func (b *board) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.live.Stats()
	lines := []string{fmt.Sprintf("writer: %d inserts, %d updates, %d deletes, %d transactions, %d definitions",
		s.Inserts, s.Updates, s.Deletes, s.Transactions, s.DDL)}
	for _, m := range b.fleet.Members {
		lines = append(lines, m.Name+": "+b.faces[m.Name].describe(m))
	}
	return lines
}

func (f *face) describe(m *stack.Member) string {
	switch {
	case !m.Running() && m.Name == "snapshot" && f.status.State != "":
		return "finished"
	case !m.Running():
		return "killed"
	case !f.answered:
		return "starting"
	case m.Name == "capture":
		return fmt.Sprintf("%s, %d events, %s", f.status.State, f.total("events"), f.lag())
	case m.Name == "snapshot":
		return fmt.Sprintf("%s, %d of %d chunks, %d documents", f.status.State,
			f.status.Detail["chunks_done"], f.status.Detail["chunks_total"], f.status.Detail["documents"])
	}
	return fmt.Sprintf("%s (%s), %d documents, %d events, %s", f.status.State, f.status.Phase,
		f.total("documents"), f.total("events"), f.lag())
}

func (f *face) lag() string {
	if f.status.LagSeconds < 0 {
		return "lag not known yet"
	}
	return fmt.Sprintf("lag %.1f s", f.status.LagSeconds)
}
