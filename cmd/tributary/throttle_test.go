package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/throttle"
)

func TestThrottleUsage(t *testing.T) {
	path := pipeline(t, "p", "mongodb://127.0.0.1:1/", []string{closedPort(t)}, "mongodb://127.0.0.1:2/")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-documents", "5"}, "not said what to limit"},
		{[]string{"-reset"}, "not said what to limit"},
		{[]string{"-source", "-destination", "copy"}, "two things"},
		{[]string{"-source", "-load", "-documents", "1"}, "belong to a destination"},
		{[]string{"-destination", "other"}, "copy"},
		{[]string{"-destination", "copy", "-documents", "1"}, "limited apart"},
		{[]string{"-destination", "copy", "-load", "-changes", "-documents", "1"}, "limited apart"},
		{[]string{"-destination", "copy", "-load", "-queries", "1"}, "queries are the source's"},
		{[]string{"-source", "-documents", "-1"}, "not negative"},
		{[]string{"-source", "-bytes", "much"}, "much"},
		{[]string{"-source", "-reset", "-bytes", "1MiB"}, "takes no limits"},
	} {
		fails(t, 2, []string{test.want}, append([]string{"throttle", "-config", path}, test.args...)...)
	}
}

// Limits are those of the file until something is set, and shared by those who
// work on the same thing.
func TestThrottlesFollowTheState(t *testing.T) {
	cfg := &config.Config{
		Source: config.Source{Throttle: config.ReadThrottle{Queries: 10, Bytes: 1 << 20}}, Destinations: []config.Destination{{Name: "a"}, {Name: "b"}},
	}
	l := newThrottles(cfg, zerolog.Nop())
	now := time.Now()
	apply := func(key string, v any) {
		t.Helper()
		var value []byte
		if v != nil {
			var err error
			if value, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.apply(key, value, now); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, want throttle.Limits) {
		t.Helper()
		if got := l.limiters[name].Limits(); got != want {
			t.Errorf("limits of %s: %+v, want %+v", name, got, want)
		}
	}
	none, five := int64(0), int64(5)
	check(state.ThrottleSource, throttle.Limits{Queries: 10, Bytes: 1 << 20})
	apply(state.KeyThrottle(state.ThrottleSource), state.Throttle{Queries: &none, Documents: &five})
	check(state.ThrottleSource, throttle.Limits{Documents: 5, Bytes: 1 << 20})
	apply(state.KeyThrottle(state.ThrottleChanges("b")), state.Throttle{Documents: &five})
	apply(state.KeyThrottle(state.ThrottleLoad("gone")), state.Throttle{Documents: &five})
	check(state.ThrottleChanges("b"), throttle.Limits{Documents: 5})
	check(state.ThrottleLoad("b"), throttle.Limits{})
	check(state.ThrottleChanges("a"), throttle.Limits{})
	apply(state.KeyThrottle(state.ThrottleSource), nil)
	check(state.ThrottleSource, throttle.Limits{Queries: 10, Bytes: 1 << 20})

	for instance, s := range map[string]state.Status{
		"1": {State: state.StateRunning, Updated: now}, "2": {State: state.StateRetrying, Updated: now},
		"3": {State: state.StateFinished, Updated: now}, "4": {State: state.StateRunning, Updated: now.Add(-time.Hour)},
	} {
		s.Service, s.Instance, s.Destination = "apply", instance, "b"
		apply(state.KeyStatus("apply", instance), s)
	}
	if got := l.sharers(now)[state.ThrottleChanges("b")]; got != 2 {
		t.Errorf("limits are shared by %d, want 2", got)
	}
}

// checkThrottle replaces limits of a running process and finds them in status.
func checkThrottle(t *testing.T, path string, run *background) {
	t.Helper()
	set := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := call(t, append([]string{"throttle", "-config", path}, args...)...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("throttle %q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	set("unlimited")
	set("5 queries/s, 20MiB/s", "-source", "-queries", "5", "-bytes", "20MiB")
	set("70 queries/s, 20MiB/s", "-source", "-queries", "70")
	set("90000 operations/s", "-destination", "copy", "-changes", "-operations", "90000")
	testenv.Eventually(t, 2*time.Minute, func() error {
		return contains(run.stderr.String(), "limits of source are now: 70 queries/s, 20MiB/s", "limits of changes/copy are now: 90000 operations/s")
	})
	code, stdout, stderr := call(t, "status", "-config", path)
	if err := contains(stdout, "70 queries/s, 20MiB/s", "90000 operations/s", "configured: unlimited"); code != 0 || err != nil {
		t.Errorf("status: exit code %d: %v\n%s%s", code, err, stdout, stderr)
	}
	set("unlimited", "-source", "-reset")
}

func contains(text string, wanted ...string) error {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%q is not there", w)
		}
	}
	return nil
}
