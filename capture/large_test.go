package capture

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// incompressible is random, so that a batch is as large on its way as before.
func incompressible(r *rand.Rand, n int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], r.Uint64())
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// writeLarge appends entries that no broker with a limit of 1 MiB takes as one
// record: documents up to the largest there is, updates of them, and an _id of
// 3 MiB, with small ones between them.
func (s *script) writeLarge(r *rand.Rand) {
	const largest = 16<<20 - 1<<10
	for i, size := range []int{1<<20 - 300, 1 << 20, 3 << 20, largest} {
		s.insert("orders", i)
		s.append(bson.D{
			{Key: "op", Value: "i"},
			{Key: "ns", Value: "shop.orders"},
			{Key: "o", Value: bson.D{{Key: "_id", Value: i}, {Key: "data", Value: incompressible(r, size)}}},
		})
		s.append(bson.D{
			{Key: "op", Value: "u"},
			{Key: "ns", Value: "shop.orders"},
			{Key: "o", Value: bson.D{
				{Key: "$v", Value: int32(2)},
				{Key: "diff", Value: bson.D{{Key: "u", Value: bson.D{{Key: "data", Value: incompressible(r, size)}}}}},
			}},
			{Key: "o2", Value: bson.D{{Key: "_id", Value: i}}},
		})
	}
	id := strings.Repeat("long ", 600_000)
	s.insert("orders", id)
	s.delete("orders", id)
	s.insert("orders", 99)
}

// TestRecordsOverTheBrokersLimit has topics that take 1 MiB, and kills capture
// while parts of a record are under way.
func TestRecordsOverTheBrokersLimit(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		r := newRand(t)
		s := newScript()
		cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
		cfg.Topics.MaxMessageBytes = 1 << 20
		cfg.DrainTimeout = time.Nanosecond
		var client atomic.Pointer[kgo.Client]
		cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
		from := s.last()
		service := start(t, cfg)
		until(t, cfg, from)
		s.writeLarge(r)
		for range 2 {
			timer := time.NewTimer(time.Duration(r.IntN(300)) * time.Millisecond)
			<-timer.C
			client.Load().Close()
			service.cancel()
			if err := service.wait(); err != nil {
				t.Fatal(err)
			}
			service = start(t, cfg)
		}
		until(t, cfg, s.last())
		service.stop()
		checkExactlyOnce(t, cfg, s, from)
	})
}
