package rawbson

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// ErrMalformed is returned, wrapped, for bytes that are not BSON.
var ErrMalformed = errors.New("malformed BSON")

// emptyDocument is the size of a document without elements, the smallest.
const emptyDocument = 5

// Element is one element of a document.
type Element struct {
	Type bson.Type
	// Raw is the whole element: type, name with its zero, value.
	Raw []byte
	// Name is the field's name without its zero.
	Name []byte
	// Value is the encoded value; for documents and arrays with their length.
	Value []byte
}

// RawValue returns the element's value in the driver's form.
func (e *Element) RawValue() bson.RawValue {
	return bson.RawValue{Type: e.Type, Value: e.Value}
}

// Int32 returns the value of an int32 element, and false for other types.
func (e *Element) Int32() (int32, bool) {
	if e.Type != bson.TypeInt32 || len(e.Value) != 4 {
		return 0, false
	}
	return int32(binary.LittleEndian.Uint32(e.Value)), true
}

// Int64 returns the value of an int64 or int32 element, and false for others.
func (e *Element) Int64() (int64, bool) {
	if e.Type == bson.TypeInt64 && len(e.Value) == 8 {
		return int64(binary.LittleEndian.Uint64(e.Value)), true
	}
	n, ok := e.Int32()
	return int64(n), ok
}

// True reports whether the element is the boolean true.
func (e *Element) True() bool {
	return e.Type == bson.TypeBoolean && len(e.Value) == 1 && e.Value[0] == 1
}

// Timestamp returns the value of a timestamp element, and false for others.
func (e *Element) Timestamp() (bson.Timestamp, bool) {
	if e.Type != bson.TypeTimestamp || len(e.Value) != 8 {
		return bson.Timestamp{}, false
	}
	return bson.Timestamp{
		T: binary.LittleEndian.Uint32(e.Value[4:]),
		I: binary.LittleEndian.Uint32(e.Value),
	}, true
}

// Text returns the bytes of a string element, and false for other types.
func (e *Element) Text() ([]byte, bool) {
	if e.Type != bson.TypeString {
		return nil, false
	}
	return String(e.Value)
}

// Body returns the elements of a document or array without length and final
// zero. It checks those two, not the elements.
func Body(doc []byte) ([]byte, error) {
	if len(doc) < emptyDocument {
		return nil, fmt.Errorf("%w: document of %d bytes", ErrMalformed, len(doc))
	}
	n := binary.LittleEndian.Uint32(doc)
	if uint64(n) != uint64(len(doc)) || doc[len(doc)-1] != 0 {
		return nil, fmt.Errorf("%w: document says %d bytes and has %d", ErrMalformed, n, len(doc))
	}
	return doc[4 : len(doc)-1], nil
}

// Next splits the first element off body. It checks the extent of its value,
// not what nested documents hold.
func Next(body []byte) (Element, []byte, error) {
	if len(body) < 2 {
		return Element{}, nil, fmt.Errorf("%w: element of %d bytes", ErrMalformed, len(body))
	}
	end := bytes.IndexByte(body[1:], 0)
	if end < 0 {
		return Element{}, nil, fmt.Errorf("%w: name without end", ErrMalformed)
	}
	start := end + 2
	size, err := ValueSize(bson.Type(body[0]), body[start:])
	if err != nil {
		return Element{}, nil, err
	}
	return Element{
		Type:  bson.Type(body[0]),
		Raw:   body[:start+size],
		Name:  body[1 : end+1],
		Value: body[start : start+size],
	}, body[start+size:], nil
}

// Lookup returns the first element of that name; false when there is none.
func Lookup(doc []byte, name string) (Element, bool, error) {
	body, err := Body(doc)
	if err != nil {
		return Element{}, false, err
	}
	for len(body) > 0 {
		e, rest, err := Next(body)
		if err != nil {
			return Element{}, false, err
		}
		if string(e.Name) == name {
			return e, true, nil
		}
		body = rest
	}
	return Element{}, false, nil
}

// String returns the bytes of an encoded string value without its length and
// final zero, and false when they are malformed.
func String(value []byte) ([]byte, bool) {
	if len(value) < 5 || uint64(binary.LittleEndian.Uint32(value)) != uint64(len(value)-4) || value[len(value)-1] != 0 {
		return nil, false
	}
	return value[4 : len(value)-1], true
}

// ValueSize returns how many bytes of src the value of that type takes.
func ValueSize(t bson.Type, src []byte) (int, error) {
	var size int
	switch t {
	case bson.TypeNull, bson.TypeUndefined, bson.TypeMinKey, bson.TypeMaxKey:
		return 0, nil
	case bson.TypeBoolean:
		size = 1
	case bson.TypeInt32:
		size = 4
	case bson.TypeDouble, bson.TypeInt64, bson.TypeDateTime, bson.TypeTimestamp:
		size = 8
	case bson.TypeObjectID:
		size = 12
	case bson.TypeDecimal128:
		size = 16
	case bson.TypeString, bson.TypeJavaScript, bson.TypeSymbol:
		size = prefixed(src, 4, 1)
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		size = prefixed(src, 0, emptyDocument)
	case bson.TypeBinary:
		size = prefixed(src, 5, 0)
	case bson.TypeDBPointer:
		size = prefixed(src, 16, 1)
	case bson.TypeCodeWithScope:
		size = prefixed(src, 0, 4+5+emptyDocument)
	case bson.TypeRegex:
		size = twoCStrings(src)
	default:
		return 0, fmt.Errorf("%w: type 0x%02x", ErrMalformed, byte(t))
	}
	if size < 0 || size > len(src) {
		return 0, fmt.Errorf("%w: value of type 0x%02x passes the end", ErrMalformed, byte(t))
	}
	return size, nil
}

// prefixed returns the size of a value that starts with its length, which
// leaves out extra bytes of the value and must be at least least; -1 when
// there is no such length.
func prefixed(src []byte, extra, least int) int {
	if len(src) < 4 {
		return -1
	}
	n := int32(binary.LittleEndian.Uint32(src))
	if n < int32(least) {
		return -1
	}
	return int(n) + extra
}

func twoCStrings(src []byte) int {
	first := bytes.IndexByte(src, 0)
	if first < 0 {
		return -1
	}
	second := bytes.IndexByte(src[first+1:], 0)
	if second < 0 {
		return -1
	}
	return first + second + 2
}
