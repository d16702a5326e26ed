package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// What becomes of collections that no rule of sharding matches.
const (
	ShardingNone     = "none"
	ShardingHashedID = "hashed_id"
)

// maxInitialChunks is far below what servers take (8192 for each shard).
const maxInitialChunks = 8192

// Sharding says which collections of a sharded destination are sharded when they
// are made.
type Sharding struct {
	// Default is "none" or "hashed_id".
	Default string `yaml:"default"`
	// Rules are tried in their order; the first that matches decides.
	Rules []ShardRule `yaml:"rules"`
}

// ShardRule is how some collections are sharded.
type ShardRule struct {
	// Collections are patterns over their names in the destination.
	Collections []string `yaml:"collections"`
	// Unsharded leaves them unsharded; then nothing else is set.
	Unsharded bool `yaml:"unsharded"`
	// Key lists the shard key's fields, Hashed the one of them that is hashed.
	Key    []string `yaml:"key"`
	Hashed string   `yaml:"hashed"`
	Unique bool     `yaml:"unique"`
	// InitialChunks is for keys that begin with a hashed field.
	InitialChunks int `yaml:"initial_chunks"`
	// SplitAt are bounds as Extended JSON documents, for all other keys.
	SplitAt []string `yaml:"split_at"`
}

// KeyDocument is the shard key as {field: 1 or "hashed", …}; nil for unsharded.
func (s *ShardRule) KeyDocument() (bson.Raw, error) {
	if s.Unsharded {
		return nil, nil
	}
	key := bson.D{}
	for _, name := range s.Key {
		if name == s.Hashed {
			key = append(key, bson.E{Key: name, Value: "hashed"})
			continue
		}
		key = append(key, bson.E{Key: name, Value: int32(1)})
	}
	raw, err := bson.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("write shard key: %w", err)
	}
	return raw, nil
}

// Bounds are SplitAt as BSON.
func (s *ShardRule) Bounds() ([]bson.Raw, error) {
	var bounds []bson.Raw
	for _, text := range s.SplitAt {
		bound, err := parseBound(text)
		if err != nil {
			return nil, err
		}
		bounds = append(bounds, bound)
	}
	return bounds, nil
}

// Selection compiles Collections.
func (s *ShardRule) Selection() (*rules.Selection, error) {
	return rules.CompileSelection(s.Collections, nil)
}

func parseBound(text string) (bson.Raw, error) {
	// The driver takes the end of a text for the end of a document.
	if !json.Valid([]byte(text)) || !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return nil, fmt.Errorf("split_at %q is no document of Extended JSON", text)
	}
	var bound bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &bound); err != nil {
		return nil, fmt.Errorf("split_at %q is no document of Extended JSON", text)
	}
	raw, err := bson.Marshal(bound)
	if err != nil {
		return nil, fmt.Errorf("split_at %q is no document of Extended JSON", text)
	}
	return raw, nil
}

func (s *Sharding) validate(r *report, path string) {
	oneOf(r, path+".default", s.Default, ShardingNone, ShardingHashedID)
	for i := range s.Rules {
		s.Rules[i].validate(r, fmt.Sprintf("%s.rules[%d]", path, i))
	}
}

func (s *ShardRule) validate(r *report, path string) {
	if r.faultAt(path) {
		return
	}
	if len(s.Collections) == 0 {
		r.add(path+".collections", "is missing", "list patterns as shop.orders or shop.*, in the destination's names")
	}
	_, err := s.Selection()
	for _, fault := range split(err) {
		r.add(path+".collections", fault.Error(), "")
	}
	if s.Unsharded {
		if len(s.Key) > 0 || s.Hashed != "" || s.Unique || s.InitialChunks != 0 || len(s.SplitAt) > 0 {
			r.add(path+".unsharded", "stands beside a shard key", "remove one of them")
		}
		return
	}
	s.validateKey(r, path)
	s.validateChunks(r, path)
}

func (s *ShardRule) validateKey(r *report, path string) {
	if len(s.Key) == 0 {
		r.add(path+".key", "is missing", "list the shard key's fields, or say unsharded: true")
		return
	}
	for i, name := range s.Key {
		switch {
		case name == "" || strings.HasPrefix(name, "$") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
			r.add(fmt.Sprintf("%s.key[%d]", path, i), fmt.Sprintf("%q is no field", name), "write fields as region or address.country")
		case slices.Index(s.Key, name) < i:
			r.add(fmt.Sprintf("%s.key[%d]", path, i), fmt.Sprintf("%q is there twice", name), "remove one of them")
		}
	}
	if s.Hashed != "" && !slices.Contains(s.Key, s.Hashed) {
		r.add(path+".hashed", fmt.Sprintf("%q is not in the key", s.Hashed), "name one of the fields of key")
	}
	if s.Unique && s.Hashed != "" {
		r.add(path+".unique", "is not possible with a hashed field", "remove one of them")
	}
}

func (s *ShardRule) validateChunks(r *report, path string) {
	first := len(s.Key) > 0 && s.Key[0] == s.Hashed
	between(r, path+".initial_chunks", s.InitialChunks, 0, maxInitialChunks)
	switch {
	case s.InitialChunks > 0 && !first:
		r.add(path+".initial_chunks", "is for keys that begin with the hashed field", "say where to split: split_at")
	case len(s.SplitAt) > 0 && first:
		r.add(path+".split_at", "is for keys that do not begin with a hashed field", "say how many: initial_chunks")
	}
	for i, text := range s.SplitAt {
		at := fmt.Sprintf("%s.split_at[%d]", path, i)
		bound, err := parseBound(text)
		if err != nil {
			r.add(at, fmt.Sprintf("%q is no document of Extended JSON", text), `write {"region": "m"}`)
			continue
		}
		elements, err := bound.Elements()
		if err != nil || len(elements) == 0 || len(elements) > len(s.Key) {
			r.add(at, "does not have the fields of the key", "name its first fields, in their order")
			continue
		}
		for j, e := range elements {
			if e.Key() != s.Key[j] {
				r.add(at, "does not have the fields of the key", "name its first fields, in their order")
				break
			}
		}
	}
}
