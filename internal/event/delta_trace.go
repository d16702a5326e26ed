package event

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Trace says what an ordered delta did to the names of a document, at any level
// of it. Together over several deltas it tells where the order of fields may be
// another than the source's: an ordered delta does not say whether a field that
// it sets was new. Applied to a document that is later than it, it puts a field
// at the end that an earlier delta removed, behind fields that the source added
// after it.
type Trace struct {
	// Removed: a field that was there is gone.
	Removed bool
	// Added: a field that was not there stands at the end now.
	Added bool
}

// ApplyTraced is Apply and says what became of names. A diff says for itself
// what goes to the end, and leaves no trace.
func (d Delta) ApplyTraced(doc bson.Raw, mode ApplyMode) (bson.Raw, Trace, error) {
	a := applier{lenient: mode == Lenient, dst: make([]byte, 0, len(doc)+len(d)+32)}
	after, err := d.applyWith(&a, doc)
	return after, a.trace, err
}

// applyWith is Apply with an applier of the caller's.
func (d Delta) applyWith(a *applier, doc bson.Raw) (bson.Raw, error) {
	var err error
	if isOrdered(d) {
		err = a.ordered(doc, d)
	} else {
		err = a.diffDocument(doc, d, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("apply delta: %w", err)
	}
	if len(a.dst) > maxDocument {
		return nil, fmt.Errorf("apply delta: %w: %d bytes", ErrDeltaTooLarge, len(a.dst))
	}
	return IDFirst(a.dst)
}
