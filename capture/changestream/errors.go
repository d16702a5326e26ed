package changestream

import (
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
)

var (
	// ErrUnknown marks a change of a kind that this version does not know.
	ErrUnknown = errors.New("unknown kind of change stream event")
	// ErrMalformed marks a change that lacks what its kind must have.
	ErrMalformed = errors.New("malformed change stream event")
	// ErrTooLarge marks a split change whose fragments pass the bound.
	ErrTooLarge = errors.New("split change stream event is too large")
)

const hintUpgrade = "use a version of Tributary that knows it, or load the pipeline again, from a time after this event"

// EventError says which change cannot be decoded, why, and what an operator can
// do. It wraps ErrUnknown, ErrMalformed or ErrTooLarge.
type EventError struct {
	// Position is the change's; its index is not known where the change cannot
	// even be taken apart.
	Position event.Position
	// Kind is the change's operationType.
	Kind string
	// Namespace is the change's; it may be empty.
	Namespace string
	// Hint is the remedy; it may be empty.
	Hint string
	// Err is the cause.
	Err error
}

// Error names change, cause and remedy, and no content.
func (e *EventError) Error() string {
	text := fmt.Sprintf("decode change stream event position=%s type=%s ns=%s: %v", e.Position, e.Kind, e.Namespace, e.Err)
	if e.Hint != "" {
		text += " (remedy: " + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *EventError) Unwrap() error { return e.Err }

// AmbiguousError is returned for an update whose paths contradict each other,
// which names with dots in them cause: the document is known to have changed,
// and not how. It wraps event.ErrDeltaAmbiguous.
type AmbiguousError struct {
	// Event is the update without its delta.
	Event event.Event
	// Err is the cause.
	Err error
}

// Error names the event and the cause.
func (e *AmbiguousError) Error() string { return fmt.Sprintf("decode %s: %v", &e.Event, e.Err) }

// Unwrap returns the cause.
func (e *AmbiguousError) Unwrap() error { return e.Err }

func (c *change) unknown(what string) error {
	return c.fail(fmt.Errorf("%w: %s", ErrUnknown, what), hintUpgrade)
}

func (c *change) malformed(what string) error {
	return c.fail(fmt.Errorf("%w: %s", ErrMalformed, what), "")
}

// fail wraps a cause with the change's name; causes from other packages, which
// are faults in the change's bytes, count as malformed.
func (c *change) fail(err error, hint string) error {
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return &EventError{Position: c.at, Kind: string(c.kind), Namespace: c.ns.String(), Hint: hint, Err: err}
}
