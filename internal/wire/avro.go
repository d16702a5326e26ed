package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

var (
	errShort    = errors.New("record ends inside a value")
	errVarint   = errors.New("integer has more than 64 bits")
	errNegative = errors.New("length is negative")
	errBranch   = errors.New("union branch does not exist")
	errRange    = errors.New("integer is out of the field's range")
	errTrailing = errors.New("bytes follow the record's end")
	// errNative says that goavro returned another type than today's schema
	// promises, which an incompatible earlier schema would cause.
	errNative = errors.New("field has another type than today's schema gives it")
)

// appendLong appends Avro's int or long: zigzag, then base 128.
func appendLong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// appendBytes appends Avro's bytes or string.
func appendBytes[T ~[]byte | ~string](dst []byte, b T) []byte {
	dst = appendLong(dst, int64(len(b)))
	return append(dst, b...)
}

// appendOptional appends the union of null and bytes; nil is null.
func appendOptional[T ~[]byte](dst []byte, b T) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return appendBytes(append(dst, 2), b)
}

// reader takes Avro values off a record's body. After its first error every
// further value is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) long() int64 {
	v, n := binary.Varint(r.b)
	switch {
	case n > 0:
		r.b = r.b[n:]
		return v
	case n == 0:
		r.fail(errShort)
	default:
		r.fail(errVarint)
	}
	return 0
}

func (r *reader) int() int32 {
	v := r.long()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail(errRange)
		return 0
	}
	return int32(v)
}

func (r *reader) uint32() uint32 {
	v := r.long()
	if v < 0 || v > math.MaxUint32 {
		r.fail(errRange)
		return 0
	}
	return uint32(v)
}

// bytes returns a piece of the input, which cannot be appended to in place.
func (r *reader) bytes() []byte {
	n := r.long()
	switch {
	case n < 0:
		r.fail(errNegative)
		return nil
	case n > int64(len(r.b)):
		r.fail(errShort)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// present reads the branch of a union of null and something.
func (r *reader) present() bool {
	switch r.long() {
	case 0:
		return false
	case 1:
		return r.err == nil
	default:
		r.fail(errBranch)
		return false
	}
}

func (r *reader) optional() []byte {
	if !r.present() {
		return nil
	}
	v := r.bytes()
	if v == nil && r.err == nil {
		return []byte{}
	}
	return v
}

// end reports what went wrong, or that something follows.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return errTrailing
	}
	return r.err
}
