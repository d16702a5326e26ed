package capture

import (
	"context"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// flood is a tail that never ends: entries of one size.
type flood struct{ entry bson.Raw }

func (f *flood) fetch(_ context.Context, b *batch) (bool, error) {
	for !b.full() {
		b.add(f.entry)
	}
	return false, nil
}

func (f *flood) close(context.Context) {}

// TestQueueIsBounded: while nothing is acknowledged, reading stops at the budget,
// whatever the entries' size, and goes on when something is.
func TestQueueIsBounded(t *testing.T) {
	const limit = 8 << 20
	for name, size := range map[string]int{"small": 60, "medium": 20_000, "largest": 16 << 20} {
		t.Run(name, func(t *testing.T) {
			entry, err := bson.Marshal(bson.D{{Key: "b", Value: make([]byte, size)}})
			if err != nil {
				t.Fatal(err)
			}
			p := newPipeline(&flood{entry: entry}, limit, 1, newMetrics(nil))
			ctx, cancel := context.WithCancel(t.Context())
			var g errgroup.Group
			p.start(ctx, ctx, &g, nil)
			take := func() []*batch {
				held := []*batch{<-p.jobs} // one there is, however slow the machine
				quiet := time.NewTimer(300 * time.Millisecond)
				defer quiet.Stop()
				for {
					select {
					case b := <-p.jobs:
						held = append(held, b)
					case <-p.ordered:
					case <-quiet.C:
						return held
					}
				}
			}
			held := take()
			var memory int64
			for _, b := range held {
				memory += b.cost
			}
			if memory > limit || len(held) == 0 {
				t.Errorf("%d batches hold %d bytes, the limit is %d", len(held), memory, limit)
			}
			p.release(held[0])
			if more := take(); len(more) != 1 {
				t.Errorf("%d batches follow one that was released, want 1", len(more))
			}
			cancel()
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestReusedBuffersAreBounded: what batches keep for their next use does not grow
// with the largest that each of them has seen.
func TestReusedBuffersAreBounded(t *testing.T) {
	const limit = 8 << 20
	p := newPipeline(&flood{}, limit, 1, newMetrics(nil))
	var held []*batch
	for range orderedBatches {
		held = append(held, p.batch())
	}
	for _, b := range held {
		b.add(make(bson.Raw, 1<<20))
		b.out = make([]byte, 1<<20)
		p.release(b)
	}
	var kept int64
	for len(p.free) > 0 {
		kept += p.batch().buffers()
	}
	if kept == 0 || kept > limit/2 {
		t.Errorf("%d bytes are kept, want at most %d", kept, limit/2)
	}
	if left := p.kept.Load(); left != 0 {
		t.Errorf("%d bytes are counted with nothing kept", left)
	}
}

// TestTransactionsCountByTheirOperations: each becomes a record, and thousands of
// them are in one entry.
func TestTransactionsCountByTheirOperations(t *testing.T) {
	var list bson.A
	for id := range 1000 {
		list = append(list, bson.D{{Key: "op", Value: "d"}, {Key: "ns", Value: "shop.orders"}, {Key: "o", Value: bson.D{{Key: "_id", Value: id}}}})
	}
	entry, err := bson.Marshal(bson.D{{Key: "op", Value: "c"}, {Key: "ns", Value: "admin.$cmd"}, {Key: "o", Value: bson.D{{Key: "applyOps", Value: list}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch()
	b.add(entry)
	if least := int64(len(list) * recordBytes); b.memory() < least {
		t.Errorf("a transaction of %d operations counts as %d bytes, want %d at least", len(list), b.memory(), least)
	}
	b.reset()
	b.add(entry[:len(entry)-1]) // cut off
	if b.operations != 1 {
		t.Errorf("an entry that cannot be read counts as %d operations", b.operations)
	}
}

// TestLargestDocuments pass one by one through a queue that is smaller than they
// are.
func TestLargestDocuments(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		cfg.QueueBytes = 4 << 20
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		blob := make([]byte, 16<<20-1000)
		for id := range 6 {
			s.append(bson.D{
				{Key: "op", Value: "i"},
				{Key: "ns", Value: "shop.orders"},
				{Key: "o", Value: bson.D{{Key: "_id", Value: id}, {Key: "blob", Value: blob}}},
			})
		}
		until(t, cfg, s.last())
		service.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}
