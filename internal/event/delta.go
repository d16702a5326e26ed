package event

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxDocument is the largest document that a server stores (16 MiB).
const maxDocument = 16 << 20

var (
	// ErrDeltaInvalid is returned, wrapped, for bytes that are no delta.
	ErrDeltaInvalid = errors.New("invalid delta")
	// ErrDeltaMismatch is returned, wrapped with the path, when a delta does
	// not fit the document: it names something that is not there, or an array
	// or document where the document holds something else.
	ErrDeltaMismatch = errors.New("delta does not fit the document")
	// ErrDeltaAmbiguous is returned, wrapped with the path, when the update's
	// paths can be read in two ways and the held document does not decide.
	// Only the whole document helps: a refresh.
	ErrDeltaAmbiguous = errors.New("delta is ambiguous for the document")
	// ErrDeltaTooLarge is returned when the result would pass 16 MiB.
	ErrDeltaTooLarge = errors.New("document passes 16 MiB with the delta applied")
)

// ApplyMode says what Delta.Apply does with what does not fit.
type ApplyMode int

const (
	// Strict is for a document in exactly the state that the update was made
	// on: what does not fit is an ErrDeltaMismatch.
	Strict ApplyMode = iota
	// Lenient is for a document that may already be later (catching up,
	// replay, redelivery): what does not fit is left alone, because an event
	// that made it so, and sets it whole, is still to come.
	Lenient
)

// Delta is an update in canonical form. It is a BSON document, kept raw; nil
// is none. There are two forms, told apart by the first field's name.
//
// A diff is the document that MongoDB logs as "diff" under $v: 2, byte for
// byte. It holds for every possible document:
//
//	diff     = {d: {<name>: false, …}, u: {<name>: <value>, …},
//	            i: {<name>: <value>, …}, s<name>: subdiff, …}
//	subdiff  = diff | {a: true, l: <int32 length>, u<n>: <value>, s<n>: subdiff, …}
//
// Every part is optional but stands in this order, and none is empty. Fields
// named in d are removed, in u replaced where they stand, in i removed and
// added at the end in this order, in s changed inside. In arrays l is the new
// length (applied first, padding with null) and positions n ascend; u past the
// end pads with null.
//
// An ordered delta comes from updates that are logged as paths ($set, $unset,
// change streams' updateDescription), which do not say whether "0" is a
// position or a name, nor which fields are new. Its elements are in the order
// in which the source applied them:
//
//	ordered  = {o: <int32 rule>, n: node}
//	rule     = 1: every dot of a path separated two names
//	           2: a name with a dot in it was not ruled out
//	node     = {l: <int32 length>, <op><kind><name>: …, …}    (l optional)
//	op       = s: set, the value is the new one
//	           u: unset, the value is true
//	           n: inside, the value is a node
//	kind     = f: a field of that name
//	           p: a position, in decimal
//	           e: either, the name is decimal: a position where the document
//	              holds an array, else a field
//
// Names in one node differ. Example: $set {"a.0.b": 1, c: 2}, $unset {d: true}
// is {o: 1, n: {nfa: {ne0: {sfb: 1}}, sfc: 2, ufd: true}}.
type Delta bson.Raw

// DeltaFromRaw takes either form, checked in full. The delta aliases raw.
func DeltaFromRaw(raw bson.Raw) (Delta, error) {
	if raw == nil {
		return nil, nil
	}
	var err error
	if isOrdered(raw) {
		err = validateOrdered(raw)
	} else {
		err = validateDiff(raw, 0)
	}
	if err != nil {
		return nil, err
	}
	return Delta(raw), nil
}

// DeltaFromDiff takes the "diff" document of a $v: 2 oplog entry, checked in
// full. The delta aliases diff.
func DeltaFromDiff(diff bson.Raw) (Delta, error) {
	if err := validateDiff(diff, 0); err != nil {
		return nil, err
	}
	return Delta(diff), nil
}

// Raw returns the delta's bytes.
func (d Delta) Raw() bson.Raw { return bson.Raw(d) }

// Ambiguous reports whether the delta came from paths, so that what it means
// depends on the document that it is applied to.
func (d Delta) Ambiguous() bool { return isOrdered(d) }

// Apply returns doc with the update made. It follows the rules by which a
// server applies its own log (differences are named at the two forms' appliers)
// and copies everything that the update does not name byte for byte, so that
// field order, duplicate names, types and payloads survive. As after every
// update on a server, _id comes first (see IDFirst). It reads doc and the delta
// once. The result is new, and doc is not changed. It accepts any bytes without
// panicking; malformed ones are rawbson.ErrMalformed or ErrDeltaInvalid.
func (d Delta) Apply(doc bson.Raw, mode ApplyMode) (bson.Raw, error) {
	a := applier{lenient: mode == Lenient, dst: make([]byte, 0, len(doc)+len(d)+32)}
	return d.applyWith(&a, doc)
}

// applier holds what one Apply needs.
type applier struct {
	lenient bool
	dst     []byte
	// changes is a stack: each level pushes its own and takes them off again.
	changes []change
	// trace is what happened to names.
	trace Trace
}

// change is what a delta says about one name of one level.
type change struct {
	name []byte
	elem rawbson.Element
	op   byte
	kind byte
	hit  bool
}

// smallLevel is how many changes of a level are searched one by one.
const smallLevel = 8

// level finds the changes of one document level by name.
type level struct {
	base  int
	index map[string]int
}

// levelFrom indexes the changes above base when they are many.
func (a *applier) levelFrom(base int) level {
	l := level{base: base}
	if len(a.changes)-base > smallLevel {
		l.index = make(map[string]int, len(a.changes)-base)
		for i := base; i < len(a.changes); i++ {
			l.index[string(a.changes[i].name)] = i
		}
	}
	return l
}

// find returns the place of the change for name, or -1. It must be called
// while the level's changes are on top of the stack.
func (a *applier) find(l level, name []byte) int {
	if l.index != nil {
		if i, ok := l.index[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := l.base; i < len(a.changes); i++ {
		if string(a.changes[i].name) == string(name) {
			return i
		}
	}
	return -1
}

// pathError carries the path of a fault, built while the calls return, so that
// a fitting delta pays nothing for it.
type pathError struct {
	path []string
	what string
	err  error
}

func (e *pathError) Error() string {
	return fmt.Sprintf("%v at %q: %s", e.err, strings.Join(e.path, "."), e.what)
}

func (e *pathError) Unwrap() error { return e.err }

// under puts a name in front of the error's path.
func under[S string | []byte](name S, err error) error {
	var p *pathError
	if errors.As(err, &p) {
		p.path = append([]string{string(name)}, p.path...)
	}
	return err
}

// misfit is an ErrDeltaMismatch in strict mode and nothing in lenient mode.
func (a *applier) misfit(name []byte, what string) error {
	if a.lenient {
		return nil
	}
	return &pathError{path: []string{string(name)}, what: what, err: ErrDeltaMismatch}
}
