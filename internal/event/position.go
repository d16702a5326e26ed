package event

import (
	"cmp"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Position is a place in the source's order of changes.
type Position struct {
	// Time is the cluster time of the oplog entry that made the change
	// effective (a prepared transaction's commit, not its prepare).
	Time bson.Timestamp
	// Term is the election term of that entry; it takes no part in the order.
	Term int64
	// Index counts the operations inside one cluster time from 0, before any
	// selection, so that it does not depend on configuration.
	Index int32
}

// Compare orders positions by cluster time, then index: -1, 0 or 1.
func (p Position) Compare(q Position) int {
	if c := CompareTimes(p.Time, q.Time); c != 0 {
		return c
	}
	return cmp.Compare(p.Index, q.Index)
}

// IsZero reports whether p is before everything.
func (p Position) IsZero() bool { return p == Position{} }

// String returns "t.i/index@term", for messages and status.
func (p Position) String() string {
	return fmt.Sprintf("%d.%d/%d@%d", p.Time.T, p.Time.I, p.Index, p.Term)
}

// CompareTimes orders cluster times: -1, 0 or 1.
func CompareTimes(a, b bson.Timestamp) int {
	if c := cmp.Compare(a.T, b.T); c != 0 {
		return c
	}
	return cmp.Compare(a.I, b.I)
}
