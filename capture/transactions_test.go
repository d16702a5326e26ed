package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// fragmentAt is the script as the past of its tails.
func (s *script) fragmentAt(_ context.Context, at bson.Timestamp) (link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.times, at)
	if i < s.lost {
		return link{}, errRolledOver
	}
	h, err := oplog.ReadHeader(s.entries[i])
	return link{position: h.Position, previous: h.Previous, lsid: h.LSID, number: h.Number}, err
}

func (s *script) missing(context.Context, bson.Timestamp) error { return errRolledOver }

func (s *script) commands(_ context.Context, t *oplog.Transaction) (entryCursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rereads++
	var c scriptCursor
	for i, entry := range s.entries {
		if i >= s.lost && event.CompareTimes(s.times[i], t.First.Time) >= 0 && event.CompareTimes(s.times[i], t.Last.Time) <= 0 && oplog.IsCommand(entry) {
			c = append(c, entry)
		}
	}
	return &c, nil
}

type scriptCursor []bson.Raw

func (c *scriptCursor) next(context.Context) (bson.Raw, error) {
	if len(*c) == 0 {
		return nil, nil
	}
	entry := (*c)[0]
	*c = (*c)[1:]
	return entry, nil
}

func (c *scriptCursor) close(context.Context) {}

// chain is a transaction over several entries that a test writes.
type chain struct {
	script *script
	// session is that of the transaction; nil for a server's own batch.
	session bson.D
	last    bson.Timestamp
	next    int
	prefix  string
}

func (s *script) chain(number int64, prefix string) *chain {
	return &chain{script: s, prefix: prefix, session: bson.D{
		{Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: []byte(prefix)}}}},
		{Key: "txnNumber", Value: number},
	}}
}

// write logs a fragment of n inserts with a mark: partialTxn, prepare, or none.
func (c *chain) write(n int, mark string) bson.Timestamp {
	var list bson.A
	for range n {
		list = append(list, bson.D{{Key: "op", Value: "i"}, {Key: "ns", Value: "shop.orders"}, {Key: "o", Value: bson.D{{Key: "_id", Value: fmt.Sprintf("%s%d", c.prefix, c.next)}}}})
		c.next++
	}
	if list == nil {
		list = bson.A{}
	}
	o := bson.D{{Key: "applyOps", Value: list}}
	if mark != "" {
		o = append(o, bson.E{Key: mark, Value: true})
	}
	return c.log(o)
}

func (c *chain) log(o bson.D) bson.Timestamp {
	entry := append(slices.Clone(c.session), bson.E{Key: "op", Value: "c"}, bson.E{Key: "ns", Value: "admin.$cmd"}, bson.E{Key: "o", Value: o})
	c.last = c.script.append(append(entry, bson.E{Key: "prevOpTime", Value: bson.D{{Key: "ts", Value: c.last}, {Key: "t", Value: int64(scriptTerm)}}}))
	return c.last
}

func (c *chain) commit() bson.Timestamp {
	return c.log(bson.D{{Key: "commitTransaction", Value: int32(1)}, {Key: "commitTimestamp", Value: c.last}})
}

func (c *chain) abort() bson.Timestamp {
	return c.log(bson.D{{Key: "abortTransaction", Value: int32(1)}})
}

// TestTransactionsUnderKills writes transactions of every form among other
// entries, while capture is killed again and again: each operation arrives
// once, in its place, and after no watermark that has passed it.
func TestTransactionsUnderKills(t *testing.T) {
	for name, held := range map[string]int64{"held": 1 << 20, "read again": 0, "some of both": 3_000} {
		t.Run(name, func(t *testing.T) {
			r := newRand(t)
			s := newScript()
			s.held = held
			cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), s)
			cfg.DrainTimeout = time.Nanosecond
			var client atomic.Pointer[kgo.Client]
			cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
			from := s.last()
			service := start(t, cfg)
			until(t, cfg, from)
			w := &transactionWriter{script: s, random: r}
			for range 4 {
				w.write(200)
				timer := time.NewTimer(time.Duration(r.IntN(60)) * time.Millisecond)
				<-timer.C
				service.kill(client.Load())
				service = start(t, cfg)
			}
			w.endAll()
			until(t, cfg, s.noop())
			cfg.DrainTimeout = DefaultDrainTimeout
			service.stop()
			checkExactlyOnce(t, cfg, s, from)
			if s.mu.Lock(); (s.rereads == 0) != (held == 1<<20) {
				t.Errorf("%d transactions were read again", s.rereads)
			}
			s.mu.Unlock()
		})
	}
}

