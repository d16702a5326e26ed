package retry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributarydb/tributary/internal/retry"
)

var errTest = errors.New("test failure")

func as(v retry.Verdict) func(error) retry.Verdict {
	return func(error) retry.Verdict { return v }
}

func TestDoStopsAtOnce(t *testing.T) {
	calls := 0
	err := retry.Default().Do(t.Context(), as(retry.Stop), func(context.Context) error {
		calls++
		return errTest
	})
	if !errors.Is(err, errTest) || calls != 1 {
		t.Fatalf("calls=%d err=%v, want 1 and the test's error", calls, err)
	}
}

func TestDoGivesUpWhenItsWindowCloses(t *testing.T) {
	for _, test := range []struct {
		verdict retry.Verdict
		window  time.Duration
		names   string
	}{
		{retry.Connection, 12 * time.Hour, "connection errors is 12h0m0s"},
		{retry.Other, 10 * time.Minute, "other errors is 10m0s"},
		{retry.Now, 10 * time.Minute, "other errors is 10m0s"},
	} {
		t.Run(test.verdict.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, calls := time.Now(), 0
				err := retry.Default().Do(t.Context(), as(test.verdict), func(context.Context) error {
					calls++
					return errTest
				})
				if !errors.Is(err, errTest) || !strings.Contains(err.Error(), test.names) {
					t.Errorf("error %q does not wrap the cause and name %q", err, test.names)
				}
				if took := time.Since(start); took != test.window {
					t.Errorf("gave up after %s, want %s", took, test.window)
				}
				if least := int(test.window / (30 * time.Second)); calls < least {
					t.Errorf("%d calls, want at least %d", calls, least)
				}
			})
		})
	}
}

func TestDoWithoutWindowTriesOnce(t *testing.T) {
	calls := 0
	err := retry.Policy{}.Do(t.Context(), as(retry.Connection), func(context.Context) error {
		calls++
		return errTest
	})
	if !errors.Is(err, errTest) || calls != 1 {
		t.Fatalf("calls=%d err=%v", calls, err)
	}
}

// An outage of hours must not use up the window of the first other error after
// it.
func TestOtherWindowOpensWithTheFirstOtherError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		classify := func(error) retry.Verdict {
			if time.Since(start) < time.Hour {
				return retry.Connection
			}
			return retry.Other
		}
		err := retry.Default().Do(t.Context(), classify, func(context.Context) error { return errTest })
		if took := time.Since(start); took < 70*time.Minute || took > 72*time.Minute {
			t.Errorf("gave up after %s, want an hour and ten minutes: %v", took, err)
		}
	})
}

func TestLoopForgetsFailuresAfterProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		err := retry.Policy{Other: time.Minute}.Loop(t.Context(), as(retry.Other), func(_ context.Context, alive func()) error {
			<-time.After(50 * time.Second)
			if rounds++; rounds == 10 {
				return nil
			}
			alive()
			return errTest
		})
		if err != nil || rounds != 10 {
			t.Errorf("rounds=%d err=%v, want 10 and none", rounds, err)
		}
	})
}

// Two failures with a long time of work between them are not one row of
// failures, though the operation never said that it was alive.
func TestFailuresFarApartAreNoRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := retry.Policy{Connection: time.Hour, Other: 10 * time.Minute}.Do(t.Context(), as(retry.Other), func(context.Context) error {
			if tries++; tries == 4 {
				return nil
			}
			<-time.After(15 * time.Minute)
			return errTest
		})
		if err != nil || tries != 4 {
			t.Errorf("tries=%d err=%v, want 4 and none", tries, err)
		}
	})
}

// What always fails after a long time is given up as well.
func TestLongTriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := retry.Policy{Other: 10 * time.Minute}.Do(t.Context(), as(retry.Other), func(context.Context) error {
			tries++
			<-time.After(15 * time.Minute)
			return errTest
		})
		if !errors.Is(err, errTest) || tries > 20 {
			t.Errorf("tries=%d err=%v", tries, err)
		}
	})
}

func TestOutage(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	o := retry.Outage{Window: 10 * time.Minute, Gap: 2 * time.Minute}
	for _, step := range []struct {
		minute, since int
		over          bool
	}{{0, 0, false}, {1, 0, false}, {3, 0, false}, {6, 6, false}, {8, 6, false}, {10, 6, false}, {12, 6, false}, {14, 6, false}, {16, 6, true}} {
		since, until, over := o.Fail(at(step.minute))
		if !since.Equal(at(step.since)) || !until.Equal(at(step.since+10)) || over != step.over {
			t.Errorf("minute %d: since %v until %v over %t", step.minute, since, until, over)
		}
	}
	o.End()
	if since, _, over := o.Fail(at(17)); !since.Equal(at(17)) || over {
		t.Errorf("after the end: since %v over %t", since, over)
	}
}

func TestBackoffGrowsAndIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		policy := retry.Policy{Connection: time.Hour, MaxBackoff: 5 * time.Second, OnRetry: func(a retry.Attempt) {
			waits = append(waits, a.Wait)
			if a.Until.Sub(a.Since) != time.Hour || !errors.Is(a.Err, errTest) || a.Verdict != retry.Connection {
				t.Errorf("attempt %+v", a)
			}
		}}
		calls := 0
		if err := policy.Do(t.Context(), as(retry.Connection), func(context.Context) error {
			if calls++; calls == 40 {
				return nil
			}
			return errTest
		}); err != nil {
			t.Fatal(err)
		}
		if len(waits) != 39 {
			t.Fatalf("%d waits, want 39", len(waits))
		}
		for i, w := range waits {
			low, high := 50*time.Millisecond<<min(i, 6), 100*time.Millisecond<<min(i, 6)
			if low, high = min(low, 2500*time.Millisecond), min(high, 5*time.Second); w < low || w > high {
				t.Errorf("wait %d is %s, want between %s and %s", i, w, low, high)
			}
		}
	})
}

func TestNowIsImmediateAFewTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		if err := retry.Default().Do(t.Context(), as(retry.Now), func(context.Context) error {
			if calls++; calls == 4 {
				return nil
			}
			return errTest
		}); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %s before the fourth call, want nothing", waited)
		}
	})
}

func TestContextEndsDoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := retry.Default().Do(ctx, as(retry.Connection), func(context.Context) error { return errTest })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errTest) {
			t.Errorf("error %v, want the context's with the last failure", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %s, want a minute", took)
		}
	})
}

func TestVerdictString(t *testing.T) {
	for verdict, want := range map[retry.Verdict]string{
		retry.Stop: "stop", retry.Now: "now", retry.Connection: "connection", retry.Other: "other", 9: "verdict(9)",
	} {
		if got := verdict.String(); got != want {
			t.Errorf("%d is %q, want %q", int(verdict), got, want)
		}
	}
}
