package snapshot

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/state"
)

// progressInterval is how often totals go to status and metrics.
const progressInterval = time.Second

// showProgress keeps status and metrics up to date.
func (s *Service) showProgress(ctx context.Context) error {
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	var r progress.Reckoner
	for {
		s.tell(&r, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.tell(&r, time.Now())
			s.cfg.Report.Update(func(status *state.Status) {
				if status.Progress != nil {
					status.Progress = status.Progress.Ended()
				}
			})
			return ctx.Err()
		}
	}
}

// tell says how far the run has come, all processes together.
func (s *Service) tell(r *progress.Reckoner, now time.Time) {
	m, f, current, ok := s.board.load()
	if !current {
		return // what comes now was done before
	}
	if !ok {
		s.metrics.progress.Set(&state.Progress{Phase: state.LoadPlanning})
		s.cfg.Report.Update(func(status *state.Status) { status.Progress = &state.Progress{Phase: state.LoadPlanning} })
		return
	}
	p := r.Reckon(now, phaseOf(&m, &f), &m, f)
	s.metrics.chunksDone.Set(float64(f.Chunks.Done))
	s.metrics.chunksTotal.Set(float64(f.Chunks.Total))
	s.metrics.progress.Set(p)
	s.cfg.Report.Update(func(status *state.Status) {
		status.Phase, status.Progress = m.State, p
		status.Detail = map[string]int64{
			"documents": f.Documents.Done, "documents_estimated": f.Documents.Total,
			"bytes": f.Bytes.Done, "bytes_estimated": f.Bytes.Total,
			"chunks_done": f.Chunks.Done, "chunks_total": f.Chunks.Total,
		}
	})
}

// phaseOf is the phase of a run.
func phaseOf(m *state.Manifest, f *progress.Figures) string {
	switch {
	case m.State == state.RunComplete:
		return state.LoadDone
	case f.Chunks.Done >= f.Chunks.Total:
		return state.LoadCatchingUp
	}
	return state.LoadReading
}
