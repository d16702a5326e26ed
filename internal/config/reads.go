package config

import (
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/tag"
)

// ReadFrom returns which members the full load reads from; nil leaves it to the
// connection string. Reads wait until the member has what they need, whichever
// it is.
func (s *Snapshot) ReadFrom() (*readpref.ReadPref, error) {
	if s.ReadPreference == "" {
		return nil, nil
	}
	mode, err := readpref.ModeFromString(s.ReadPreference)
	if err != nil {
		return nil, fmt.Errorf("configure snapshot.read_preference: %w", err)
	}
	var opts []readpref.Option
	if len(s.ReadTags) > 0 {
		sets, err := s.tagSets()
		if err != nil {
			return nil, err
		}
		opts = append(opts, readpref.WithTagSets(sets...))
	}
	preference, err := readpref.New(mode, opts...)
	if err != nil {
		return nil, fmt.Errorf("configure snapshot.read_tags: %w", err)
	}
	return preference, nil
}

// tagSets reads ReadTags.
func (s *Snapshot) tagSets() ([]tag.Set, error) {
	sets := make([]tag.Set, 0, len(s.ReadTags))
	for _, text := range s.ReadTags {
		set := tag.Set{}
		for pair := range strings.SplitSeq(text, ",") {
			if strings.TrimSpace(text) == "" {
				break // any member
			}
			name, value, found := strings.Cut(pair, ":")
			if name = strings.TrimSpace(name); !found || name == "" {
				return nil, fmt.Errorf("configure snapshot.read_tags: %q is not name:value", pair)
			}
			set = append(set, tag.Tag{Name: name, Value: strings.TrimSpace(value)})
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (s *Snapshot) validateReads(r *report) {
	if s.ReadPreference != "" {
		oneOf(r, "snapshot.read_preference", s.ReadPreference, "primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest")
	}
	if len(s.ReadTags) == 0 || r.faultAt("snapshot.read_tags") {
		return
	}
	if _, err := s.tagSets(); err != nil {
		r.add("snapshot.read_tags", err.Error(), `write sets of tags as ["dc:east,use:reporting"]`)
	} else if s.ReadPreference == "" || s.ReadPreference == "primary" {
		r.add("snapshot.read_tags", "tags choose among secondaries", "set snapshot.read_preference to another value than primary")
	}
}
