package oplog

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
)

var (
	// ErrUnknown marks an entry of a kind that this version does not know.
	ErrUnknown = errors.New("unknown kind of oplog entry")
	// ErrUnsupported marks an entry that is known and cannot be decoded.
	ErrUnsupported = errors.New("unsupported oplog entry")
	// ErrMalformed marks an entry that lacks what its kind must have.
	ErrMalformed = errors.New("malformed oplog entry")
)

const (
	hintReload  = "start a new pipeline name with a full load"
	hintUpgrade = "use a version of Tributary that knows it, or start a new pipeline name with a full load"
	hintExclude = "exclude it from the selection, or drop it and start a new pipeline name with a full load"
)

// EntryError says which entry cannot be decoded, why, and what an operator can
// do. It wraps ErrUnknown, ErrUnsupported or ErrMalformed.
type EntryError struct {
	Position event.Position
	// Op is the entry's op: i, u, d, c, ….
	Op string
	// Namespace is the entry's, which for commands is "db.$cmd".
	Namespace string
	// Command names the command; empty for other entries.
	Command string
	// Fragment is what part of a transaction the entry is, if it is one.
	Fragment Fragment
	// Hint is the remedy; it may be empty.
	Hint string
	// Err is the cause.
	Err error
}

// Error names entry, cause and remedy, and no content.
func (e *EntryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "decode oplog entry position=%s op=%s ns=%s", e.Position, e.Op, e.Namespace)
	if e.Command != "" {
		fmt.Fprintf(&b, " command=%s", e.Command)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, ": hint: %s", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

func (op *operation) unknown(what string) error {
	return op.fail(fmt.Errorf("%w: %s", ErrUnknown, what), hintUpgrade)
}

func (op *operation) unsupported(what string) error {
	return op.fail(fmt.Errorf("%w: %s", ErrUnsupported, what), hintReload)
}

func (op *operation) malformed(what string) error {
	return op.fail(fmt.Errorf("%w: %s", ErrMalformed, what), "")
}

// fail wraps a cause with the entry's name; causes from other packages, which
// are faults in the entry's bytes, count as malformed.
func (op *operation) fail(err error, hint string) error {
	known := errors.Is(err, ErrUnknown) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrMalformed)
	if !known {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return &EntryError{
		Position:  op.at,
		Op:        string(op.kind),
		Namespace: string(op.ns),
		Command:   op.command,
		Fragment:  op.fragment,
		Hint:      hint,
		Err:       err,
	}
}
