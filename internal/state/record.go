package state

import (
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Record makes the record that sets key to v in a state topic (partition 0), or
// that removes it when v is nil. The caller produces it: inside a transaction
// where the value describes one, plainly otherwise.
func Record(topic, key string, v any) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topic, Partition: 0, Key: []byte(key)}
	if v == nil {
		return r, nil
	}
	value, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode state record key=%s: %w", key, err)
	}
	r.Value = value
	return r, nil
}
