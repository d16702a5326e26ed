package verify

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestServesShardKey(t *testing.T) {
	document := func(d bson.D) bson.Raw {
		raw, err := bson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	hashed, compound := bson.D{{Key: "a", Value: "hashed"}}, bson.D{{Key: "a", Value: int32(1)}, {Key: "b", Value: float64(1)}}
	for _, tt := range []struct {
		key, index bson.D
		serves     bool
	}{
		{hashed, hashed, true},
		{hashed, bson.D{{Key: "a", Value: int32(1)}}, false},
		{compound, bson.D{{Key: "a", Value: float64(1)}, {Key: "b", Value: int32(1)}}, true},
		{compound, bson.D{{Key: "a", Value: int32(1)}}, false},
		{nil, hashed, false},
	} {
		p := pair{}
		if tt.key != nil {
			p.shardKey = document(tt.key)
		}
		if got := p.servesShardKey(document(bson.D{{Key: "key", Value: tt.index}, {Key: "name", Value: "x"}})); got != tt.serves {
			t.Errorf("index %v serves shard key %v: %t", tt.index, tt.key, got)
		}
	}
}
