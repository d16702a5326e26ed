package progress

import (
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
)

// Reckoner makes a load's Progress out of its figures, which it is shown from
// time to time. It is not safe for concurrent use; the zero value is ready.
type Reckoner struct {
	run         string
	percent     float64
	total       Meter
	collections map[event.Namespace]*Meter
}

// Floor sets what the percentage of a run was said to be before: it will not be
// less.
func (r *Reckoner) Floor(run string, percent float64) {
	r.of(run)
	r.percent = max(r.percent, percent)
}

// of begins anew with another run.
func (r *Reckoner) of(run string) {
	if r.run != run {
		*r = Reckoner{run: run, collections: map[event.Namespace]*Meter{}}
	}
}

// Reckon returns the progress at a time in a phase. What it is shown first
// counts for no rate.
func (r *Reckoner) Reckon(now time.Time, phase string, m *state.Manifest, f Figures) *state.Progress {
	r.of(m.Run)
	// What is known of read chunks may lag behind what is known of loaded ones, and
	// what is read may be more than was expected when less was loaded.
	r.percent = max(r.percent, percent(f.Documents, f.Bytes, f.Chunks))
	if phase == state.LoadDone {
		r.percent = 100
	}
	r.total.Observe(now, Amount{f.Documents.Done, f.Bytes.Done})
	p := &state.Progress{
		Phase: phase, Run: m.Run, Started: m.Started, Percent: r.percent,
		Documents: f.Documents, Bytes: f.Bytes, Chunks: f.Chunks, Collections: f.Collections, AverageRate: r.total.Average(),
	}
	if phase != state.LoadReading && phase != state.LoadLoading {
		return p
	}
	p.Rate, p.ETASeconds = r.total.Present(), r.total.ETA(f.Documents, f.Bytes)
	r.watch(now, f.Active)
	shown := largest(f.Active, state.MaxActive)
	p.MoreActive = len(f.Active) - len(shown)
	for _, c := range shown {
		meter := r.collections[c.NS]
		p.Active = append(p.Active, state.CollectionProgress{
			NS: c.NS.String(), Percent: percent(c.Documents, c.Bytes, c.Chunks), Documents: c.Documents, Bytes: c.Bytes, Chunks: c.Chunks,
			Rate: meter.Present(), ETASeconds: meter.ETA(c.Documents, c.Bytes),
		})
	}
	return p
}

// watch measures the collections that are under way and forgets the others. One
// that begins while it is watched begins with nothing.
func (r *Reckoner) watch(now time.Time, active []Figure) {
	present := make(map[event.Namespace]*Meter, len(active))
	for i := range active {
		c := &active[i]
		meter := r.collections[c.NS]
		if meter == nil {
			meter = &Meter{}
		}
		meter.Observe(now, Amount{c.Documents.Done, c.Bytes.Done})
		present[c.NS] = meter
	}
	r.collections = present
}
