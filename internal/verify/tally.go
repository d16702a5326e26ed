package verify

import (
	"fmt"
	"sync/atomic"
)

// tally counts a pair's documents, by the server and by reading them: source
// first, destination second.
type tally struct {
	pair    *pair
	counted [2]int64
	read    [2]atomic.Int64
	bytes   atomic.Int64
}

// holdsDocuments reports whether there is anything to compare: a view has no
// documents of its own.
func (p *pair) holdsDocuments() bool { return !p.source.View && !p.held.View }

// addSource counts a document that was read at the source, addTarget one at the
// destination. Both are safe for concurrent use.
func (t *tally) addSource(size int) {
	t.read[0].Add(1)
	t.bytes.Add(int64(size))
}

func (t *tally) addTarget() { t.read[1].Add(1) }

// unstable says, where so, that a side did not hold the same number of documents
// while it was counted and while it was read.
func (t *tally) unstable() string {
	for i, name := range []string{"source", "destination"} {
		if read := t.read[i].Load(); read != t.counted[i] {
			return fmt.Sprintf("the %s of ns=%s held %d documents when they were counted and %d when they were read", name, t.pair.source.NS, t.counted[i], read)
		}
	}
	return ""
}

func (t *tally) result() Collection {
	return Collection{
		Source: t.pair.source.NS.String(), Target: t.pair.target.String(), View: t.pair.source.View,
		SourceDocuments: t.counted[0], TargetDocuments: t.counted[1], Bytes: t.bytes.Load(),
	}
}
