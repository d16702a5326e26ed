package front

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The wire protocol's sizes, operation codes and flags that the front knows.
const (
	headerSize     = 16
	maxMessageSize = 48_000_000

	opMsg = 2013

	flagChecksum   = 1 << 0
	flagMoreToCome = 1 << 1
)

// errMalformed says that a message is not what the wire protocol allows.
var errMalformed = errors.New("malformed message")

// message is one message as it came, header included.
type message []byte

func (m message) requestID() int32 { return int32(binary.LittleEndian.Uint32(m[4:])) }
func (m message) opCode() int32    { return int32(binary.LittleEndian.Uint32(m[12:])) }

// read reads one message.
func read(r io.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(header[:])
	if size < headerSize || size > maxMessageSize {
		return nil, fmt.Errorf("read message of %d bytes: %w", size, errMalformed)
	}
	m := make(message, size)
	copy(m, header[:])
	if _, err := io.ReadFull(r, m[headerSize:]); err != nil {
		return nil, fmt.Errorf("read message body: %w", err)
	}
	return m, nil
}

// sequence is a document sequence of an OP_MSG, such as the documents of an
// insert.
type sequence struct {
	name      string
	documents []bson.Raw
}

// command is a decoded OP_MSG. Its documents alias the message.
type command struct {
	requestID int32
	flags     uint32
	body      bson.Raw
	sequences []sequence
}

// decode takes an OP_MSG apart.
func decode(m message) (command, error) {
	c := command{requestID: m.requestID()}
	rest := m[headerSize:]
	if len(rest) < 5 {
		return command{}, fmt.Errorf("decode OP_MSG: %w", errMalformed)
	}
	c.flags = binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	if c.flags&flagChecksum != 0 {
		if len(rest) < 4 {
			return command{}, fmt.Errorf("decode OP_MSG: %w", errMalformed)
		}
		rest = rest[:len(rest)-4]
	}
	for len(rest) > 0 {
		kind := rest[0]
		section, err := cut(rest[1:])
		if err != nil {
			return command{}, err
		}
		switch kind {
		case 0:
			c.body = bson.Raw(section)
		case 1:
			s, err := decodeSequence(section)
			if err != nil {
				return command{}, err
			}
			c.sequences = append(c.sequences, s)
		default:
			return command{}, fmt.Errorf("decode OP_MSG section of kind %d: %w", kind, errMalformed)
		}
		rest = rest[1+len(section):]
	}
	if err := c.body.Validate(); err != nil {
		return command{}, fmt.Errorf("decode OP_MSG body: %w", err)
	}
	return c, nil
}

// cut returns the start of b that its first four bytes give the length of.
func cut(b []byte) ([]byte, error) {
	if len(b) < 5 {
		return nil, fmt.Errorf("decode section: %w", errMalformed)
	}
	size := binary.LittleEndian.Uint32(b)
	if size < 5 || uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("decode section of %d bytes: %w", size, errMalformed)
	}
	return b[:size], nil
}

// decodeSequence takes a section of kind 1 apart.
func decodeSequence(section []byte) (sequence, error) {
	rest := section[4:]
	var s sequence
	for i, b := range rest {
		if b == 0 {
			s.name, rest = string(rest[:i]), rest[i+1:]
			break
		}
	}
	if s.name == "" {
		return sequence{}, fmt.Errorf("decode document sequence: %w", errMalformed)
	}
	for len(rest) > 0 {
		doc, err := cut(rest)
		if err != nil {
			return sequence{}, fmt.Errorf("decode document sequence %s: %w", s.name, err)
		}
		if err := bson.Raw(doc).Validate(); err != nil {
			return sequence{}, fmt.Errorf("decode document sequence %s: %w", s.name, err)
		}
		s.documents = append(s.documents, doc)
		rest = rest[len(doc):]
	}
	return s, nil
}

// encode puts an OP_MSG together.
func encode(requestID, responseTo int32, body bson.Raw, sequences ...sequence) message {
	m := make(message, headerSize+4, headerSize+5+len(body))
	m = append(append(m, 0), body...)
	for _, s := range sequences {
		m = append(m, 1)
		at := len(m)
		m = append(m, 0, 0, 0, 0)
		m = append(append(m, s.name...), 0)
		for _, d := range s.documents {
			m = append(m, d...)
		}
		binary.LittleEndian.PutUint32(m[at:], uint32(len(m)-at))
	}
	binary.LittleEndian.PutUint32(m, uint32(len(m)))
	binary.LittleEndian.PutUint32(m[4:], uint32(requestID))
	binary.LittleEndian.PutUint32(m[8:], uint32(responseTo))
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	return m
}

// name is the command's name: the key of its body's first element.
func (c command) name() string {
	elements, err := c.body.Elements()
	if err != nil || len(elements) == 0 {
		return ""
	}
	return elements[0].Key()
}

// without returns the body without some of its elements.
func without(body bson.Raw, keys ...string) (bson.D, error) {
	elements, err := body.Elements()
	if err != nil {
		return nil, fmt.Errorf("read command: %w", err)
	}
	var d bson.D
next:
	for _, e := range elements {
		for _, k := range keys {
			if e.Key() == k {
				continue next
			}
		}
		d = append(d, bson.E{Key: e.Key(), Value: e.Value()})
	}
	return d, nil
}
