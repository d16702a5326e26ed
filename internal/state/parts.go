package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A manifest of many collections may be more than one record can hold. Then its
// collections are cut into parts, which are written once, before the record of
// the run and in its transaction; that record, which is written again when the
// run ends, says how many there are and what they amount to. Load and Watch put
// them together: nobody else sees them.

const (
	prefixPart = "part/"
	// partOverhead is more than a key and what Kafka adds take.
	partOverhead = 1 << 10
	// collectionsField is how a manifest's collections begin, noCollections how
	// they stand in a record that has none.
	collectionsField = `"collections":`
	noCollections    = collectionsField + "null"
	// leastPart keeps the number of parts within reason.
	leastPart = 16 << 10
)

// keyPart is the key of a part of a run's collections.
func keyPart(run string, n int32) string {
	return prefixPart + KeyRun(run) + "/" + strconv.Itoa(int(n))
}

// ManifestRecords makes the records that set a run's manifest, of which none
// holds more than most bytes where that is 32 KiB or more. They belong into one
// transaction, in their order. Parts that the manifest has already are not
// written again: a run's collections never change.
func ManifestRecords(topic string, m *Manifest, most int) ([]*kgo.Record, error) {
	if m.Parts > 0 {
		head, err := headRecord(topic, m)
		return []*kgo.Record{head}, err
	}
	whole, err := Record(topic, KeyRun(m.Run), m)
	if err != nil || len(whole.Value)+partOverhead <= most {
		return []*kgo.Record{whole}, err
	}
	list, err := json.Marshal(m.Collections)
	if err != nil {
		return nil, fmt.Errorf("encode state record key=%s: %w", KeyRun(m.Run), err)
	}
	digest := sha256.Sum256(list)
	split := *m // the caller's has parts once it is read from the topic
	split.Digest = digest[:]
	var records []*kgo.Record
	for part := range slices.Chunk(list, max(most-partOverhead, leastPart)) {
		records = append(records, &kgo.Record{Topic: topic, Partition: 0, Key: []byte(keyPart(m.Run, split.Parts)), Value: part})
		split.Parts++
	}
	head, err := headRecord(topic, &split)
	return append(records, head), err
}

// headRecord is the manifest without its collections.
func headRecord(topic string, m *Manifest) (*kgo.Record, error) {
	head := *m
	head.Collections = nil
	return Record(topic, KeyRun(m.Run), &head)
}

// joiner puts manifests together from their parts, in the order of the topic.
type joiner struct {
	// parts are by run and number.
	parts map[string]map[int32][]byte
}

func newJoiner() *joiner { return &joiner{parts: map[string]map[int32][]byte{}} }

// add takes the topic's next record and returns its value as it is meant; whole
// is false for a part, and for a manifest of which parts are missing: the topic
// is being compacted, and a later record follows.
func (j *joiner) add(key string, value []byte) (joined []byte, whole bool, err error) {
	switch {
	case strings.HasPrefix(key, prefixPart):
		return nil, false, j.keep(key, value)
	case !IsRun(key) || value == nil:
		return value, true, nil
	}
	var head struct {
		Parts  int32  `json:"parts"`
		Digest []byte `json:"digest"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return nil, false, fmt.Errorf("decode state record key=%s: %w", key, err)
	}
	if head.Parts == 0 {
		return value, true, nil
	}
	var list []byte
	for n := range head.Parts {
		list = append(list, j.parts[strings.TrimPrefix(key, prefixRun)][n]...)
	}
	if digest := sha256.Sum256(list); !bytes.Equal(digest[:], head.Digest) {
		return nil, false, nil
	}
	// Inside of a text, quotes are escaped: this is the field.
	return bytes.Replace(value, []byte(noCollections), append([]byte(collectionsField), list...), 1), true, nil
}

// keep takes over or forgets a part.
func (j *joiner) keep(key string, value []byte) error {
	run, number, _ := strings.Cut(strings.TrimPrefix(key, prefixPart+prefixRun), "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		return fmt.Errorf("decode state record key=%s: %w", key, err)
	}
	if value == nil {
		delete(j.parts[run], int32(n))
		return nil
	}
	if j.parts[run] == nil {
		j.parts[run] = map[int32][]byte{}
	}
	j.parts[run][int32(n)] = value
	return nil
}
