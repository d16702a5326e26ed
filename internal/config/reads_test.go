package config_test

import (
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/config"
)

func TestReadFrom(t *testing.T) {
	for _, test := range []struct {
		preference string
		tags       []string
		want       string
		fails      bool
	}{
		{"", nil, "", false},
		{"secondary", nil, "secondary", false},
		{"nearest", []string{"dc:east, use:reporting", ""}, "nearest", false},
		{"farthest", nil, "", true},
		{"nearest", []string{"east"}, "", true},
		{"primary", []string{"dc:east"}, "", true},
	} {
		s := config.Snapshot{ReadPreference: test.preference, ReadTags: test.tags}
		got, err := s.ReadFrom()
		switch {
		case (err != nil) != test.fails:
			t.Errorf("%+v: error %v", test, err)
		case err == nil && test.want == "" && got != nil:
			t.Errorf("%+v: %s", test, got)
		case test.want != "" && (!strings.HasPrefix(got.String(), test.want) || len(got.TagSets()) != len(test.tags)):
			t.Errorf("%+v: %s", test, got)
		}
	}
}
