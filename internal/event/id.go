package event

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxIDDepth bounds nesting inside an _id; a server refuses more than 200.
const maxIDDepth = 256

const hexDigits = "0123456789abcdef"

// AppendIDKey appends v to dst as canonical Extended JSON in a normal form in
// which two values are equal exactly if MongoDB's simple collation compares
// them as equal, which is when a unique index takes them for one _id:
//
//   - numbers by their exact value, whatever their type: $numberInt if it is an
//     integer of 32 bits, else $numberLong if of 64, else $numberDouble if a
//     double holds it exactly, else $numberDecimal without trailing zeros; all
//     zeros are one, all NaNs are one, infinities are doubles;
//   - symbols as strings, MinKey and MaxKey as themselves, undefined apart from
//     null;
//   - documents and arrays element by element, in order, with their names.
//
// It departs from the letter of Extended JSON where that would make different
// values alike: a field name that starts with "$" has it written as \u0024, a
// binary shows its stored bytes for subtype 2 too, and bytes that are not UTF-8
// are copied. It reads any input, errors on malformed values and, but for
// decimals and large doubles, allocates nothing beyond dst.
func AppendIDKey(dst []byte, v bson.RawValue) ([]byte, error) {
	start := len(dst)
	// A walk over one element checks the extent of the value once and for all.
	if err := checkExtent(v); err != nil {
		return dst[:start], err
	}
	dst, err := appendID(dst, v.Type, v.Value, 0)
	if err != nil {
		return dst[:start], fmt.Errorf("write _id of type %s: %w", v.Type, err)
	}
	return dst, nil
}

func checkExtent(v bson.RawValue) error {
	n, err := rawbson.ValueSize(v.Type, v.Value)
	if err != nil {
		return fmt.Errorf("read _id: %w", err)
	}
	if n != len(v.Value) {
		return fmt.Errorf("read _id: %w: %d bytes after the value", rawbson.ErrMalformed, len(v.Value)-n)
	}
	return nil
}

// appendID expects a value whose extent has been checked.
func appendID(dst []byte, t bson.Type, v []byte, depth int) ([]byte, error) {
	switch t {
	case bson.TypeObjectID:
		dst = append(dst, `{"$oid":"`...)
		dst = hex.AppendEncode(dst, v)
		return append(dst, `"}`...), nil
	case bson.TypeString, bson.TypeSymbol:
		return appendText(dst, "", v)
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128:
		return appendNumber(dst, t, v), nil
	case bson.TypeBoolean:
		return strconv.AppendBool(dst, v[0] != 0), nil
	case bson.TypeNull:
		return append(dst, "null"...), nil
	case bson.TypeUndefined:
		return append(dst, `{"$undefined":true}`...), nil
	case bson.TypeMinKey:
		return append(dst, `{"$minKey":1}`...), nil
	case bson.TypeMaxKey:
		return append(dst, `{"$maxKey":1}`...), nil
	case bson.TypeDateTime:
		dst = append(dst, `{"$date":{"$numberLong":"`...)
		dst = strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(v)), 10)
		return append(dst, `"}}`...), nil
	case bson.TypeTimestamp:
		dst = append(dst, `{"$timestamp":{"t":`...)
		dst = strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(v[4:])), 10)
		dst = append(dst, `,"i":`...)
		dst = strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(v)), 10)
		return append(dst, `}}`...), nil
	case bson.TypeBinary:
		dst = append(dst, `{"$binary":{"base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, v[5:])
		dst = append(dst, `","subType":"`...)
		dst = append(dst, hexDigits[v[4]>>4], hexDigits[v[4]&15])
		return append(dst, `"}}`...), nil
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		return appendIDDocument(dst, t, v, depth+1)
	default:
		return appendRareID(dst, t, v, depth)
	}
}

