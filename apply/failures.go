package apply

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/retry"
)

// failures are the partitions of this process that stopped because of an event
// that cannot be applied. Such a partition stays assigned and does nothing until
// the service starts again or another member gets it; the other partitions go
// on, up to the next barrier, at which they wait for it.
type failures struct {
	mu sync.Mutex
	// all holds the causes, first the topicPartition that failed first.
	all   map[topicPartition]*partitionError
	first topicPartition
}

func newFailures() *failures { return &failures{all: map[topicPartition]*partitionError{}} }

// partitionError says why a partition stopped.
type partitionError struct {
	tp topicPartition
	// others is how many more partitions stopped.
	others int
	err    error
}

// Error names the partition and the cause.
func (e *partitionError) Error() string {
	text := fmt.Sprintf("partition %s/%d stopped: %v", e.tp.topic, e.tp.partition, e.err)
	if e.others > 0 {
		text += fmt.Sprintf(" (and %d more partitions)", e.others)
	}
	return text
}

// Unwrap returns the cause.
func (e *partitionError) Unwrap() error { return e.err }

// add takes note of a partition's failure and returns how many of its topic have
// failed by now.
func (f *failures) add(tp topicPartition, err error) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) == 0 {
		f.first = tp
	}
	f.all[tp] = &partitionError{tp: tp, err: err}
	for other := range f.all {
		if other.topic == tp.topic {
			n++
		}
	}
	return n
}

// drop forgets a partition that is another member's now.
func (f *failures) drop(tp topicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, tp)
	if f.first != tp {
		return
	}
	for other := range f.all {
		f.first = other
		return
	}
}

// err is the failure that came first, with the number of the others; nil where
// there is none.
func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, ok := f.all[f.first]
	if !ok {
		return nil
	}
	return &partitionError{tp: first.tp, others: len(f.all) - 1, err: first.err}
}

// any reports whether one of the causes is of that kind.
func (f *failures) any(kind error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.all {
		if errors.Is(e.err, kind) {
			return true
		}
	}
	return false
}

func (f *failures) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// ended is called with a worker's end. A failure stops that partition alone: it
// is kept for the status, and the worker's goroutine waits for the end of
// ownership, also where no other partition is left that works. A process that
// ended would be started again, meet the same event, and meanwhile hand the
// partition to the next member. Where a new start may mend something it does end:
// no partition works, and for one a retry window is over. So it does in a one-off
// copy, for whose end somebody waits.
func (a *assigner) ended(tp topicPartition, stop <-chan struct{}, err error) error {
	if err == nil {
		return nil
	}
	s := a.s
	failed := s.failures.add(tp, err)
	s.metrics.failed.Set(float64(s.failures.count()))
	s.log.Error().Err(err).Str(logfield.Topic, tp.topic).Int32(logfield.Partition, tp.partition).
		Msg("partition stopped; the others go on, and it is tried again when the service starts again")
	if !s.cfg.Sync.Incremental || failed >= a.owned(tp.topic) && s.failures.any(retry.ErrGaveUp) {
		return s.failures.err()
	}
	<-stop
	if !a.leaving.Load() {
		s.failures.drop(tp)
		s.metrics.failed.Set(float64(s.failures.count()))
	}
	return nil
}

// owned counts the partitions of a topic that this process has.
func (a *assigner) owned(topic string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for tp := range a.workers {
		if tp.topic == topic {
			n++
		}
	}
	return n
}
