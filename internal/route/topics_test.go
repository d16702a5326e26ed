package route

import (
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	tests := []struct {
		name string
		// problem is what the message must name; empty for good names.
		problem string
	}{
		{"orders", ""},
		{"Shop_2.eu-west", ""},
		{strings.Repeat("x", maxPipelineName), ""},
		{"...", ""},
		{"", "empty"},
		{".", "reserved"},
		{"..", "reserved"},
		{strings.Repeat("x", maxPipelineName+1), "at most 128"},
		{"shop orders", "' '"},
		{"shop/orders", "'/'"},
		{"größe", "'ö'"},
		{"a\x00b", `'\x00'`},
	}
	for _, tt := range tests {
		err := ValidateName("pipeline", tt.name)
		switch {
		case tt.problem == "" && err != nil:
			t.Errorf("%q: %v", tt.name, err)
		case tt.problem != "" && err == nil:
			t.Errorf("%q: no error", tt.name)
		case tt.problem != "" && (!strings.Contains(err.Error(), tt.problem) || !strings.Contains(err.Error(), "pipeline")):
			t.Errorf("%q: message %q names neither pipeline nor %s", tt.name, err, tt.problem)
		}
	}
}

// TestNamesDiffer makes sure that no topic, group or transactional id of a
// pipeline is taken for another.
func TestNamesDiffer(t *testing.T) {
	topics := TopicsOf("p")
	seen := map[string]bool{}
	for _, name := range []string{
		topics.Changes, topics.Snapshot, topics.Chunks, topics.State, topics.Control, DeadTopic("p", "d"),
		CaptureGroup("p"), SnapshotGroup("p"), ApplyGroup("p", "d", ""), ApplyGroup("p", "d", "g"),
		SnapshotTransactionalID("p", 0), SnapshotTransactionalID("p", 10),
	} {
		if seen[name] {
			t.Errorf("name %q is used twice", name)
		}
		seen[name] = true
	}
}
