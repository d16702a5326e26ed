package snapshot

import (
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
)

// mood turns the news of many goroutines into one status: retrying from the
// first failure until something gets done again. It is safe for concurrent use.
type mood struct {
	report *state.Reporter

	mu sync.Mutex
	// base is the state to go back to.
	base string
	// cause is why work is held back, empty while it is not.
	cause string
	// since is the first failure, zero while all is well.
	since time.Time
}

// retrying says that something failed and will be tried again.
func (m *mood) retrying(a retry.Attempt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = a.Since
	}
	m.report.Retrying(m.since, a.Until, a.Err.Error())
}

// well says that something got done.
func (m *mood) well() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.since.IsZero() {
		m.since = time.Time{}
		m.report.Set(m.base, m.cause)
	}
}

// running says that there is a run to work on.
func (m *mood) running() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base, m.since = state.StateRunning, time.Time{}
	m.report.Set(m.base, m.cause)
}

// held says what others work waits for; "" where it does not.
func (m *mood) held(cause string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cause == cause {
		return
	}
	m.cause = cause
	if m.since.IsZero() {
		m.report.Set(m.base, cause)
	}
}
