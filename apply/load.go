package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// load applies records of the snapshot topic; done says that the run's end was
// met. Records of other runs and of collections that the rules leave out are
// passed over.
func (w *worker) load(ctx context.Context, run string, records []*kgo.Record) (done bool, err error) {
	for len(records) > 0 && !done {
		n := min(max(w.limit, 1), loadRecords(records))
		next, taken, err := w.loadBatch(ctx, run, records[:n])
		if errors.Is(err, errTooLarge) && n > 1 {
			w.limit = n / 2
			continue
		}
		if err != nil {
			return false, err
		}
		w.limit = min(w.s.cfg.BatchEvents, w.limit+w.limit/8+1)
		w.advance(next)
		records = records[taken:]
		done = next.Loaded == run
	}
	if done {
		w.log.Info().Str("run", run).Msg("partition has loaded its part of the snapshot")
		w.s.poke()
	}
	return done, nil
}

// maxLoadBytes is what a batch of a load holds at most, apart from one record
// that is larger. Two records of the usual size were measured to be loaded
// fastest, whatever the size of their documents; from 4 MiB on, transactions of
// many small documents take several times as long.
const maxLoadBytes = 2<<20 + 64<<10

// loadRecords returns how many of the records make a batch.
func loadRecords(records []*kgo.Record) int {
	var size int64
	for i, r := range records {
		if size += recordBytes(r); size > maxLoadBytes && i > 0 {
			return i
		}
	}
	return len(records)
}

// loadBatch makes the documents of some records take effect, up to the run's
// end. It returns the record after them and how many it took.
func (w *worker) loadBatch(ctx context.Context, run string, records []*kgo.Record) (next offsetRecord, taken int, err error) {
	started := time.Now()
	l := loader{w: w, plans: map[event.Namespace]*plan{}}
	next = w.held
	var bytes int64
	for _, r := range records {
		b, err := w.s.codec.DecodeBatch(r.Value)
		if err != nil {
			return next, 0, fmt.Errorf("decode snapshot batch partition=%s/%d offset=%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		taken++
		bytes += recordBytes(r)
		next.Offset = r.Offset + 1
		if b.Run != run {
			continue
		}
		if b.Kind == wire.BatchRunEnd {
			next.Loaded = run
			break
		}
		next.Load = next.Load.passed(b.Chunk, int64(b.Count), int64(len(b.Documents)))
		if err := l.add(&b, r.Offset); err != nil {
			return next, 0, err
		}
	}
	if len(l.order) == 0 {
		return next, taken, w.committer.move(ctx, w.held, next)
	}
	if err := l.commit(ctx, next, taken > 1); err != nil {
		return next, 0, err
	}
	w.s.metrics.documents.Add(float64(l.documents))
	w.s.metrics.bytes.Add(float64(bytes))
	w.s.metrics.batches.Inc()
	w.s.metrics.batchTime.Observe(time.Since(started).Seconds())
	w.s.progress.documents.Add(l.documents)
	w.pace(ctx, w.s.cfg.LoadThrottle, l.documents, bytes)
	return next, taken, nil
}

// loader gathers documents of a full load into plans.
type loader struct {
	w         *worker
	plans     map[event.Namespace]*plan
	order     []*plan
	first     []change
	documents int64
}

// add gathers the documents of one record.
func (l *loader) add(b *wire.Batch, offset int64) error {
	target, ok := l.w.s.cfg.Rules.Target(b.NS)
	if !ok {
		return nil
	}
	p, ok := l.plans[target]
	if !ok {
		p = &plan{target: target}
		l.plans[target] = p
		l.order = append(l.order, p)
	}
	for rest := b.Documents; len(rest) > 0; {
		doc, after, err := splitDocument(rest)
		if err != nil {
			return fmt.Errorf("decode snapshot batch ns=%s chunk=%d sequence=%d: %w", b.NS, b.Chunk, b.Sequence, err)
		}
		rest = after
		id, found, err := rawbson.Lookup(doc, "_id")
		if err != nil || !found {
			return errors.Join(fmt.Errorf("decode snapshot batch ns=%s chunk=%d sequence=%d: a document without _id", b.NS, b.Chunk, b.Sequence), err)
		}
		e := &event.Event{Op: event.OpInsert, NS: b.NS, UUID: b.UUID, Document: doc}
		d := &document{id: id.RawValue(), first: event.OpInsert, image: doc, look: l.w.held.mode(offset) == event.Lenient}
		d.last = change{Event: e, target: target, offset: offset}
		if len(p.documents) == 0 {
			l.first = append(l.first, d.last)
		}
		p.documents = append(p.documents, d)
		l.documents++
	}
	return nil
}

// splitDocument cuts the first document off a row of them.
func splitDocument(row []byte) (doc bson.Raw, rest []byte, err error) {
	if len(row) < 5 {
		return nil, nil, fmt.Errorf("%w: document of %d bytes", rawbson.ErrMalformed, len(row))
	}
	n := binary.LittleEndian.Uint32(row)
	if n < 5 || uint64(n) > uint64(len(row)) {
		return nil, nil, fmt.Errorf("%w: document says %d bytes and has %d", rawbson.ErrMalformed, n, len(row))
	}
	return bson.Raw(row[:n:n]), row[n:], nil
}

// commit makes the gathered documents take effect.
func (l *loader) commit(ctx context.Context, next offsetRecord, divisible bool) error {
	w := l.w
	// The collections were prepared before the load began: one that is missing
	// was dropped in the destination.
	if err := w.ensure(ctx, l.first, event.Strict); err != nil {
		return err
	}
	for _, p := range l.order {
		if !w.target.capped(p.target) {
			continue
		}
		for _, d := range p.documents {
			p.ordered = append(p.ordered, d.last)
		}
		p.documents = nil
	}
	b := &batch{held: w.held, next: next, divisible: divisible}
	others := 0
	b.write = func(ctx context.Context, how care) error {
		others = 0
		for _, p := range l.order {
			n, err := w.target.writeLoad(ctx, p, how, w.s.cfg.Conflicts)
			if err != nil {
				return err
			}
			others += n
		}
		return nil
	}
	if hasOrdered(l.order) {
		b.before = func(ctx context.Context) error { return w.target.writeOrdered(ctx, l.order, nil) }
	}
	if err := w.committer.commit(ctx, b); err != nil {
		return err
	}
	if others > 0 {
		w.log.Warn().Int("documents", others).Str("conflicts", w.s.cfg.Conflicts).Msg("the destination held other documents under _ids of the load")
	}
	return nil
}
