package progress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
)

// Amount is a quantity of a collection's documents.
type Amount struct{ Documents, Bytes int64 }

// Ledger holds the chunks of runs as the state topic tells of them. It is not
// safe for concurrent use.
type Ledger struct {
	// runs are by id.
	runs map[string]*chunks
}

// chunks are those of a run, by number: a load of terabytes has very many, which
// are looked at again and again.
type chunks struct {
	pages map[int32]*page
	done  int64
	// last is the page that was looked at last, number at.
	last *page
	at   int32
}

// pageSize is how many chunks stand together.
const pageSize = 1024

type page [pageSize]chunk

type chunk struct {
	Amount
	done bool
}

// get returns what is known of a chunk.
func (c *chunks) get(number int32) chunk {
	if c == nil || number < 0 {
		return chunk{}
	}
	if at := number / pageSize; c.last == nil || c.at != at {
		c.last, c.at = c.pages[at], at
	}
	if c.last == nil {
		return chunk{}
	}
	return c.last[number%pageSize]
}

// put replaces it.
func (c *chunks) put(number int32, now chunk) {
	if c.get(number).done {
		c.done--
	}
	if now.done {
		c.done++
	}
	if c.last == nil {
		c.last = new(page)
		c.pages[c.at] = c.last
	}
	c.last[number%pageSize] = now
}

// NewLedger returns an empty one.
func NewLedger() *Ledger { return &Ledger{runs: map[string]*chunks{}} }

// Apply takes over a record of the state topic if it is a chunk's; a nil value
// removes the chunk. The value is not kept.
func (l *Ledger) Apply(key string, value []byte) error {
	if !state.IsChunk(key) {
		return nil
	}
	run, number, err := state.ParseKeyChunk(key)
	if err != nil {
		return err
	}
	var p state.ChunkProgress
	if value != nil {
		if err := json.Unmarshal(value, &p); err != nil {
			return fmt.Errorf("decode state record key=%s: %w", key, err)
		}
	}
	c := l.runs[run]
	if c == nil {
		c = &chunks{pages: map[int32]*page{}}
		l.runs[run] = c
	}
	c.put(number, chunk{Amount{p.Documents, p.Bytes}, p.Done})
	return nil
}

// Done counts the chunks of a run that are done.
func (l *Ledger) Done(run string) int64 {
	if c := l.runs[run]; c != nil {
		return c.done
	}
	return 0
}

// Place is how far a reader of one partition of the snapshot topic has come: a
// partition holds its chunks one after another, in the order of their numbers.
type Place struct {
	// Chunk is the one that was read last, Amount what was read of it.
	Chunk int32
	Amount
	// Loaded says that the run's end was met.
	Loaded bool
}

// Figures are the sums of a run.
type Figures struct {
	Documents, Bytes, Chunks, Collections state.Share
	// Active are the collections of which something and not everything is done,
	// in the manifest's order.
	Active []Figure
}

// Figure is one collection's.
type Figure struct {
	NS                       event.Namespace
	Documents, Bytes, Chunks state.Share
}

// Read adds up what snapshot has done of a run.
func (l *Ledger) Read(m *state.Manifest) Figures {
	chunks := l.runs[m.Run]
	return figures(m, func(event.Namespace) bool { return true }, func(number int32) part {
		c := chunks.get(number)
		return part{done: c.Amount, held: c.Amount, ended: c.done, over: c.done}
	})
}

// Loaded adds up what the readers of the snapshot topic's partitions have done,
// by partition, of the collections that match selects.
func (l *Ledger) Loaded(m *state.Manifest, selects func(event.Namespace) bool, places []Place) Figures {
	chunks := l.runs[m.Run]
	return figures(m, selects, func(number int32) part {
		c := chunks.get(number)
		p := part{held: c.Amount, ended: c.done}
		if len(places) == 0 {
			return p
		}
		switch place := places[int(number)%len(places)]; {
		case place.Loaded, number < place.Chunk:
			p.done, p.ended, p.over = c.Amount, true, true
		case number == place.Chunk:
			p.done = place.Amount
			// What is read may be known before what was written.
			p.held = Amount{max(c.Documents, place.Documents), max(c.Bytes, place.Bytes)}
			p.over = c.done && place.Documents == c.Documents
		}
		return p
	})
}

// part is how far one chunk is: done is what counts as done of it, and over that
// all of it is; held is what it is known to hold, and ended that this is all.
type part struct {
	done, held  Amount
	ended, over bool
}

// figures adds up collections chunk by chunk.
func figures(m *state.Manifest, selects func(event.Namespace) bool, look func(number int32) part) Figures {
	var f Figures
	first := int32(0)
	for i := range m.Collections {
		c := &m.Collections[i]
		begin := first
		first += c.Chunks
		if c.View || !selects(c.Namespace()) {
			continue
		}
		one := Figure{NS: c.Namespace(), Chunks: state.Share{Total: int64(c.Chunks)}}
		for n := range c.Chunks {
			p := look(begin + n)
			total := Amount{shareOf(c.EstimatedDocuments, n, c.Chunks), shareOf(c.EstimatedBytes, n, c.Chunks)}
			if p.ended {
				total = p.held
			}
			one.Documents = add(one.Documents, p.done.Documents, max(total.Documents, p.held.Documents))
			one.Bytes = add(one.Bytes, p.done.Bytes, max(total.Bytes, p.held.Bytes))
			if p.over {
				one.Chunks.Done++
			}
		}
		f.take(&one)
	}
	return f
}

// take adds a collection.
func (f *Figures) take(c *Figure) {
	f.Documents = add(f.Documents, c.Documents.Done, c.Documents.Total)
	f.Bytes = add(f.Bytes, c.Bytes.Done, c.Bytes.Total)
	f.Chunks = add(f.Chunks, c.Chunks.Done, c.Chunks.Total)
	f.Collections.Total++
	switch {
	case c.Chunks.Done == c.Chunks.Total:
		f.Collections.Done++
	case c.Chunks.Done > 0 || c.Documents.Done > 0:
		f.Active = append(f.Active, *c)
	}
}

func add(s state.Share, done, total int64) state.Share {
	return state.Share{Done: s.Done + done, Total: s.Total + total}
}

// shareOf is the part of whole that falls to the n-th of count, such that all of
// them make the whole.
func shareOf(whole int64, n, count int32) int64 {
	q, r := whole/int64(count), whole%int64(count)
	if int64(n) < r {
		return q + 1
	}
	return q
}

// percent of the bytes, or of the documents where no sizes are known; 100 only
// when every chunk is done.
func percent(documents, bytes, chunks state.Share) float64 {
	if chunks.Done >= chunks.Total {
		return 100
	}
	s := measure(documents, bytes)
	if s.Total <= 0 {
		s = chunks
	}
	const most = 99.9
	return min(100*float64(s.Done)/float64(s.Total), most)
}

// measure is what a load is measured by.
func measure(documents, bytes state.Share) state.Share {
	if bytes.Total > 0 {
		return bytes
	}
	return documents
}

// largest returns at most n of the figures, those with most to do, by name.
func largest(list []Figure, n int) []Figure {
	if len(list) > n {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b Figure) int {
			return cmp.Compare(left(measure(b.Documents, b.Bytes)), left(measure(a.Documents, a.Bytes)))
		})
		list = list[:n]
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Figure) int { return strings.Compare(a.NS.String(), b.NS.String()) })
	return list
}

func left(s state.Share) int64 { return s.Total - s.Done }
