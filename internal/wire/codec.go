package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/linkedin/goavro/v2"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/schemas"
)

// ErrUnknownSchema is wrapped by the error for a record that was written with a
// schema this program does not know.
var ErrUnknownSchema = errors.New("unknown Avro schema")

// headerBytes is the length of the single-object marker and the fingerprint.
const headerBytes = 10

// Names of the records, as the schemas spell them.
const (
	nameEvent = "io.tributary.ChangeEvent"
	nameBatch = "io.tributary.SnapshotBatch"
	namePart  = "io.tributary.RecordPart"
)

// Codec encodes and decodes the records of the topics. It is safe for
// concurrent use.
//
// Records of today's schemas take a hand-written path that is held byte for
// byte to goavro by tests; records of earlier schemas are decoded by goavro
// itself, and what they lack has the schema's default.
type Codec struct {
	eventHeader [headerBytes]byte
	batchHeader [headerBytes]byte
	partHeader  [headerBytes]byte
	// ops and kinds are the schemas' symbols in their order; opCodes turns ops
	// around.
	ops     []event.Op
	opCodes map[event.Op]int64
	kinds   []BatchKind

	earlierEvents  map[uint64]*goavro.Codec
	earlierBatches map[uint64]*goavro.Codec

	namespaces interner[event.Namespace]
	sources    interner[event.Source]
}

// NewCodec prepares the schemas.
func NewCodec() (*Codec, error) {
	// A schema that replaces another keeps the former text in package schemas
	// and hands it over here, for as long as such records may be on a topic.
	return newCodec(schemas.ChangeEvent1)
}

// newCodec also reads records of the given earlier versions of the schemas.
func newCodec(earlier ...string) (*Codec, error) {
	c := &Codec{
		opCodes:        map[event.Op]int64{},
		earlierEvents:  map[uint64]*goavro.Codec{},
		earlierBatches: map[uint64]*goavro.Codec{},
	}
	if err := c.prepareEvents(); err != nil {
		return nil, err
	}
	if err := c.prepareBatches(); err != nil {
		return nil, err
	}
	part, err := goavro.NewCodec(schemas.RecordPart)
	if err != nil {
		return nil, fmt.Errorf("parse Avro schema %s: %w", namePart, err)
	}
	c.partHeader = header(part.Rabin)
	for _, text := range earlier {
		codec, err := goavro.NewCodec(text)
		if err != nil {
			return nil, fmt.Errorf("parse earlier Avro schema: %w", err)
		}
		name := codec.TypeName() // its String wants an address
		switch name.String() {
		case nameEvent:
			c.earlierEvents[codec.Rabin] = codec
		case nameBatch:
			c.earlierBatches[codec.Rabin] = codec
		default:
			return nil, fmt.Errorf("parse earlier Avro schema: record %q is not one of ours", name.String())
		}
	}
	return c, nil
}

func (c *Codec) prepareEvents() error {
	codec, err := goavro.NewCodec(schemas.ChangeEvent)
	if err != nil {
		return fmt.Errorf("parse Avro schema %s: %w", nameEvent, err)
	}
	c.eventHeader = header(codec.Rabin)
	symbols, err := enumSymbols(schemas.ChangeEvent, "op")
	if err != nil {
		return fmt.Errorf("parse Avro schema %s: %w", nameEvent, err)
	}
	for i, s := range symbols {
		c.ops = append(c.ops, event.Op(s))
		if event.Op(s).Valid() {
			c.opCodes[event.Op(s)] = int64(i)
		}
	}
	return nil
}

func (c *Codec) prepareBatches() error {
	codec, err := goavro.NewCodec(schemas.SnapshotBatch)
	if err != nil {
		return fmt.Errorf("parse Avro schema %s: %w", nameBatch, err)
	}
	c.batchHeader = header(codec.Rabin)
	symbols, err := enumSymbols(schemas.SnapshotBatch, "kind")
	if err != nil {
		return fmt.Errorf("parse Avro schema %s: %w", nameBatch, err)
	}
	for _, s := range symbols {
		c.kinds = append(c.kinds, BatchKind(s))
	}
	return nil
}

// header is the frame of Avro's single-object encoding.
func header(fingerprint uint64) [headerBytes]byte {
	h := [headerBytes]byte{0xc3, 0x01}
	binary.LittleEndian.PutUint64(h[2:], fingerprint)
	return h
}

// enumSymbols returns the symbols of the enum field named field.
func enumSymbols(schema, field string) ([]string, error) {
	var s struct {
		Fields []struct {
			Name string          `json:"name"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal([]byte(schema), &s); err != nil {
		return nil, fmt.Errorf("parse fields: %w", err)
	}
	for _, f := range s.Fields {
		if f.Name != field {
			continue
		}
		var enum struct {
			Symbols []string `json:"symbols"`
		}
		if err := json.Unmarshal(f.Type, &enum); err != nil {
			return nil, fmt.Errorf("parse field %s: %w", field, err)
		}
		return enum.Symbols, nil
	}
	return nil, fmt.Errorf("parse fields: no field %q", field)
}

// split takes the frame off b.
func split(b []byte) (fingerprint uint64, body []byte, err error) {
	if len(b) < headerBytes || b[0] != 0xc3 || b[1] != 0x01 {
		return 0, nil, errors.New("not an Avro single-object record (want the bytes C3 01 and a fingerprint): hint: was the topic written by something else?")
	}
	return binary.LittleEndian.Uint64(b[2:headerBytes]), b[headerBytes:], nil
}

func unknownSchema(fingerprint uint64) error {
	return fmt.Errorf("%w: fingerprint %016x: hint: the record was written by another version of tributary; upgrade this one first", ErrUnknownSchema, fingerprint)
}
