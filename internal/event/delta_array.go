package event

import (
	"math"
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// arrayWriter appends an array's elements, named by position, to an applier's
// result.
type arrayWriter struct {
	a      *applier
	at     int
	next   int
	digits [20]byte
}

func (a *applier) beginArray() arrayWriter {
	w := arrayWriter{a: a}
	a.dst, w.at = rawbson.Begin(a.dst)
	return w
}

// name returns the name of the next element, good until the next call.
func (w *arrayWriter) name() []byte {
	return strconv.AppendInt(w.digits[:0], int64(w.next), 10)
}

// put appends the next element. It is where an array grows by padding, so the
// size is watched here and not only at the end.
func (w *arrayWriter) put(t bson.Type, value []byte) error {
	w.a.dst = rawbson.AppendValue(w.a.dst, t, w.name(), value)
	w.next++
	if len(w.a.dst) > maxDocument {
		return ErrDeltaTooLarge
	}
	return nil
}

// keep appends what the array held at the next position, null past its end.
func (w *arrayWriter) keep(held *rawbson.Element) error {
	if held == nil {
		return w.put(bson.TypeNull, nil)
	}
	return w.put(held.Type, held.Value)
}

func (w *arrayWriter) end() { w.a.dst = rawbson.End(w.a.dst, w.at) }

// parsePosition reads an array position as a server does: decimal digits alone
// (leading zeros too), within 32 bits.
func parsePosition[S string | []byte](s S) (int, bool) {
	if len(s) == 0 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > math.MaxUint32 {
			return 0, false
		}
	}
	return int(min(n, math.MaxInt)), true
}
