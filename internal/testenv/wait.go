package testenv

import (
	"context"
	"testing"
	"time"
)

// pollInterval is how often Eventually looks.
const pollInterval = 10 * time.Millisecond

// Eventually waits until condition returns nil and fails the test with its last
// error if that takes longer than timeout.
func Eventually(t testing.TB, timeout time.Duration, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not fulfilled within %s: %v", timeout, err)
		}
	}
}
