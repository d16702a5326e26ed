package capture

import (
	"cmp"
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
)

// publisher is the producing stage of a life: it puts batches, watermarks and
// positions into transactions. It runs on the life's own goroutine.
type publisher struct {
	cfg      *Config
	metrics  *metrics
	producer *producer
	pipeline *pipeline
	encoder  *encoder
	source   event.Source
	classes  *classes
	// enforcedSince are the destinations that have enforced unique indexes from
	// the pipeline's beginning.
	enforcedSince []string
	// patterns are the selection of what is published.
	patterns rules.Patterns
	// refresher serves requests for whole documents; images reads them.
	refresher *refresher
	images    imageSource
	marks     watermarks
	// position is what is produced; readFrom is where reading would resume,
	// not later than it.
	position, readFrom event.Position
	// open are the transactions that hold readFrom back; nil for none.
	open *state.OpenTransactions
	// token is the change stream's at position; empty for an oplog.
	token []byte
	// identity is written with the first transaction of a pipeline; nil later.
	identity *kgo.Record

	// What the open transaction holds.
	events     int
	watermarks int
	// total counts the events of this life.
	total int64
	// drained says that the source had nothing more after the last batch.
	drained bool
	// committed is called after each commit.
	committed func()
	// stop closes when nothing more is to be read.
	stop <-chan struct{}
}

