package rawbson

import (
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Begin starts a document at the end of dst and returns where, for End.
func Begin(dst []byte) ([]byte, int) {
	return append(dst, 0, 0, 0, 0), len(dst)
}

// End closes the document that Begin started at the place at.
func End(dst []byte, at int) []byte {
	dst = append(dst, 0)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// AppendHeader appends the type and the name of an element; its value comes
// next. The name must not hold a zero byte.
func AppendHeader[S string | []byte](dst []byte, t bson.Type, name S) []byte {
	dst = append(dst, byte(t))
	dst = append(dst, name...)
	return append(dst, 0)
}

// AppendValue appends an element with an encoded value.
func AppendValue[S string | []byte](dst []byte, t bson.Type, name S, value []byte) []byte {
	return append(AppendHeader(dst, t, name), value...)
}

// AppendString appends a string element.
func AppendString[S string | []byte](dst []byte, name string, value S) []byte {
	dst = AppendHeader(dst, bson.TypeString, name)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)+1))
	dst = append(dst, value...)
	return append(dst, 0)
}

// AppendInt32 appends an int32 element.
func AppendInt32(dst []byte, name string, value int32) []byte {
	dst = AppendHeader(dst, bson.TypeInt32, name)
	return binary.LittleEndian.AppendUint32(dst, uint32(value))
}
