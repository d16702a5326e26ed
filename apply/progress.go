package apply

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
)

// statusInterval is how often the status is brought up to date.
const statusInterval = time.Second

// quietBarrier is how long partitions may wait at a barrier before the status
// says for whom.
const quietBarrier = 3 * time.Second

// account gathers where this process's partitions stand.
type account struct {
	events    atomic.Int64
	documents atomic.Int64
	builds    buildCount

	mu         sync.Mutex
	partitions map[topicPartition]offsetRecord
	// waiting counts what partitions wait for from the source.
	waiting map[topicPartition]waiting
}

// waiting is what is needed whole.
type waiting struct{ documents, collections int }

func newAccount() *account {
	return &account{partitions: map[topicPartition]offsetRecord{}, waiting: map[topicPartition]waiting{}}
}

// watch takes note of what a partition waits for.
func (p *account) watch(tp topicPartition, w *watch) {
	documents, collections := w.pending()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[tp] = waiting{documents, collections}
}

func (p *account) unwatch(tp topicPartition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, tp)
}

// wanted returns what this process's partitions wait for. Each of them knows
// what the whole group waits for, as of its last barrier.
func (p *account) wanted() waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	var most waiting
	for _, w := range p.waiting {
		most = waiting{max(most.documents, w.documents), max(most.collections, w.collections)}
	}
	return most
}

func (p *account) set(tp topicPartition, o *offsetRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partitions[tp] = *o
}

func (p *account) drop(tp topicPartition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.partitions, tp)
}

func (p *account) offset(tp topicPartition) (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.partitions[tp]
	return o.Offset, ok
}

// summary is where this process as a whole stands.
type summary struct {
	// partitions of the change topic.
	partitions int64
	catchingUp bool
	// position is the last passed of the partition that is furthest behind.
	position event.Position
	// wall is the source's clock at that partition's watermark; zero before
	// the first.
	wall time.Time
}

func (p *account) summary(changes string) summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	var s summary
	for tp, o := range p.partitions {
		if tp.topic != changes {
			continue
		}
		passed := o.Position.position()
		if event.CompareTimes(o.Watermark, passed.Time) > 0 {
			passed = event.Position{Time: o.Watermark}
		}
		if s.partitions == 0 || passed.Compare(s.position) < 0 {
			s.position = passed
		}
		if s.partitions == 0 || o.Wall.Before(s.wall) {
			s.wall = o.Wall
		}
		s.catchingUp = s.catchingUp || o.CatchingUp
		s.partitions++
	}
	return s
}

// report keeps the status up to date until ctx ends.
func (s *Service) report(ctx context.Context) error {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		s.reportOnce()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) reportOnce() {
	g, known, _ := s.phases.current()
	if !known {
		return
	}
	sum := s.progress.summary(s.topics.changes)
	wanted := s.progress.wanted()
	s.metrics.pendingRefreshes.Set(float64(wanted.documents))
	s.metrics.pendingReloads.Set(float64(wanted.collections))
	building := s.builder.running.Load()
	s.metrics.builds.Set(float64(building))
	lag := -1.0
	if !sum.wall.IsZero() {
		lag = max(time.Since(sum.wall).Seconds(), 0)
		s.metrics.lag.Set(lag)
	} else if sum.partitions == 0 {
		s.metrics.lag.Set(0) // whoever took the last partition over tells its lag
	}
	s.cfg.Report.Update(func(status *state.Status) {
		status.Phase = g.Phase
		if !s.cfg.Sync.loads() {
			status.Begin = g.Watermark
		}
		status.Position, status.LagSeconds = sum.position, lag
		if status.Detail == nil {
			status.Detail = map[string]int64{}
		}
		status.Detail["events"] = s.progress.events.Load()
		status.Detail["documents"] = s.progress.documents.Load()
		if n := s.progress.builds.collections.Load(); n > 0 {
			status.Detail["index_collections"], status.Detail["index_collections_built"] = n, s.progress.builds.built.Load()
		}
		status.Detail["index_builds"] = building
		status.Detail["partitions"] = sum.partitions
		status.Detail["refreshes_pending"] = int64(wanted.documents)
		status.Detail["reloads_pending"] = int64(wanted.collections)
	})
	if err := s.failures.err(); err != nil {
		kind := state.StateFailed
		if s.failures.any(errHistoryLost) {
			kind = state.StateHistoryLost
		}
		s.cfg.Report.Set(kind, err.Error())
		return
	}
	if time.Now().UnixNano() < s.retryingUntil.Load() {
		return
	}
	waited, cause := s.barriers.longest(time.Now())
	s.metrics.barrierWait.Set(waited.Seconds())
	if waited < quietBarrier {
		cause = ""
	}
	if sum.catchingUp || wanted.collections > 0 {
		s.cfg.Report.Set(state.StateCatchingUp, cause)
		return
	}
	s.cfg.Report.Set(state.StateRunning, cause)
}
