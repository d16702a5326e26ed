// Package rawbson walks and writes BSON bytes without decoding them: element
// by element, aliasing the source, with no allocation and no reflection. It
// exists because documents travel through Tributary as raw bytes, and because
// its callers must survive any input: every length is checked before it is
// used, and nothing panics.
//
// Terms. An element is a type byte, a name and a value. A body is a document
// without its length prefix and its final zero.
//
// All results alias their input. Nothing blocks.
package rawbson
