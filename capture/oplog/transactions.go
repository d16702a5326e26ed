package oplog

import (
	"bytes"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Transactions follows the transactions over several entries that are open: of
// which a fragment was read, but not yet the entry that ends them. Fragments are
// linked by the time of the one before, since a server's own batches have no
// session. It is used from one goroutine.
type Transactions struct {
	// Limit bounds the bytes of the fragments that are held over all open
	// transactions; those that take most are forgotten first. Negative: none.
	Limit int64
	// open are the open ones by the time of their last fragment.
	open map[bson.Timestamp]*Transaction
	held int64
}

// Transaction is one over several entries.
type Transaction struct {
	// First and Last are the positions of its first and its last fragment.
	First, Last event.Position
	// Fragments are the applyOps entries from first to last, nil where they
	// are not held (Held) and must be read again.
	Fragments []bson.Raw
	Held      bool
	// LSID and Number are those of its session, nil for a server's own batch.
	LSID   bson.Raw
	Number int64

	prepared bool
	bytes    int64
}

// Prepared reports whether it waits for its coordinator's decision.
func (x *Transaction) Prepared() bool { return x.prepared }

// Take follows a fragment; entry is copied as far as it is kept. It returns the
// transaction that the entry commits, which is open no more, else nil. Known is
// false where the entry continues or commits a transaction that is not open:
// then nothing was done, and Take may be called again after Adopt.
func (t *Transactions) Take(entry bson.Raw, h *Header) (committed *Transaction, known bool) {
	if h.Fragment == Abort {
		t.abort(h)
		return nil, true
	}
	var x *Transaction
	if h.Previous == (bson.Timestamp{}) && h.Fragment != Commit {
		x = &Transaction{First: h.Position, Held: true, LSID: bytes.Clone(h.LSID), Number: h.Number}
	} else if x = t.open[h.Previous]; x == nil {
		return nil, false
	}
	delete(t.open, h.Previous)
	if h.Fragment == Commit {
		t.held -= x.bytes
		return x, true
	}
	x.Last, x.prepared = h.Position, h.Fragment == Prepared
	t.hold(x, entry)
	if h.Fragment == Last {
		t.held -= x.bytes
		return x, true
	}
	t.put(x)
	t.trim()
	return nil, true
}

// Adopt adds a transaction of which fragments were read elsewhere.
func (t *Transactions) Adopt(x *Transaction) { t.put(x) }

// NewTerm forgets what can no longer end: the fragments of one transaction that
// is not prepared are written at once, by one primary, so that those of an
// earlier term that are not followed by the rest never will be.
func (t *Transactions) NewTerm(term int64) {
	for _, x := range t.open {
		if !x.prepared && x.Last.Term < term {
			t.remove(x)
		}
	}
}

// Oldest returns where the first of the open transactions begins; false where
// none is open.
func (t *Transactions) Oldest() (event.Position, bool) {
	if x := t.First(); x != nil {
		return x.First, true
	}
	return event.Position{}, false
}

// First returns the open transaction that began first, nil where none is open.
// It is the caller's to look at until the next call of Take.
func (t *Transactions) First() *Transaction {
	var first *Transaction
	for _, x := range t.open {
		if first == nil || x.First.Compare(first.First) < 0 {
			first = x
		}
	}
	return first
}

// Open counts the open transactions.
func (t *Transactions) Open() int { return len(t.open) }

// Bytes returns the size of the fragments that are held.
func (t *Transactions) Bytes() int64 { return t.held }

func (t *Transactions) put(x *Transaction) {
	if t.open == nil {
		t.open = make(map[bson.Timestamp]*Transaction)
	}
	if same := t.open[x.Last.Time]; same != nil {
		t.remove(same)
	}
	t.open[x.Last.Time] = x
}

func (t *Transactions) remove(x *Transaction) {
	delete(t.open, x.Last.Time)
	t.held -= x.bytes
}

// abort ends the transaction without effect. A primary that finds one half
// written by its predecessor names another fragment than the last: then the
// session tells which. One that is not open needs no end.
func (t *Transactions) abort(h *Header) {
	if x := t.open[h.Previous]; x != nil {
		t.remove(x)
		return
	}
	for _, x := range t.open {
		if x.LSID != nil && x.Number == h.Number && bytes.Equal(x.LSID, h.LSID) {
			t.remove(x)
		}
	}
}

// hold keeps a fragment, if all before it are.
func (t *Transactions) hold(x *Transaction, fragment bson.Raw) {
	if !x.Held {
		return
	}
	n := int64(len(fragment))
	if t.Limit >= 0 && x.bytes+n > t.Limit {
		t.let(x)
		return
	}
	x.Fragments = append(x.Fragments, bytes.Clone(fragment))
	x.bytes += n
	t.held += n
}

// let forgets the fragments of a transaction.
func (t *Transactions) let(x *Transaction) {
	t.held -= x.bytes
	x.Fragments, x.Held, x.bytes = nil, false, 0
}

// trim forgets the fragments of the largest until the limit is kept.
func (t *Transactions) trim() {
	for t.Limit >= 0 && t.held > t.Limit {
		var largest *Transaction
		for _, x := range t.open {
			if largest == nil || x.bytes > largest.bytes {
				largest = x
			}
		}
		t.let(largest)
	}
}