// transactionWriter writes random entries, some of them of transactions that
// stay open for a while.
type transactionWriter struct {
	script *script
	random *rand.Rand
	open   []*chain
	number int64
}

func (w *transactionWriter) write(n int) {
	for range n {
		switch k := w.random.IntN(10); {
		case k < 5:
			w.script.write(w.random, 1+w.random.IntN(5))
		case k < 7:
			w.number++
			if w.random.IntN(60) == 0 {
				c := w.script.chain(w.number, fmt.Sprintf("t%d.", w.number))
				c.write(batchOperations+w.random.IntN(1000), "") // in one entry
				continue
			}
			c := w.script.chain(w.number, fmt.Sprintf("t%d.", w.number))
			if w.random.IntN(8) == 0 {
				c.session = nil
			}
			for range w.random.IntN(4) {
				c.write(1+w.random.IntN(30), "partialTxn")
			}
			if w.random.IntN(3) == 0 && c.next > 0 || c.session == nil {
				c.write(1+w.random.IntN(30), "")
				continue
			}
			c.write(w.random.IntN(30), "prepare")
			w.open = append(w.open, c)
		case len(w.open) > 0:
			w.end(w.random.IntN(len(w.open)))
		}
	}
}

func (w *transactionWriter) end(i int) {
	c := w.open[i]
	w.open = slices.Delete(w.open, i, i+1)
	if w.random.IntN(4) == 0 {
		c.abort()
	} else {
		c.commit()
	}
}

func (w *transactionWriter) endAll() {
	for len(w.open) > 0 {
		w.end(0)
	}
}

// TestTransactionRolledOver: fragments that have left the oplog are history
// lost, at start and while running, and what came before is published.
func TestTransactionRolledOver(t *testing.T) {
	for name, restart := range map[string]bool{"while running": false, "at start": true} {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), s)
			from := s.last()
			service := start(t, cfg)
			until(t, cfg, from)
			c := s.chain(1, "lost.")
			c.write(2, "partialTxn")
			c.write(2, "prepare")
			until(t, cfg, s.insert("orders", 1))
			if restart {
				service.stop()
			}
			s.mu.Lock()
			s.lost = len(s.entries) - 1
			s.mu.Unlock()
			published := s.insert("orders", 2)
			c.commit()
			if restart {
				service = start(t, cfg)
			}
			if err := service.wait(); !errors.Is(err, ErrHistoryLost) {
				t.Fatalf("error %v, want ErrHistoryLost", err)
			}
			if p := position(t, cfg); !restart && p.PublishedThrough.Time != published {
				t.Errorf("published through %s, want %v", p.PublishedThrough, published)
			}
		})
	}
}

// TestUnfinishedChainOfAnEarlierTerm is forgotten: it would hold reading back
// for ever.
func TestUnfinishedChainOfAnEarlierTerm(t *testing.T) {
	s := newScript()
	a := newAssembler(s, 1<<20, newMetrics(nil))
	half, prepared := s.chain(1, "half."), s.chain(2, "prepared.")
	half.write(1, "partialTxn")
	prepared.write(1, "prepare")
	for _, entry := range s.entries[1:] {
		if err := a.take(t.Context(), newBatch(), entry); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		term int64
		want bson.Timestamp
	}{{scriptTerm, half.last}, {scriptTerm + 1, prepared.last}} {
		b := newBatch()
		a.finish(b, event.Position{Time: s.last(), Term: tc.term})
		if b.readFrom.Time != tc.want {
			t.Errorf("term %d reads from %s, want %v", tc.term, b.readFrom, tc.want)
		}
	}
}

