package capture

import (
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/wire"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// BenchmarkEncode is the work of the parallel stage for one entry: decode,
// select, route, encode.
func BenchmarkEncode(b *testing.B) {
	codec, err := wire.NewCodec()
	if err != nil {
		b.Fatal(err)
	}
	e := encoder{
		decoder: (*mongoSource)(nil).decoder(event.Source{Deployment: "65a1b2c3d4e5f60718293a4b", Mode: ModeOplog, ServerVersion: "8.0.4"}, nil),
		codec:   codec, topic: "t", partitions: 12,
	}
	head := bson.D{
		{Key: "ts", Value: bson.Timestamp{T: 1_767_225_600, I: 1}},
		{Key: "t", Value: int64(1)},
		{Key: "v", Value: int64(2)},
		{Key: "ns", Value: "shop.orders"},
		{Key: "ui", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}},
	}
	id := bson.NewObjectID()
	for name, tail := range map[string]bson.D{
		"insert 1KiB": {{Key: "op", Value: "i"}, {Key: "o", Value: bson.D{{Key: "_id", Value: id}, {Key: "text", Value: strings.Repeat("x", 1000)}}}},
		"update": {
			{Key: "op", Value: "u"},
			{Key: "o", Value: bson.D{{Key: "$v", Value: int32(2)}, {Key: "diff", Value: bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: int32(1)}}}}}}},
			{Key: "o2", Value: bson.D{{Key: "_id", Value: id}}},
		},
		"delete": {{Key: "op", Value: "d"}, {Key: "o", Value: bson.D{{Key: "_id", Value: id}}}},
	} {
		entry, err := bson.Marshal(append(head[:len(head):len(head)], tail...))
		if err != nil {
			b.Fatal(err)
		}
		batch := newBatch()
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(entry)))
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%batchEntries == 0 {
					batch.reset()
				}
				batch.add(entry)
				if err := e.encodeItem(batch, batch.len()-1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
