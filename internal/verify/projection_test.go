package verify

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestIndexesWhoseFieldsAServerReorders compares wildcard projections whatever
// their order, and everything else as it is.
func TestIndexesWhoseFieldsAServerReorders(t *testing.T) {
	tests := map[string]struct {
		a, b string
		same bool
	}{
		"projection in another order":    {`{"wildcardProjection": {"n": true, "o": {"x": true, "y": true}}}`, `{"wildcardProjection": {"o": {"y": true, "x": true}, "n": true}}`, true},
		"projection of another field":    {`{"wildcardProjection": {"n": true, "o": true}}`, `{"wildcardProjection": {"n": true, "p": true}}`, false},
		"projection of fewer fields":     {`{"wildcardProjection": {"n": true, "o": true}}`, `{"wildcardProjection": {"n": true}}`, false},
		"projection with another value":  {`{"wildcardProjection": {"n": true, "o": {"x": true}}}`, `{"wildcardProjection": {"n": true, "o": {"x": false}}}`, false},
		"projection with another type":   {`{"wildcardProjection": {"n": true}}`, `{"wildcardProjection": {"n": {"x": true}}}`, false},
		"key in another order":           {`{"key": {"a": 1, "b": 1}}`, `{"key": {"b": 1, "a": 1}}`, false},
		"projection beside another name": {`{"name": "a", "wildcardProjection": {"n": true}}`, `{"name": "b", "wildcardProjection": {"n": true}}`, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var a, b bson.Raw
			for text, into := range map[string]*bson.Raw{test.a: &a, test.b: &b} {
				if err := bson.UnmarshalExtJSON([]byte(text), false, into); err != nil {
					t.Fatal(err)
				}
			}
			names, err := differingFields(a, b)
			if err != nil || (len(names) == 0) != test.same {
				t.Errorf("differing fields: %v, %v; want the same: %t", names, err, test.same)
			}
		})
	}
}
