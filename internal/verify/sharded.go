package verify

import (
	"go.mongodb.org/mongo-driver/v2/bson"
)

// servesShardKey reports whether an index of the destination alone is that which
// its shard key needs: whoever shards a collection gets one.
func (p *pair) servesShardKey(spec bson.Raw) bool {
	key, ok := spec.Lookup("key").DocumentOK()
	if !ok || len(p.shardKey) == 0 {
		return false
	}
	of, errIndex := key.Elements()
	wanted, errKey := p.shardKey.Elements()
	if errIndex != nil || errKey != nil || len(of) != len(wanted) {
		return false
	}
	for i, f := range wanted {
		_, hashed := f.Value().StringValueOK()
		_, heldHashed := of[i].Value().StringValueOK()
		if of[i].Key() != f.Key() || hashed != heldHashed {
			return false
		}
	}
	return true
}
