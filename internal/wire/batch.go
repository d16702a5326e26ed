package wire

import (
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/event"
)

// BatchKind tells a batch of documents from a mark.
type BatchKind string

// The kinds of records on the snapshot topic.
const (
	// BatchDocuments holds documents of one chunk.
	BatchDocuments BatchKind = "documents"
	// BatchRunEnd says that nothing of the run follows in this partition.
	BatchRunEnd BatchKind = "run_end"
)

// Batch is one record of the snapshot topic.
type Batch struct {
	Kind BatchKind
	// Run is the run's id.
	Run string
	// Chunk is the chunk inside the run; -1 for marks.
	Chunk int32
	// Sequence is the batch inside the chunk, from 0; a redelivered or retried
	// sub-range repeats it.
	Sequence int32
	NS       event.Namespace
	UUID     event.UUID
	// Count is how many documents Documents holds.
	Count int32
	// Documents are raw BSON documents, one after another.
	Documents []byte
}

// AppendBatch appends the framed record of b to dst. On an error dst is
// returned as it was.
func (c *Codec) AppendBatch(dst []byte, b *Batch) ([]byte, error) {
	if !b.Kind.valid() {
		return dst, fmt.Errorf("encode snapshot batch run=%s chunk=%d: kind %q is not in the schema", b.Run, b.Chunk, b.Kind)
	}
	dst = slices.Grow(dst, len(b.Documents)+len(b.Run)+len(b.NS.DB)+len(b.NS.Coll)+128)
	dst = append(dst, c.batchHeader[:]...)
	dst = appendLong(dst, int64(slices.Index(c.kinds, b.Kind)))
	dst = appendBytes(dst, b.Run)
	dst = appendLong(dst, int64(b.Chunk))
	dst = appendLong(dst, int64(b.Sequence))
	dst = appendBytes(dst, b.NS.DB)
	dst = appendBytes(dst, b.NS.Coll)
	dst = appendUUID(dst, &b.UUID)
	dst = appendLong(dst, int64(b.Count))
	return appendBytes(dst, b.Documents), nil
}

// DecodeBatch decodes one framed record. Documents alias b, which must not
// change as long as the batch is in use.
func (c *Codec) DecodeBatch(b []byte) (Batch, error) {
	fingerprint, body, err := split(b)
	if err != nil {
		return Batch{}, fmt.Errorf("decode snapshot batch: %w", err)
	}
	var batch Batch
	if [headerBytes]byte(b[:headerBytes]) == c.batchHeader {
		batch, err = c.decodeBatch(body)
	} else if codec, ok := c.earlierBatches[fingerprint]; ok {
		batch, err = batchFromNative(codec, body)
	} else {
		err = unknownSchema(fingerprint)
	}
	if err == nil && !batch.Kind.valid() {
		err = fmt.Errorf("kind %q is not known", batch.Kind)
	}
	if err != nil {
		return Batch{}, fmt.Errorf("decode snapshot batch: %w", err)
	}
	return batch, nil
}

func (c *Codec) decodeBatch(body []byte) (Batch, error) {
	var b Batch
	r := reader{b: body}
	kind := r.long()
	if kind < 0 || kind >= int64(len(c.kinds)) {
		return b, fmt.Errorf("kind code %d: %w", kind, errRange)
	}
	b.Kind = c.kinds[kind]
	b.Run = string(r.bytes())
	b.Chunk = r.int()
	b.Sequence = r.int()
	b.NS = c.namespace(&r)
	if u := r.optional(); u != nil {
		if len(u) != len(b.UUID) {
			return b, fmt.Errorf("collection UUID has %d bytes, want %d", len(u), len(b.UUID))
		}
		copy(b.UUID[:], u)
	}
	b.Count = r.int()
	b.Documents = r.bytes()
	return b, r.end()
}

func (k BatchKind) valid() bool { return k == BatchDocuments || k == BatchRunEnd }
