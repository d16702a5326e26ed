package rawbson

import (
	"encoding/binary"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// MaxDepth bounds nesting. A server refuses documents nested deeper than 200;
// deltas and commands wrap such documents a few times.
const MaxDepth = 512

// Validate checks a document and everything nested in it: lengths, types,
// ends. It does not check names, array indexes, UTF-8, booleans or the inner
// length of old binaries, since a server stores documents wrong in those.
func Validate(doc []byte) error { return validate(doc, 0) }

// ValidateValue is Validate for an element's value.
func ValidateValue(e *Element) error { return validateValue(e, 0) }

func validate(doc []byte, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, MaxDepth)
	}
	body, err := Body(doc)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		e, rest, err := Next(body)
		if err != nil {
			return err
		}
		if err := validateValue(&e, depth); err != nil {
			return err
		}
		body = rest
	}
	return nil
}

func validateValue(e *Element, depth int) error {
	switch e.Type {
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		return validate(e.Value, depth+1)
	case bson.TypeString, bson.TypeJavaScript, bson.TypeSymbol:
		if _, ok := String(e.Value); !ok {
			return fmt.Errorf("%w: string without end", ErrMalformed)
		}
	case bson.TypeDBPointer:
		if _, ok := String(e.Value[:len(e.Value)-12]); !ok {
			return fmt.Errorf("%w: string without end", ErrMalformed)
		}
	case bson.TypeCodeWithScope:
		_, scope, err := CodeWithScope(e.Value)
		if err != nil {
			return err
		}
		return validate(scope, depth+1)
	default:
	}
	return nil
}

// CodeWithScope splits the value of that type into the code, without length
// and zero, and the scope document.
func CodeWithScope(value []byte) (code, scope []byte, err error) {
	if len(value) < 4+5+emptyDocument {
		return nil, nil, fmt.Errorf("%w: code with scope of %d bytes", ErrMalformed, len(value))
	}
	n := uint64(binary.LittleEndian.Uint32(value[4:])) + 4
	if n > uint64(len(value)-4) {
		return nil, nil, fmt.Errorf("%w: code passes the end", ErrMalformed)
	}
	code, ok := String(value[4 : 4+n])
	if !ok {
		return nil, nil, fmt.Errorf("%w: string without end", ErrMalformed)
	}
	return code, value[4+n:], nil
}
