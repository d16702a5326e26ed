package retry

import "time"

// Outage bounds the failures of something that tries again by itself, such as a
// client's background work. It belongs to one goroutine. The zero value with a
// Window is ready for use.
type Outage struct {
	// Window is how long failures may follow one another.
	Window time.Duration
	// Gap is the time without a failure after which the next one begins a new
	// row; it must be longer than the pauses between tries.
	Gap time.Duration

	since, last time.Time
}

// Fail counts a failure. It returns when the row of them began, when it must be
// given up, and whether that is now.
func (o *Outage) Fail(now time.Time) (since, until time.Time, over bool) {
	if o.since.IsZero() || o.Gap > 0 && now.Sub(o.last) > o.Gap {
		o.since = now
	}
	o.last = now
	until = o.since.Add(o.Window)
	return o.since, until, !now.Before(until)
}

// End says that it works again.
func (o *Outage) End() { o.since = time.Time{} }
