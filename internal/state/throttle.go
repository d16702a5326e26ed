package state

import (
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/throttle"
)

const prefixThrottle = "throttle/"

// ThrottleSource is what the reads of full loads are limited by.
const ThrottleSource = "source"

// ThrottleLoad names the limits on what a destination is loaded with.
func ThrottleLoad(destination string) string { return "load/" + destination }

// ThrottleChanges names the limits on changes to a destination.
func ThrottleChanges(destination string) string { return "changes/" + destination }

// KeyThrottle is the key of a Throttle.
func KeyThrottle(name string) string { return prefixThrottle + name }

// IsThrottle reports whether key is a Throttle's, and of which limits.
func IsThrottle(key string) (name string, ok bool) { return strings.CutPrefix(key, prefixThrottle) }

// Throttle is what the operator has set in place of configured limits. It is
// written by `tributary throttle` alone, whole, and obeyed by every service that
// follows the state topic. A value that is nil is as configured; 0 is unlimited.
type Throttle struct {
	Queries   *int64    `json:"queries,omitempty"`
	Documents *int64    `json:"documents,omitempty"`
	Bytes     *int64    `json:"bytes,omitempty"`
	Set       time.Time `json:"set"`
}

// Over returns the limits that hold over configured ones.
func (t Throttle) Over(configured throttle.Limits) throttle.Limits {
	for _, l := range []struct {
		to   *int64
		from *int64
	}{{&configured.Queries, t.Queries}, {&configured.Documents, t.Documents}, {&configured.Bytes, t.Bytes}} {
		if l.from != nil {
			*l.to = *l.from
		}
	}
	return configured
}

// Throttle returns what was set in place of configured limits.
func (v *View) Throttle(name string) (t Throttle, ok bool) {
	t, ok = v.throttles[KeyThrottle(name)]
	return t, ok
}
