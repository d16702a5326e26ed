package state

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tributarydb/tributary/internal/rules"
)

// SelectIDs is in the IDs of a RequestSelect and of the reloads that capture
// makes of it.
const SelectIDs = "/select/"

// SelectChange is a selection that was changed, as the group that asks has it:
// the pipeline's patterns first, then its destination's own.
type SelectChange struct {
	Was rules.Layers `json:"was" bson:"was"`
	Now rules.Layers `json:"now" bson:"now"`
}

// Added compiles what now selects and was did not.
func (c *SelectChange) Added() (func(db, coll string) bool, error) {
	was, err := c.Was.Compile()
	if err != nil {
		return nil, fmt.Errorf("compile the former selection: %w", err)
	}
	now, err := c.Now.Compile()
	if err != nil {
		return nil, fmt.Errorf("compile the selection: %w", err)
	}
	return func(db, coll string) bool { return now.Match(db, coll) && !was.Match(db, coll) }, nil
}

// Request makes the request for what a change has added to a group. Its ID
// follows from both, so that whoever finds the same change asks for the same.
func (c *SelectChange) Request(destination, group string) (*Request, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode changed selection: %w", err)
	}
	sum := sha256.Sum256(text)
	return &Request{
		Kind: RequestSelect, ID: fmt.Sprintf("%s%s%s/%x", destination, SelectIDs, group, sum[:8]), Destination: destination, Group: group,
		Select: c, Reason: "its selection was changed",
	}, nil
}

// validateSelect reports what keeps a RequestSelect from being served.
func (r *Request) validateSelect() error {
	if r.Select == nil || len(r.Select.Now) == 0 || len(r.IDs) > 0 || r.Destination == "" {
		return fmt.Errorf("check request id=%s: a changed selection needs a destination and its patterns, and nothing else", r.ID)
	}
	if _, err := r.Select.Added(); err != nil {
		return errors.Join(fmt.Errorf("check request id=%s", r.ID), err)
	}
	return nil
}
