package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxKeyBytes is the longest key kept as text; longer ones are hashed.
const maxKeyBytes = 1024

// KeyClass says what the events of a collection are ordered by.
type KeyClass uint8

const (
	// ByDocument keeps the order of each document: the key is namespace and _id.
	ByDocument KeyClass = iota
	// ByNamespace keeps the order of the whole collection: capped collections,
	// non-simple default collations, enforced unique indexes.
	ByNamespace
)

// AppendKey appends the record key of an event to dst: "db.coll|<_id in normal
// form>" or, by namespace, "db.coll|". A longer key than 1 KiB is replaced by
// "db.coll|#" and the hex SHA-256 of its text.
func AppendKey(dst []byte, ns event.Namespace, id bson.RawValue, class KeyClass) ([]byte, error) {
	start := len(dst)
	dst = append(dst, ns.DB...)
	dst = append(dst, '.')
	dst = append(dst, ns.Coll...)
	dst = append(dst, '|')
	if class == ByNamespace {
		return dst, nil
	}
	prefix := len(dst)
	dst, err := event.AppendIDKey(dst, id)
	if err != nil {
		return dst[:start], fmt.Errorf("key document ns=%s: %w", ns, err)
	}
	if len(dst)-start > maxKeyBytes {
		sum := sha256.Sum256(dst[start:])
		dst = append(dst[:prefix], '#')
		dst = hex.AppendEncode(dst, sum[:])
	}
	return dst, nil
}

// Partition is Kafka's default partitioner for keyed records: the positive
// murmur2 of the key modulo n (org.apache.kafka.clients.producer.internals
// BuiltInPartitioner.partitionForKey). N must be at least 1.
func Partition(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// murmur2 is Kafka's 32-bit variant (org.apache.kafka.common.utils.Utils),
// seed 0x9747b28c.
func murmur2(b []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(b))
	for len(b) >= 4 {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		b = b[4:]
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