// run publishes until the pipeline has no more batches, which it then commits,
// or until an error or the end of ctx.
func (p *publisher) run(ctx context.Context) error {
	timer := time.NewTimer(p.cfg.CommitInterval)
	defer timer.Stop()
	// What was published before this life is a watermark at once.
	if err := p.watermark(ctx); err != nil {
		return err
	}
	for {
		select {
		case b, ok := <-p.refresher.intake(p.pipeline.ordered):
			if !ok {
				return p.finish(ctx)
			}
			if err := p.encoded(ctx, b); err != nil {
				return err
			}
			if err := p.refresher.arrived(ctx, b); err != nil {
				return err
			}
		case c := <-p.refresher.asked():
			p.refresher.take(c)
		case res := <-p.refresher.results:
			p.refresher.answered(res)
		case <-p.stopping():
			if err := p.refresher.stop(ctx); err != nil {
				return err
			}
		case <-timer.C:
		case <-p.producer.failed:
			return p.failure(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := p.refresher.step(ctx); err != nil {
			return err
		}
		if err := p.commitIfDue(ctx); err != nil {
			return err
		}
		timer.Reset(p.untilCommit())
	}
}

// finish commits what has come when nothing more does.
func (p *publisher) finish(ctx context.Context) error {
	if err := p.refresher.stop(ctx); err != nil {
		return err
	}
	return p.commit(ctx)
}

// stopping closes when nothing more is read; it matters as long as nothing is
// taken from the pipeline.
func (p *publisher) stopping() <-chan struct{} {
	if p.refresher.scanning() {
		return p.stop
	}
	return nil
}

// commitIfDue commits if it is time to.
func (p *publisher) commitIfDue(ctx context.Context) error {
	if !p.commitDue(time.Now()) {
		return nil
	}
	return p.commit(ctx)
}

// commitDue reports whether the open transaction has lasted or holds enough.
func (p *publisher) commitDue(now time.Time) bool {
	if !p.producer.open {
		return false
	}
	return p.events >= p.cfg.CommitEvents || now.Sub(p.producer.began) >= p.cfg.CommitInterval
}

// untilCommit is when to look at the open transaction again.
func (p *publisher) untilCommit() time.Duration {
	if !p.producer.open {
		return p.cfg.CommitInterval
	}
	return max(time.Until(p.producer.began.Add(p.cfg.CommitInterval)), 0)
}

// encoded waits until a batch is.
func (p *publisher) encoded(ctx context.Context, b *batch) error {
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publish produces the records of a batch that is encoded. Whole batches, and so
// whole entries, belong to one transaction.
func (p *publisher) publish(ctx context.Context, b *batch) error {
	p.refresher.observe(b)
	entries, bytes, drained, failed := b.len(), len(b.raw), b.drained, b.err
	if !b.last.IsZero() {
		if err := p.applyClasses(ctx, b); err != nil {
			return err
		}
		p.events += b.events
		p.advance(b)
	}
	if err := p.produce(ctx, b); err != nil {
		return err
	}
	p.metrics.entries.Add(float64(entries))
	p.metrics.bytes.Add(float64(bytes))
	p.drained = drained
	if failed != nil {
		// What comes before the entry that is not understood is committed
		// first, so that capture goes on exactly there once it is.
		return cmp.Or(p.commit(ctx), failed)
	}
	return p.watermark(ctx)
}

// advance takes over how far the batch has come. One that was cut short by its
// item that is not understood moves the position alone: which transactions were
// open there, and whether the time has passed, is for the next life to find out.
func (p *publisher) advance(b *batch) {
	at := b.last
	if at.Compare(p.position) < 0 {
		at = p.position // events of requests have places behind the source's
	}
	p.position = at
	if len(b.stream.token) > 0 {
		p.token = append(p.token[:0], b.stream.token...) // the batch is used again before the commit
	}
	if b.err == nil {
		p.readFrom, p.open = cmp.Or(b.readFrom, at), b.open
	}
	if b.err != nil || b.partial {
		p.marks.hold()
		return
	}
	p.marks.pass(b.last.Time)
	p.classes.passed(b.last.Time)
}

// failure returns the cause of ctx's end, if it has ended, since the client then
// fails its records with less to say, else the first failure of a record.
func (p *publisher) failure(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.producer.failure()
}

// produce hands the batch's records to the client; the last acknowledgement
// gives the batch back.
func (p *publisher) produce(ctx context.Context, b *batch) error {
	if len(b.records) == 0 {
		p.pipeline.release(b)
		return nil
	}
	if err := p.producer.begin(); err != nil {
		return err
	}
	n := len(b.records)
	b.pending.Store(int64(n))
	b.promise = func(_ *kgo.Record, err error) {
		if err != nil {
			p.producer.fail(err)
			return // the life ends: its budget is of no use any more
		}
		if b.pending.Add(-1) == 0 {
			p.pipeline.release(b)
		}
	}
	records, promise := b.records, b.promise
	for i := range n {
		p.producer.produce(ctx, &records[i], promise)
	}
	return p.failure(ctx)
}

// applyClasses keys the events of collections that are ordered as a whole by
// their namespace. Only here the stream is one again, so that a create event is
// seen before the first insert.
func (p *publisher) applyClasses(ctx context.Context, b *batch) error {
	next := 0
	for i := range b.records {
		for next < len(b.ddl) && b.ddl[next].at == i {
			if err := p.class(ctx, &b.ddl[next].event); err != nil {
				return err
			}
			next++
		}
		if r := &b.routes[i]; p.classes.contains(r.uuid) {
			key := b.records[i].Key[:r.prefix:r.prefix]
			b.records[i].Key, b.records[i].Partition = key, route.Partition(key, p.producer.partitions)
		}
	}
	return nil
}

// watermark says how far the stream has come, if it is time to.
func (p *publisher) watermark(ctx context.Context) error {
	now := time.Now()
	t, due := p.marks.due(now, p.drained)
	if !due {
		return nil
	}
	if err := p.producer.begin(); err != nil {
		return err
	}
	wall := time.Unix(int64(t.T), 0)
	if p.drained {
		wall = now // nothing is waiting: the destination lags by the way alone
	}
	records, err := p.encoder.watermarkRecords(&event.Event{
		Op: event.OpWatermark, Position: event.Position{Time: t, Term: p.position.Term}, WallTime: wall, Source: p.source,
	})
	if err != nil {
		return &finalError{err}
	}
	for _, r := range records {
		p.producer.produce(ctx, r, p.producer.acknowledge)
	}
	p.marks.sent(t, now)
	p.watermarks++
	return p.failure(ctx)
}

// commit ends the open transaction, if any, with the position after everything
// that it holds.
func (p *publisher) commit(ctx context.Context) error {
	if !p.producer.open {
		return nil
	}
	var first []*kgo.Record
	if p.identity != nil {
		first = append(first, p.identity)
	}
	changed, err := p.refresher.records()
	if err != nil {
		return err
	}
	first = append(first, changed...)
	start := time.Now()
	err = p.producer.commit(ctx, state.CapturePosition{
		ReadFrom:         p.readFrom,
		PublishedThrough: p.position,
		Watermark:        p.marks.last,
		Partitions:       p.producer.partitions,
		ByNamespace:      p.classes.list(),
		EnforcedSince:    p.enforcedSince,
		Select:           &p.patterns,
		ResumeToken:      p.token,
	}, first...)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	p.metrics.commit.Observe(time.Since(start).Seconds())
	p.metrics.transactions.Inc()
	p.metrics.events.Add(float64(p.events))
	p.metrics.watermarks.Add(float64(p.watermarks))
	p.total += int64(p.events)
	p.identity, p.events, p.watermarks = nil, 0, 0
	p.metrics.reread.Set(float64(p.position.Time.T) - float64(p.readFrom.Time.T))
	p.refresher.committed()
	lag := p.lag()
	p.metrics.lag.Set(lag)
	p.cfg.Report.Progress(p.position, lag)
	p.committed()
	return nil
}

// lag is how long ago the last entry was written, in seconds; 0 when nothing is
// waiting.
func (p *publisher) lag() float64 {
	if p.drained {
		return 0
	}
	return max(time.Since(time.Unix(int64(p.position.Time.T), 0)).Seconds(), 0)
}
