package capture

import (
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// watermarks decides when "everything up to here has been sent" is said. Only
// entries that a majority has are read, in the order of their cluster times, so
// that the time of an entry is a watermark as soon as its events are produced,
// but not while they are so in part: before a watermark there is nothing later,
// and after it nothing at or before it.
type watermarks struct {
	interval, idle time.Duration
	// last was said at sentAt; passed is what may be said next.
	last, passed bson.Timestamp
	sentAt       time.Time
	// held says that the events of one time are produced in part.
	held bool
}

// hold notes that something of a time is produced, and more of it follows.
func (w *watermarks) hold() { w.held = true }

// pass notes that everything up to t has been produced.
func (w *watermarks) pass(t bson.Timestamp) {
	w.held = false
	if event.CompareTimes(t, w.passed) > 0 {
		w.passed = t
	}
}

// due returns the watermark to be sent now, if any. The first one of a life is
// due at once, so that readers which wait for one need no change at the source.
func (w *watermarks) due(now time.Time, drained bool) (bson.Timestamp, bool) {
	since := now.Sub(w.sentAt)
	switch {
	case w.passed.IsZero(), w.held:
		return bson.Timestamp{}, false
	case event.CompareTimes(w.passed, w.last) > 0:
		return w.passed, since >= w.interval
	default:
		return w.last, drained && since >= w.idle
	}
}

// sent notes that t was put into a transaction.
func (w *watermarks) sent(t bson.Timestamp, now time.Time) { w.last, w.sentAt = t, now }
