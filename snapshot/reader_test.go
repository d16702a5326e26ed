package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// script is a source whose passes fail now and then.
type script struct {
	docs []bson.Raw
	// fail is asked before each document; nil never fails.
	fail func() error
	// reads counts documents handed out, opens passes.
	reads, opens int
	missing      bool
}

func (s *script) open(_ context.Context, _ *state.Chunk, progress *state.ChunkProgress) (documents, error) {
	after := bson.Raw(progress.Next)
	s.opens++
	p := &scriptPass{script: s}
	if len(after) > 0 {
		want, err := idKey(after)
		if err != nil {
			return nil, err
		}
		for i, doc := range s.docs {
			key, err := idKey(doc)
			if err != nil {
				return nil, err
			}
			if string(key) == string(want) {
				p.at = i + 1
			}
		}
	}
	return p, nil
}

func (s *script) gone(context.Context, *state.Chunk) (bool, error) { return s.missing, nil }

type scriptPass struct {
	*script
	at int
}

func (p *scriptPass) Next(context.Context) (bson.Raw, error) {
	if p.fail != nil {
		if err := p.fail(); err != nil {
			return nil, err
		}
	}
	if p.at == len(p.docs) {
		return nil, nil
	}
	p.at++
	p.reads++
	return p.docs[p.at-1], nil
}

func (p *scriptPass) Through() bson.Timestamp         { return bson.Timestamp{T: uint32(p.reads)} }
func (p *scriptPass) KeepAlive(context.Context) error { return nil }
func (p *scriptPass) Close()                          {}

// readAll reads a chunk of the script from the given progress and returns the
// pieces.
func readAll(t *testing.T, s *script, from state.ChunkProgress) ([]piece, error) {
	t.Helper()
	return readFrom(t, s.open, s.gone, task{chunk: state.Chunk{Run: "run", DB: "d", Coll: "c"}, progress: from})
}

// readFrom reads one task and returns the pieces.
func readFrom(t *testing.T,
	open func(context.Context, *state.Chunk, *state.ChunkProgress) (documents, error),
	gone func(context.Context, *state.Chunk) (bool, error), work task,
) ([]piece, error) {
	t.Helper()
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	const size = 4000
	out := make(chan piece)
	budget := semaphore.NewWeighted(size)
	r := reader{
		open: open, gone: gone, codec: codec, pack: newPacker(500), budget: budget, size: size,
		buffers: newFreeList(4, 1000), out: out, metrics: m, log: zerolog.Nop(),
		retry: retry.Policy{Connection: time.Second, Other: time.Second, MaxBackoff: time.Microsecond},
	}
	var pieces []piece
	var g errgroup.Group
	g.Go(func() error {
		defer close(out)
		return r.read(t.Context(), &work)
	})
	for p := range out {
		budget.Release(p.weight)
		pieces = append(pieces, p)
	}
	return pieces, g.Wait()
}

// idsOf lists the documents of pieces.
func idsOf(t *testing.T, pieces []piece) []int32 {
	t.Helper()
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	for _, p := range pieces {
		if p.value == nil {
			continue
		}
		b, err := codec.DecodeBatch(p.value)
		if err != nil {
			t.Fatal(err)
		}
		for rest := b.Documents; len(rest) > 0; {
			n := int(rest[0]) | int(rest[1])<<8
			ids = append(ids, bson.Raw(rest[:n]).Lookup("_id").Int32())
			rest = rest[n:]
		}
	}
	return ids
}

func scriptOf(t *testing.T, n int) (*script, []int32) {
	t.Helper()
	s := &script{}
	var want []int32
	for i := range int32(n) {
		s.docs = append(s.docs, document(t, i, 50+int(i*7)%400))
		want = append(want, i)
	}
	return s, want
}

