package capture

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// orderedBatches is how many batches may wait between the stages; their bytes
// are bounded by the budget.
const orderedBatches = 64

// pipeline moves batches from the tail to the producing stage. A batch enters
// two queues: jobs, from which any worker takes it, and ordered, in which the
// producing stage meets it in the order of the oplog and waits for it to be
// done.
type pipeline struct {
	tail    tail
	metrics *metrics
	limit   int64
	budget  *semaphore.Weighted
	jobs    chan *batch
	ordered chan *batch
	// free are batches to be used again; kept is what their buffers hold, half
	// of limit at most.
	free chan *batch
	kept atomic.Int64

	// readErr is why reading ended; set before ordered closes.
	readErr error
}

func newPipeline(t tail, queueBytes int64, workers int, m *metrics) *pipeline {
	return &pipeline{
		tail: t, metrics: m, limit: queueBytes, budget: semaphore.NewWeighted(queueBytes),
		jobs: make(chan *batch, workers), ordered: make(chan *batch, orderedBatches),
		free: make(chan *batch, orderedBatches),
	}
}

// start runs the reading stage and the workers in g. Reading ends with intake
// or with the source's first error; what was read before still passes through,
// so that it can be committed. Work ends everything at once.
func (p *pipeline) start(intake, work context.Context, g *errgroup.Group, encoders []*encoder) {
	g.Go(func() error {
		defer close(p.jobs)
		defer close(p.ordered)
		p.readErr = p.read(intake, work)
		return nil
	})
	for _, e := range encoders {
		g.Go(func() error {
			for b := range p.jobs {
				b.err = e.encode(b)
				b.done <- struct{}{}
			}
			return nil
		})
	}
}

// read fills batches until intake ends, which is no error, or the source fails.
func (p *pipeline) read(intake, work context.Context) error {
	for {
		b := p.batch()
		drained, err := p.tail.fetch(intake, b)
		if err != nil {
			if intake.Err() != nil {
				return nil
			}
			return err
		}
		b.drained = drained
		b.cost = min(b.memory(), p.limit) // a larger one passes alone
		if p.budget.Acquire(intake, b.cost) != nil {
			return nil
		}
		p.metrics.queueBytes.Add(float64(b.cost))
		if !p.hand(work, b) {
			return nil
		}
	}
}

// batch returns an empty batch.
func (p *pipeline) batch() *batch {
	select {
	case b := <-p.free:
		p.kept.Add(-b.buffers())
		return b
	default:
		return newBatch()
	}
}

// hand puts the batch into the queues; false means that work has ended.
func (p *pipeline) hand(work context.Context, b *batch) bool {
	if b.len() == 0 {
		b.finish()
		b.done <- struct{}{} // nothing to encode
	} else {
		select {
		case p.jobs <- b:
		case <-work.Done():
			return false
		}
	}
	select {
	case p.ordered <- b:
		return true
	case <-work.Done():
		return false
	}
}

// release takes a batch back whose records the broker has acknowledged.
func (p *pipeline) release(b *batch) {
	p.metrics.queueBytes.Sub(float64(b.cost))
	cost := b.cost
	b.reset()
	p.keep(b)
	p.budget.Release(cost)
}

// keep puts an empty batch aside, unless enough memory is kept already.
func (p *pipeline) keep(b *batch) {
	size := b.buffers()
	if p.kept.Add(size) <= p.limit/2 {
		select {
		case p.free <- b:
			return
		default:
		}
	}
	p.kept.Add(-size)
}
