package snapshot

import (
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// packer collects documents into the body of one batch: raw, one after another.
type packer struct {
	limit int
	buf   []byte
	count int32
	// last is where the last document begins in buf.
	last int
}

// newPacker makes a packer for batches of limit bytes.
func newPacker(limit int) *packer { return &packer{limit: limit} }

// fits reports whether doc may join what is there: a batch is at most limit
// bytes, and a document beyond that stands alone.
func (p *packer) fits(doc bson.Raw) bool {
	return p.count == 0 || len(p.buf)+len(doc) <= p.limit
}

// add copies doc, after fits said yes. It is the only copy that is made of a
// document before it is encoded.
func (p *packer) add(doc bson.Raw) {
	if p.buf == nil {
		p.buf = make([]byte, 0, max(p.limit, len(doc)))
	}
	p.last = len(p.buf)
	p.buf = append(p.buf, doc...)
	p.count++
}

// lastDocument is valid until reset.
func (p *packer) lastDocument() bson.Raw { return bson.Raw(p.buf[p.last:]) }

// lastID returns {_id: …} of the last document, in memory of its own.
func (p *packer) lastID() (bson.Raw, error) {
	return idOf(p.lastDocument())
}

// reset forgets the documents and keeps the buffer unless a single large
// document has made it large.
func (p *packer) reset() {
	if cap(p.buf) > 2*p.limit {
		p.buf = nil
	}
	p.buf, p.count, p.last = p.buf[:0], 0, 0
}

// idOf returns the document {_id: …} of doc, in memory of its own.
func idOf(doc bson.Raw) (bson.Raw, error) {
	id, ok, err := rawbson.Lookup(doc, "_id")
	if err != nil {
		return nil, fmt.Errorf("read _id: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("read _id: the document has none")
	}
	return idDocument(id.RawValue()), nil
}

// idDocument returns {_id: id}, in memory of its own.
func idDocument(id bson.RawValue) bson.Raw {
	dst, at := rawbson.Begin(make([]byte, 0, len(id.Value)+16))
	dst = rawbson.AppendValue(dst, id.Type, "_id", id.Value)
	return slices.Clip(rawbson.End(dst, at))
}
