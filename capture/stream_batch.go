package capture

import (
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// streamBatch is what a batch of a change stream's items holds beside them.
type streamBatch struct {
	// positions are the items', as the tail counted them.
	positions []event.Position
	// token is that of the last item encoded; once all are, reached, which is
	// the one that goes with the batch's own reached.
	token, reached bson.Raw
	// records go into the transaction after the items' own.
	records []kgo.Record
}

func (s *streamBatch) reset() {
	clear(s.records)
	s.positions, s.records = s.positions[:0], s.records[:0]
	s.token, s.reached = nil, nil
}

func (s *streamBatch) finish(b *batch) {
	if s.reached != nil {
		s.token = s.reached
	}
	for _, r := range s.records {
		b.records = append(b.records, r)
		b.routes = append(b.routes, recordRoute{})
	}
}

// changeDecoder decodes the events of a change stream.
type changeDecoder struct {
	changestream.Decoder
	pipeline string
}

// decode gives each item the position that the tail counted. An update that its
// paths do not tell becomes a request for the document in its stead, in the same
// transaction.
func (d *changeDecoder) decode(b *batch, i int, dst []event.Event) ([]event.Event, event.Position, error) {
	at, item := b.stream.positions[i], b.entry(i)
	dst, err := d.Decode(item, at, dst)
	var ambiguous *changestream.AmbiguousError
	if errors.As(err, &ambiguous) {
		var record *kgo.Record
		if record, err = d.refresh(&ambiguous.Event); err == nil {
			b.stream.records = append(b.stream.records, *record)
		}
	}
	if err != nil {
		return dst, at, err
	}
	token, found, err := rawbson.Lookup(item, "_id")
	if err != nil {
		return dst, at, fmt.Errorf("read resume token: %w", err)
	}
	if found { // what capture found out by itself has none
		b.stream.token = token.Value
	}
	return dst, at, nil
}

// refresh asks for the document of an event.
func (d *changeDecoder) refresh(e *event.Event) (*kgo.Record, error) {
	id := e.ID()
	key, at := rawbson.Begin(nil)
	key = rawbson.End(rawbson.AppendValue(key, id.Type, "_id", id.Value), at)
	return state.RequestRecord(d.pipeline, &state.Request{
		Kind: state.RequestRefresh, ID: "capture/update/" + e.Position.String(), DB: e.NS.DB, Coll: e.NS.Coll, UUID: e.UUID,
		IDs: [][]byte{key}, Reason: "the change stream does not tell what an update did to it", Asked: time.Now().UTC(),
	})
}