// TestHugeTransaction is published over several batches, each with the position
// inside it, and memory holds none of it but the present batch.
func TestHugeTransaction(t *testing.T) {
	s := newScript()
	c := s.chain(1, "huge.")
	const fragments, each = 60, 300
	for range fragments - 1 {
		c.write(each, "partialTxn")
	}
	c.write(each, "")
	a := newAssembler(s, 0, newMetrics(nil))
	for _, entry := range s.entries[1:] {
		if err := a.take(t.Context(), newBatch(), entry); err != nil {
			t.Fatal(err)
		}
	}
	d := s.decoder(event.Source{}, nil)
	next, batches := int32(0), 0
	for a.replaying() {
		b := newBatch()
		for a.replaying() && !b.full() {
			if err := a.replayInto(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		a.finish(b, event.Position{})
		batches++
		for i := range b.len() {
			events, after, err := d.decode(b, i, nil)
			if err != nil {
				t.Fatal(err)
			}
			for j := range events {
				e := &events[j]
				if e.Position.Index != next || e.Position.Time != c.last || e.Transaction == nil || e.Transaction.Index != next || e.Transaction.Number != 1 {
					t.Fatalf("%s of transaction %+v, want index %d of %v", e, e.Transaction, next, c.last)
				}
				next++
			}
			if after.Index != next-1 {
				t.Errorf("position after the item is %s, want index %d", after, next-1)
			}
		}
		if open := a.replaying(); open != b.partial || open == b.readFrom.IsZero() {
			t.Errorf("transaction is open: %v; partial %v, reads from %s", open, b.partial, b.readFrom)
		}
	}
	if next != fragments*each || batches < 3 {
		t.Errorf("%d operations in %d batches", next, batches)
	}
}

// TestOperationsCountAsDecoded: the index of what follows a fragment is the same
// whoever counts.
func TestOperationsCountAsDecoded(t *testing.T) {
	d := &oplog.Decoder{}
	del := bson.D{{Key: "op", Value: "d"}, {Key: "ns", Value: "a.b"}, {Key: "o", Value: bson.D{{Key: "_id", Value: 1}}}}
	nest := func(list ...any) bson.D {
		return bson.D{{Key: "op", Value: "c"}, {Key: "ns", Value: "a.$cmd"}, {Key: "o", Value: bson.D{{Key: "applyOps", Value: append(bson.A{}, list...)}}}}
	}
	entry, err := bson.Marshal(append(nest(del, nest(), nest(del, nest(del), bson.D{{Key: "op", Value: "n"}}), del), bson.E{Key: "ts", Value: bson.Timestamp{T: 5, I: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	events, err := d.Decode(entry, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := oplog.Operations(entry); n != events[len(events)-1].Position.Index+1 || n != 5 {
		t.Errorf("counted %d, decoded %d", n, events[len(events)-1].Position.Index+1)
	}
}

func position(t testing.TB, cfg Config) state.CapturePosition {
	t.Helper()
	view, err := state.Load(t.Context(), cfg.Kafka, route.TopicsOf(cfg.Pipeline).State)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := view.Position()
	if !ok {
		t.Fatal("pipeline has no position")
	}
	return p
}

// TestPipelineBeginsAtALargeEntry: what it begins at is left to the load, also
// one of many operations; one that comes later is published, once.
func TestPipelineBeginsAtALargeEntry(t *testing.T) {
	s := newScript()
	s.chain(1, "before.").write(batchOperations+10, "")
	cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), s)
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	s.chain(2, "after.").write(batchOperations+10, "")
	until(t, cfg, s.last())
	service.stop()
	service = start(t, cfg)
	until(t, cfg, s.insert("orders", 1))
	service.stop()
	checkExactlyOnce(t, cfg, s, from)
}
