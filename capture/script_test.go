package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// script is a source whose oplog the test writes. It is the fault seam of the
// reading stage.
type script struct {
	deployment string

	mu      sync.Mutex
	entries []bson.Raw
	times   []bson.Timestamp
	// lost is how many entries have rolled over.
	lost int
	// failures are returned by the next fetches, one each.
	failures []error
	whole    []event.UUID
	// held bounds the fragments in memory; rereads counts the transactions
	// that were read again.
	held    int64
	rereads int
	changed chan struct{}
}

const scriptTerm = 3

func newScript() *script {
	s := &script{deployment: "65a1b2c3d4e5f60718293a4b", changed: make(chan struct{})}
	s.append(bson.D{{Key: "op", Value: "n"}, {Key: "ns", Value: ""}, {Key: "o", Value: bson.D{{Key: "msg", Value: "initiating set"}}}})
	return s
}

// append writes an entry and returns its cluster time.
func (s *script) append(entry bson.D) bson.Timestamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := bson.Timestamp{T: 1_767_225_600 + uint32(len(s.entries)/7), I: uint32(len(s.entries) + 1)}
	raw, err := bson.Marshal(append(bson.D{{Key: "ts", Value: ts}, {Key: "t", Value: int64(scriptTerm)}, {Key: "wall", Value: time.Unix(int64(ts.T), 0)}}, entry...))
	if err != nil {
		panic(err)
	}
	s.entries, s.times = append(s.entries, raw), append(s.times, ts)
	close(s.changed)
	s.changed = make(chan struct{})
	return ts
}

func (s *script) insert(coll string, id any) bson.Timestamp {
	return s.append(bson.D{{Key: "op", Value: "i"}, {Key: "ns", Value: "shop." + coll}, {Key: "o", Value: bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(1)}}}})
}

func (s *script) insertUUID(coll string, id any, uuid event.UUID) bson.Timestamp {
	return s.append(bson.D{
		{Key: "op", Value: "i"},
		{Key: "ns", Value: "shop." + coll},
		{Key: "ui", Value: bson.Binary{Subtype: 4, Data: uuid[:]}},
		{Key: "o", Value: bson.D{{Key: "_id", Value: id}, {Key: "n", Value: int32(1)}}},
	})
}

func (s *script) delete(coll string, id any) bson.Timestamp {
	return s.append(bson.D{{Key: "op", Value: "d"}, {Key: "ns", Value: "shop." + coll}, {Key: "o", Value: bson.D{{Key: "_id", Value: id}}}})
}

func (s *script) create(coll string, uuid event.UUID, options ...bson.E) bson.Timestamp {
	return s.append(bson.D{
		{Key: "op", Value: "c"},
		{Key: "ns", Value: "shop.$cmd"},
		{Key: "ui", Value: bson.Binary{Subtype: 4, Data: uuid[:]}},
		{Key: "o", Value: append(bson.D{{Key: "create", Value: coll}}, options...)},
	})
}

func (s *script) noop() bson.Timestamp {
	return s.append(bson.D{{Key: "op", Value: "n"}, {Key: "ns", Value: ""}, {Key: "o", Value: bson.D{}}})
}

// write appends n random entries of several kinds.
func (s *script) write(r *rand.Rand, n int) {
	for range n {
		id := r.IntN(50)
		switch k := r.IntN(20); {
		case k == 0:
			s.noop()
		case k == 1:
			s.insert("unselected", id)
		case k == 2:
			s.create(fmt.Sprintf("c%d", r.IntN(1000)), event.UUID{byte(r.Uint32()), 1})
		case k < 8:
			s.delete("orders", id)
		default:
			s.insert("orders", id)
		}
	}
}

func (s *script) last() bson.Timestamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[len(s.times)-1]
}

func (s *script) fail(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, errs...)
}

func (s *script) describe(context.Context) (event.Source, error) {
	return event.Source{Deployment: s.deployment, Mode: ModeOplog, ServerVersion: "8.0.0"}, nil
}

func (s *script) decoder(source event.Source, selected func(db, coll string) bool) decoder {
	return (*mongoSource)(nil).decoder(source, selected)
}

func (s *script) start(context.Context) (state.CapturePosition, error) {
	at := event.Position{Time: s.last()}
	return state.CapturePosition{ReadFrom: at, PublishedThrough: at, ByNamespace: s.whole}, nil
}

func (s *script) open(_ context.Context, at state.CapturePosition) (tail, event.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := at.PublishedThrough
	t := &scriptTail{script: s, assembler: newAssembler(s, s.held, newMetrics(nil))}
	if !at.ReadFrom.IsZero() && at.ReadFrom.Compare(from) < 0 {
		from = at.ReadFrom
	}
	t.next = slices.Index(s.times, from.Time)
	if t.next < s.lost || (from.Term != 0 && from.Term != scriptTerm) {
		return nil, from, historyLost(from, "the script has lost it")
	}
	err := t.assembler.resume(&at, s.entries[t.next])
	t.next++
	return t, t.assembler.through, err
}

type scriptTail struct {
	script    *script
	assembler *assembler
	next      int
	failed    error
}

func (t *scriptTail) fetch(ctx context.Context, b *batch) (bool, error) {
	t.script.mu.Lock()
	changed := t.script.changed
	if len(t.script.failures) > 0 {
		err := t.script.failures[0]
		t.script.failures = t.script.failures[1:]
		t.script.mu.Unlock()
		return false, err
	}
	entries := t.script.entries
	t.script.mu.Unlock()
	if t.failed != nil {
		return false, t.failed
	}
	taken, err := t.fill(ctx, b, entries)
	if b.begun() {
		t.failed, err = err, nil
	}
	if taken || err != nil {
		return false, err
	}
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-changed:
		return t.fetch(ctx, b)
	case <-timer.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (t *scriptTail) fill(ctx context.Context, b *batch, entries []bson.Raw) (taken bool, err error) {
	var last event.Position
	defer func() { t.assembler.finish(b, last) }()
	for !b.full() && (t.next < len(entries) || t.assembler.replaying()) {
		taken = true
		if t.assembler.replaying() {
			err = t.assembler.replayInto(ctx, b)
		} else {
			if last, err = entryPosition(entries[t.next]); err != nil {
				return true, err
			}
			err = t.assembler.take(ctx, b, entries[t.next])
			t.next++
		}
		if err != nil {
			return true, err
		}
	}
	return taken, nil
}

func (t *scriptTail) close(ctx context.Context) { t.assembler.close(ctx) }

// errNetwork is a failure of the source that passes.
var errNetwork = &transientError{errors.New("connection reset")}

func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
