package wire

import (
	"errors"
	"fmt"
)

// partOverhead is more than the frame, index, count and length of a part take.
const partOverhead = headerBytes + 3*10

// MaxRecordBytes is more than any record has: an _id, an image and a delta or a
// command, of at most 16 MiB and some KiB each (a limit of MongoDB's).
const MaxRecordBytes = 4 * 17 << 20

// ErrParts is wrapped by the error for parts that do not make a record: some
// are missing, out of order or too many.
var ErrParts = errors.New("the parts of a record do not fit together")

// Split cuts the framed record into framed parts of at most size bytes each.
// They go to the record's partition one after another, with its key, in one
// Kafka transaction. A record of at most size bytes is returned as it is, alone;
// size must leave room for more than the frame of a part. The parts are copies.
func (c *Codec) Split(record []byte, size int) ([][]byte, error) {
	if len(record) <= size {
		return [][]byte{record}, nil
	}
	share := size - partOverhead
	if share <= 0 {
		return nil, fmt.Errorf("split record of %d bytes: parts of %d bytes hold nothing", len(record), size)
	}
	count := (len(record) + share - 1) / share
	parts := make([][]byte, count)
	buf := make([]byte, 0, len(record)+count*partOverhead)
	for i := range parts {
		start := len(buf)
		buf = append(buf, c.partHeader[:]...)
		buf = appendLong(buf, int64(i))
		buf = appendLong(buf, int64(count))
		buf = appendBytes(buf, record[i*share:min((i+1)*share, len(record))])
		parts[i] = buf[start:len(buf):len(buf)]
	}
	return parts, nil
}

// part is one decoded RecordPart; bytes alias the record.
type part struct {
	index, count int32
	bytes        []byte
}

// isPart reports whether the record is a part of another.
func (c *Codec) isPart(record []byte) bool {
	return len(record) >= headerBytes && [headerBytes]byte(record[:headerBytes]) == c.partHeader
}

func decodePart(record []byte) (part, error) {
	r := reader{b: record[headerBytes:]}
	p := part{index: r.int(), count: r.int(), bytes: r.bytes()}
	if err := r.end(); err != nil {
		return part{}, fmt.Errorf("decode record part: %w", err)
	}
	if p.index < 0 || p.index >= p.count || p.count < 2 {
		return part{}, fmt.Errorf("decode record part: %w: part %d of %d", ErrParts, p.index, p.count)
	}
	return p, nil
}

// Assembler puts the records of one partition together that were cut into
// parts. It holds at most one record. The offset to resume at is that of the
// first part for as long as Open reports true. It belongs to one goroutine.
type Assembler struct {
	codec *Codec
	limit int
	whole []byte
	// next is the part that must come, of count; both are 0 between records.
	next, count int32
}

// NewAssembler returns an assembler for records of at most limit bytes.
func (c *Codec) NewAssembler(limit int) *Assembler { return &Assembler{codec: c, limit: limit} }

// Open reports whether parts of a record are held and others are missing.
func (a *Assembler) Open() bool { return a.next > 0 }

// Held is how many bytes of an incomplete record are held.
func (a *Assembler) Held() int { return len(a.whole) }

// Reset forgets the parts of an incomplete record.
func (a *Assembler) Reset() { a.whole, a.next, a.count = nil, 0, 0 }

// Add takes the value of the partition's next record and returns a whole one,
// or nil while parts are missing. A record that was not cut is returned as it
// is; one that was is in memory of its own. An error names what is wrong with
// the parts; the assembler is then as after Reset.
func (a *Assembler) Add(record []byte) ([]byte, error) {
	if !a.codec.isPart(record) {
		if a.Open() {
			err := fmt.Errorf("assemble record: %w: %d of %d parts came before another record", ErrParts, a.next, a.count)
			a.Reset()
			return nil, err
		}
		return record, nil
	}
	p, err := decodePart(record)
	if err == nil {
		err = a.take(p)
	}
	if err != nil {
		a.Reset()
		return nil, err
	}
	if a.next < a.count {
		return nil, nil
	}
	whole := a.whole
	a.Reset()
	return whole, nil
}

func (a *Assembler) take(p part) error {
	if p.index != a.next || a.Open() && p.count != a.count {
		return fmt.Errorf("assemble record: %w: part %d of %d came where part %d of %d was due: "+
			"hint: was the topic's beginning deleted in the middle of a record, or the offset moved by hand?", ErrParts, p.index, p.count, a.next, a.count)
	}
	if len(a.whole)+len(p.bytes) > a.limit {
		return fmt.Errorf("assemble record: %w: more than %d bytes", ErrParts, a.limit)
	}
	if a.next == 0 {
		// All parts but the last have one size.
		a.whole, a.count = make([]byte, 0, min(int64(p.count)*int64(len(p.bytes)), int64(a.limit))), p.count
	}
	a.whole = append(a.whole, p.bytes...)
	a.next++
	return nil
}
