package main

import (
	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/internal/config"
)

// shardingOf is how a destination's collections are spread.
func shardingOf(d config.Destination) (apply.Sharding, error) {
	s := apply.Sharding{HashedID: d.Sharding.Default == config.ShardingHashedID}
	for i := range d.Sharding.Rules {
		r := &d.Sharding.Rules[i]
		selection, err := r.Selection()
		if err != nil {
			return apply.Sharding{}, err
		}
		key, err := r.KeyDocument()
		if err != nil {
			return apply.Sharding{}, err
		}
		bounds, err := r.Bounds()
		if err != nil {
			return apply.Sharding{}, err
		}
		s.Rules = append(s.Rules, apply.ShardRule{Match: selection.Match, Key: key, Unique: r.Unique, Chunks: r.InitialChunks, SplitAt: bounds})
	}
	return s, nil
}