func TestReaderReadsEachDocumentOnceWhateverFails(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		s, want := scriptOf(t, 200)
		s.fail = func() error {
			switch random.IntN(20) {
			case 0:
				return mongo.CommandError{Code: 43, Message: "cursor not found"}
			case 1:
				return fmt.Errorf("read: %w", context.DeadlineExceeded)
			}
			return nil
		}
		pieces, err := readAll(t, s, state.ChunkProgress{Run: "run"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, idsOf(t, pieces)); diff != "" {
			t.Fatalf("documents (-want +got):\n%s", diff)
		}
		if s.reads != len(want) {
			t.Errorf("%d documents were read %d times", len(want), s.reads)
		}
		checkPieces(t, pieces, 0)
	}
}

// checkPieces checks the progress that pieces carry.
func checkPieces(t *testing.T, pieces []piece, sequence int32) {
	t.Helper()
	var documents int64
	for i, p := range pieces {
		if p.value != nil {
			sequence++
			documents += int64(p.count)
		}
		if p.progress.Sequence != sequence {
			t.Errorf("piece %d: sequence %d, want %d", i, p.progress.Sequence, sequence)
		}
		if done := i == len(pieces)-1; p.progress.Done != done {
			t.Errorf("piece %d of %d: done is %v", i, len(pieces), p.progress.Done)
		}
	}
	if last := pieces[len(pieces)-1].progress; last.ReadThrough.IsZero() {
		t.Error("the time of the last read is missing")
	}
}

func TestReaderResumesFromEveryCommittedProgress(t *testing.T) {
	s, want := scriptOf(t, 60)
	pieces, err := readAll(t, s, state.ChunkProgress{Run: "run"})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range pieces[:len(pieces)-1] {
		s.reads = 0
		rest, err := readAll(t, s, p.progress)
		if err != nil {
			t.Fatal(err)
		}
		got := append(idsOf(t, pieces[:i+1]), idsOf(t, rest)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("resumed behind piece %d (-want +got):\n%s", i, diff)
		}
		if committed := int(p.progress.Documents); s.reads != len(want)-committed {
			t.Errorf("resumed behind %d documents: %d were read", committed, s.reads)
		}
		checkPieces(t, rest, p.progress.Sequence)
		last := rest[len(rest)-1].progress
		if last.Documents != int64(len(want)) {
			t.Errorf("progress counts %d documents, want %d", last.Documents, len(want))
		}
	}
}

func TestReaderEndsAChunkWhoseCollectionIsGone(t *testing.T) {
	s, want := scriptOf(t, 20)
	n := 0
	s.fail = func() error {
		if n++; n > 10 {
			return mongo.CommandError{Code: 175, Message: "collection dropped"}
		}
		return nil
	}
	s.missing = true
	pieces, err := readAll(t, s, state.ChunkProgress{Run: "run"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[:10], idsOf(t, pieces)); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	checkPieces(t, pieces, 0)
}

func TestReaderGivesUp(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		err  error
	}{
		{"at once", mongo.CommandError{Code: 13, Message: "not authorized"}},
		{"after the window", broken},
	} {
		s, _ := scriptOf(t, 5)
		s.fail = func() error { return test.err }
		if _, err := readAll(t, s, state.ChunkProgress{Run: "run"}); err == nil {
			t.Errorf("%s: no error", test.name)
		}
	}
	s := &script{docs: []bson.Raw{{5, 0, 0, 0, 0}}}
	if _, err := readAll(t, s, state.ChunkProgress{}); !errors.Is(err, errUnreadable) {
		t.Errorf("a document without _id: %v", err)
	}
	if s.opens != 1 {
		t.Errorf("an unusable document was read in %d passes", s.opens)
	}
}

func TestReaderStartsOverWhenItsAnchorIsGone(t *testing.T) {
	s, want := scriptOf(t, 10)
	lost := false
	s.fail = func() error {
		if !lost {
			lost = true
			return errAnchorGone
		}
		return nil
	}
	pieces, err := readAll(t, s, state.ChunkProgress{Run: "run", Next: idRaw(t, int32(4)), Sequence: 1, Documents: 5})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, idsOf(t, pieces)); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
}
