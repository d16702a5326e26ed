package progress

import (
	"time"

	"github.com/tributarydb/tributary/internal/state"
)

const (
	// presentWindow is the time over which the present rate is taken, etaWindow
	// that for the time that is left; etaAfter is how long it must be observed
	// before anything is said about that.
	presentWindow = 15 * time.Second
	etaWindow     = time.Minute
	etaAfter      = 10 * time.Second
	// sampleInterval is the time between two samples that are kept.
	sampleInterval = time.Second
)

// Meter measures how quickly an amount grows, from what it is shown. The first
// amount counts for no rate. It is not safe for concurrent use; the zero value
// is ready.
type Meter struct {
	base    sample
	samples []sample
}

type sample struct {
	at time.Time
	Amount
}

// Observe shows the meter an amount. One that seems to have become less counts
// as what was there: two sources of the same news need not be equally quick.
func (m *Meter) Observe(now time.Time, a Amount) {
	last := len(m.samples) - 1
	if last >= 0 {
		former := m.samples[last]
		a = Amount{max(a.Documents, former.Documents), max(a.Bytes, former.Bytes)}
	}
	s := sample{now, a}
	switch {
	case last < 0:
		m.base, m.samples = s, []sample{s}
		return
	case last > 0 && now.Sub(m.samples[last-1].at) < sampleInterval:
		m.samples[last] = s
	default:
		m.samples = append(m.samples, s)
	}
	// One sample that is older than the window is its beginning.
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= etaWindow {
		m.samples = m.samples[1:]
	}
}

// Present is the rate over the last seconds.
func (m *Meter) Present() state.Rate { return m.over(presentWindow) }

// Average is the rate since the first amount.
func (m *Meter) Average() state.Rate {
	if len(m.samples) == 0 {
		return state.Rate{}
	}
	return rate(m.base, m.samples[len(m.samples)-1])
}

// ETA is how many seconds are left at the rate of the last minute; nil where
// nothing came in that time, or too little is known.
func (m *Meter) ETA(documents, bytes state.Share) *float64 {
	last := len(m.samples) - 1
	if last < 0 || m.samples[last].at.Sub(m.base.at) < etaAfter {
		return nil
	}
	r := m.over(etaWindow)
	speed, todo := r.Bytes, measure(documents, bytes)
	if bytes.Total <= 0 {
		speed = r.Documents
	}
	if speed <= 0 || todo.Total <= 0 {
		return nil
	}
	seconds := float64(left(todo)) / speed
	return &seconds
}

// over is the rate over a window that ends with the last sample.
func (m *Meter) over(window time.Duration) state.Rate {
	last := len(m.samples) - 1
	if last < 1 {
		return state.Rate{}
	}
	end := m.samples[last]
	from := last - 1
	for from > 0 && end.at.Sub(m.samples[from].at) < window {
		from--
	}
	return rate(m.samples[from], end)
}

func rate(from, to sample) state.Rate {
	seconds := to.at.Sub(from.at).Seconds()
	if seconds <= 0 {
		return state.Rate{}
	}
	return state.Rate{Documents: float64(to.Documents-from.Documents) / seconds, Bytes: float64(to.Bytes-from.Bytes) / seconds}
}