// appendRareID writes the types that hardly anyone uses as an _id.
func appendRareID(dst []byte, t bson.Type, v []byte, depth int) ([]byte, error) {
	switch t {
	case bson.TypeRegex:
		end := 0
		for v[end] != 0 {
			end++
		}
		dst = append(dst, `{"$regularExpression":{"pattern":`...)
		dst = appendQuoted(dst, v[:end])
		dst = append(dst, `,"options":`...)
		dst = appendQuoted(dst, v[end+1:len(v)-1])
		return append(dst, `}}`...), nil
	case bson.TypeDBPointer:
		dst, err := appendText(dst, `{"$dbPointer":{"$ref":`, v[:len(v)-12])
		if err != nil {
			return dst, err
		}
		dst = append(dst, `,"$id":{"$oid":"`...)
		dst = hex.AppendEncode(dst, v[len(v)-12:])
		return append(dst, `"}}}`...), nil
	case bson.TypeJavaScript:
		dst, err := appendText(dst, `{"$code":`, v)
		return append(dst, '}'), err
	case bson.TypeCodeWithScope:
		code, scope, err := rawbson.CodeWithScope(v)
		if err != nil {
			return dst, err
		}
		dst = append(dst, `{"$code":`...)
		dst = appendQuoted(dst, code)
		dst = append(dst, `,"$scope":`...)
		dst, err = appendIDDocument(dst, bson.TypeEmbeddedDocument, scope, depth+1)
		return append(dst, '}'), err
	default:
		return dst, fmt.Errorf("%w: type 0x%02x", rawbson.ErrMalformed, byte(t))
	}
}

// appendIDDocument writes a document, or an array as its elements in order
// (a server's index key has no names for the elements of an array).
func appendIDDocument(dst []byte, t bson.Type, doc []byte, depth int) ([]byte, error) {
	if depth > maxIDDepth {
		return dst, fmt.Errorf("%w: nested deeper than %d", rawbson.ErrMalformed, maxIDDepth)
	}
	body, err := rawbson.Body(doc)
	if err != nil {
		return dst, err
	}
	open, end := byte('{'), byte('}')
	if t == bson.TypeArray {
		open, end = '[', ']'
	}
	dst = append(dst, open)
	for first := true; len(body) > 0; first = false {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return dst, err
		}
		if !first {
			dst = append(dst, ',')
		}
		if t != bson.TypeArray {
			dst = append(appendName(dst, e.Name), ':')
		}
		if dst, err = appendID(dst, e.Type, e.Value, depth); err != nil {
			return dst, err
		}
		body = rest
	}
	return append(dst, end), nil
}

// appendName quotes a field name so that no document looks like an extended
// type: {"$oid": "…"} the document differs from the ObjectId.
func appendName(dst, name []byte) []byte {
	if len(name) == 0 || name[0] != '$' {
		return appendQuoted(dst, name)
	}
	at := len(dst)
	dst = appendQuoted(dst, name[1:])
	dst = append(dst, `\u0024`...)
	copy(dst[at+1+len(`\u0024`):], dst[at+1:])
	copy(dst[at+1:], `\u0024`)
	return dst
}

func appendText(dst []byte, before string, value []byte) ([]byte, error) {
	text, ok := rawbson.String(value)
	if !ok {
		return dst, fmt.Errorf("%w: string without end", rawbson.ErrMalformed)
	}
	return appendQuoted(append(dst, before...), text), nil
}

// appendQuoted writes a JSON string. Only what JSON demands is escaped, each
// in one way, so that different bytes stay different.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	clean := 0
	for i, c := range text {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[clean:i]...)
		if c < 0x20 {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
		clean = i + 1
	}
	dst = append(dst, text[clean:]...)
	return append(dst, '"')
}

// IDFirst returns doc with its _id as the first element: doc itself if it is
// there already or if there is none, else a copy. A server moves _id to the
// front whenever it inserts, updates or replaces a document, but logs the whole
// image of a replacement as it was before that.
func IDFirst(doc bson.Raw) (bson.Raw, error) {
	body, err := rawbson.Body(doc)
	if err != nil {
		return nil, fmt.Errorf("find _id: %w", err)
	}
	for before := 0; len(body) > 0; {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return nil, fmt.Errorf("find _id: %w", err)
		}
		if string(e.Name) != "_id" {
			before += len(e.Raw)
			body = rest
			continue
		}
		if before == 0 {
			return doc, nil
		}
		const head = 4
		moved := make([]byte, 0, len(doc))
		moved = append(moved, doc[:head]...)
		moved = append(moved, e.Raw...)
		moved = append(moved, doc[head:head+before]...)
		return append(append(moved, rest...), 0), nil
	}
	return doc, nil
}
