package event

import (
	"bytes"
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// invalid is an ErrDeltaInvalid about one element.
func invalid(name []byte, what string) error {
	return fmt.Errorf("%w: %s at %q", ErrDeltaInvalid, what, name)
}

// uniqueNames finds a name that stands twice, one by one while they are few.
type uniqueNames struct {
	few  [smallLevel][]byte
	n    int
	many map[string]struct{}
}

// add reports whether the name is new.
func (u *uniqueNames) add(name []byte) bool {
	if u.many != nil {
		before := len(u.many)
		u.many[string(name)] = struct{}{}
		return len(u.many) > before
	}
	for _, seen := range u.few[:u.n] {
		if bytes.Equal(seen, name) {
			return false
		}
	}
	if u.n < len(u.few) {
		u.few[u.n] = name
		u.n++
		return true
	}
	u.many = make(map[string]struct{}, 2*len(u.few))
	for _, seen := range u.few {
		u.many[string(seen)] = struct{}{}
	}
	u.many[string(name)] = struct{}{}
	return true
}

// validateDiff checks a document diff: its parts in order, none empty, no name
// twice, all values whole.
func validateDiff(diff []byte, depth int) error {
	if depth > rawbson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(diff)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
	}
	if len(body) == 0 {
		return fmt.Errorf("%w: empty diff", ErrDeltaInvalid)
	}
	var names uniqueNames
	order := -1
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
		}
		body = rest
		part, err := partOrder(e.Name)
		if err != nil {
			return err
		}
		const inside = 3
		if e.Type != bson.TypeEmbeddedDocument || part < order || (part == order && part != inside) {
			return invalid(e.Name, "part out of place or no document")
		}
		order = part
		if part == inside {
			err = validateInside(&e, &names, depth)
		} else {
			err = validatePart(&e, &names)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func partOrder(name []byte) (int, error) {
	if len(name) > 0 && name[0] == partInside {
		return 3, nil
	}
	if len(name) == 1 {
		if i := bytes.IndexByte([]byte{partDelete, partUpdate, partInsert}, name[0]); i >= 0 {
			return i, nil
		}
	}
	if string(name) == "b" {
		return 0, invalid(name, "binary diff, which only time-series buckets have,")
	}
	return 0, invalid(name, "unknown part")
}

// validatePart checks one of d, u and i. The values of d mean nothing.
func validatePart(part *rawbson.Element, names *uniqueNames) error {
	body, err := rawbson.Body(part.Value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
	}
	for len(body) > 0 {
		e, rest, err := rawbson.Next(body)
		if err == nil {
			err = rawbson.ValidateValue(&e)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
		}
		if !names.add(e.Name) {
			return invalid(e.Name, "two changes of one field")
		}
		body = rest
	}
	return nil
}

func validateInside(e *rawbson.Element, names *uniqueNames, depth int) error {
	if !names.add(e.Name[1:]) {
		return invalid(e.Name[1:], "two changes of one field")
	}
	return validateSubDiff(e.Value, depth+1)
}

func validateSubDiff(diff []byte, depth int) error {
	if !isArrayDiff(diff) {
		return validateDiff(diff, depth)
	}
	if depth > rawbson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	r, err := readArrayDiff(diff)
	for err == nil && r.more {
		if r.op == partInside {
			err = validateSubDiff(r.elem.Value, depth+1)
		} else if err = rawbson.ValidateValue(&r.elem); err != nil {
			err = fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
		}
		if err == nil {
			err = r.advance()
		}
	}
	return err
}

func validateOrdered(raw []byte) error {
	_, node, err := readOrdered(raw)
	if err != nil {
		return err
	}
	return validateNode(node, 0)
}

// validateNode checks a node; that of depth 0 is the root.
func validateNode(node []byte, depth int) error {
	if depth > rawbson.MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	body, err := rawbson.Body(node)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
	}
	if len(body) == 0 && depth > 0 {
		return fmt.Errorf("%w: empty node", ErrDeltaInvalid)
	}
	var names uniqueNames
	for first := true; len(body) > 0; first = false {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
		}
		body = rest
		if n, ok := e.Int32(); ok && n >= 0 && first && depth > 0 && string(e.Name) == "l" {
			continue
		}
		if err := validateChange(&e, depth); err != nil {
			return err
		}
		if !names.add(e.Name[2:]) {
			return invalid(e.Name[2:], "two changes of one name")
		}
	}
	return nil
}

func validateChange(e *rawbson.Element, depth int) error {
	if len(e.Name) < 2 {
		return invalid(e.Name, "unknown change")
	}
	switch e.Name[1] {
	case kindField:
	case kindPosition, kindEither:
		if _, ok := parsePosition(e.Name[2:]); !ok {
			return invalid(e.Name, "no position")
		}
	default:
		return invalid(e.Name, "unknown kind of name")
	}
	switch e.Name[0] {
	case opSet:
		if err := rawbson.ValidateValue(e); err != nil {
			return fmt.Errorf("%w: %w", ErrDeltaInvalid, err)
		}
		return nil
	case opUnset:
		if !e.True() {
			return invalid(e.Name, "unset without true")
		}
		return nil
	case opInside:
		if e.Type != bson.TypeEmbeddedDocument {
			return invalid(e.Name, "no node")
		}
		return validateNode(e.Value, depth+1)
	default:
		return invalid(e.Name, "unknown change")
	}
}
