package testenv

import (
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

const (
	// pollInterval is how often Eventually looks.
	pollInterval = 10 * time.Millisecond
	// stuckGrace is how much longer than its timeout a single look of
	// Eventually may take before the test is ended.
	stuckGrace = 30 * time.Second
)

// Eventually waits until condition returns nil and fails the test with its last
// error if that takes longer than timeout. A condition that does not return at
// all fails the test too, with what every goroutine does.
func Eventually(t testing.TB, timeout time.Duration, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	deadline := time.Now().Add(timeout + stuckGrace)
	for {
		looked := make(chan error, 1)
		go func() {
			defer close(looked) // also when condition ends the test
			looked <- condition()
		}()
		err, returned := Receive(t, time.Until(deadline), "a condition", looked)
		switch {
		case !returned:
			t.FailNow()
		case err == nil:
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not fulfilled within %s: %v", timeout, err)
		}
	}
}

// Receive returns what comes from the channel, and false when it is closed. It
// ends the test when nothing comes within timeout, and then says what every
// goroutine does.
func Receive[T any](t testing.TB, timeout time.Duration, what string, from <-chan T) (value T, ok bool) {
	t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case value, ok = <-from:
	case <-timer.C:
		t.Fatalf("%s: nothing for %s; the goroutines are:\n%s", what, timeout.Round(time.Second), goroutines())
	}
	return value, ok
}

// goroutines describes all goroutines, equal ones once.
func goroutines() string {
	var b strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return err.Error()
	}
	return b.String()
}
