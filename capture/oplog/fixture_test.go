package oplog_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// decodeAll decodes every entry of a scenario.
func decodeAll(t *testing.T, d *oplog.Decoder, s *fixture.Scenario) []event.Event {
	t.Helper()
	events, err := d.DecodeHistory(s.Oplog)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// TestEveryEntryDecodes names exactly the entries that do not by themselves:
// those of transactions over several entries.
func TestEveryEntryDecodes(t *testing.T) {
	want := map[string][]string{
		"diff-v2/transactions_chained": {"partial", "partial", "partial", "partial", "last"},
		"diff-v2/transactions_prepared": {
			"prepared", "commit", "prepared", "abort", "partial", "partial", "prepared", "commit",
		},
	}
	for _, name := range fixture.Names(t) {
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			var got []string
			for _, entry := range s.Oplog {
				d := oplog.Decoder{}
				events, err := d.Decode(entry, nil)
				var fault *oplog.EntryError
				switch {
				case err == nil:
					checkEvents(t, events)
				case errors.As(err, &fault) && errors.Is(err, oplog.ErrUnsupported) && len(events) == 0:
					got = append(got, fault.Fragment.String())
					if fault.Hint == "" || fault.Command == "" || fault.Namespace != "admin.$cmd" || fault.Position.IsZero() {
						t.Errorf("the error does not say enough: %v", fault)
					}
				default:
					t.Errorf("%v, %d events", err, len(events))
				}
			}
			if diff := cmp.Diff(want[name], got); diff != "" {
				t.Errorf("fragments (-want +got):\n%s", diff)
			}
		})
	}
}

// checkEvents checks what must hold for every event.
func checkEvents(t *testing.T, events []event.Event) {
	t.Helper()
	for i := range events {
		e := &events[i]
		if !e.Op.Valid() || e.NS.IsZero() || e.Position.IsZero() || e.WallTime.IsZero() {
			t.Errorf("incomplete: %+v", e)
		}
		if e.Op.IsData() == (e.DocumentKey == nil) || e.Op.IsDDL() == (e.DDL == nil) || (e.Op == event.OpUpdate) != (e.Delta != nil) {
			t.Errorf("%s has what it should not or lacks what it should have", e)
		}
		if e.Op.IsData() && e.UUID.IsZero() {
			t.Errorf("%s has no UUID", e)
		}
		if i > 0 && events[i-1].Position.Compare(e.Position) >= 0 {
			t.Errorf("%s does not follow %s", e, events[i-1].Position)
		}
	}
}

// dataScenarios hold data events alone.
func dataScenarios(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, name := range fixture.Names(t) {
		_, short, _ := strings.Cut(name, "/")
		switch {
		case strings.HasPrefix(short, "random_"), strings.HasPrefix(short, "update_"),
			short == "insert_types", short == "id_types", short == "replace_and_find_modify",
			short == "retryable_writes", short == "stepdown", short == "transactions_prepared", short == "transactions_chained":
			names = append(names, name)
		}
	}
	if len(names) < 13 {
		t.Fatalf("found only %v", names)
	}
	return names
}

func TestFixturesApply(t *testing.T) {
	for _, name := range dataScenarios(t) {
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			m := newModel(t, s.Before, event.Strict)
			events := decodeAll(t, &oplog.Decoder{}, s)
			for i := range events {
				if err := m.apply(t, &events[i]); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasSuffix(name, "/transactions_prepared") {
				m.mode = event.Lenient // a document's place is given where it is prepared
			}
			m.compare(t, s.After, sameBytes)
		})
	}
}

// TestFixturesReplay applies each history leniently over the state after it,
// twice, and from the middle of a first pass: every time it must end there.
//
// With $v: 1 the order of fields may differ. A field that is unset and set
// again goes to the end in the replay, but fields that were created after it
// are there already and, since $set does not say what it creates, stay before
// it. A server's own initial sync has the same limit. Diffs say what they
// create, and converge byte for byte.
func TestFixturesReplay(t *testing.T) {
	for _, name := range dataScenarios(t) {
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			events := decodeAll(t, &oplog.Decoder{}, s)
			same := sameBytes
			if strings.HasPrefix(name, "set-v1/") {
				same = sameFields
			}
			m := newModel(t, s.After, event.Lenient)
			for range 2 {
				for i := range events {
					if err := m.apply(t, &events[i]); err != nil {
						t.Fatal(err)
					}
				}
				m.compare(t, s.After, same)
			}
			for middle := 1; middle < len(events); middle += 1 + len(events)/7 {
				replayFrom(t, s, events[:middle], events, same)
			}
		})
	}
}

// replayFrom applies the first events exactly and then all of them leniently.
func replayFrom(t *testing.T, s *fixture.Scenario, first, events []event.Event, same func(got, want bson.Raw) bool) {
	t.Helper()
	m := newModel(t, s.Before, event.Strict)
	for i := range first {
		if err := m.apply(t, &first[i]); err != nil {
			t.Fatal(err)
		}
	}
	m.mode = event.Lenient
	for i := range events {
		if err := m.apply(t, &events[i]); err != nil {
			t.Fatal(err)
		}
	}
	m.compare(t, s.After, same)
}

// TestFixturesGolden fixes the events of the scenarios with DDL, views,
// transactions and applyOps.
func TestFixturesGolden(t *testing.T) {
	for _, name := range []string{
		"diff-v2/ddl_collections", "diff-v2/ddl_indexes", "diff-v2/transactions", "diff-v2/transactions_chained", "diff-v2/transactions_prepared",
		"set-v1/transactions", "diff-v2/apply_ops_command", "diff-v2/ttl_and_capped",
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			events := decodeAll(t, &oplog.Decoder{}, fixture.Load(t, name))
			for i := range events {
				lines = append(lines, describe(&events[i]))
			}
			got := strings.Join(lines, "\n") + "\n"
			path := filepath.Join("testdata", strings.ReplaceAll(name, "/", "_")+".golden")
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got; -rewrite accepts):\n%s", diff)
			}
		})
	}
}

// describe writes an event in one line.
func describe(e *event.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", e.Position, e.Op, e.NS)
	if !e.UUID.IsZero() {
		fmt.Fprintf(&b, " uuid=%s", e.UUID)
	}
	if e.Transaction != nil {
		fmt.Fprintf(&b, " txn=%d/%d", e.Transaction.Number, e.Transaction.Index)
	}
	for _, part := range []struct {
		name string
		doc  fmt.Stringer
		has  bool
	}{{"key", e.DocumentKey, e.DocumentKey != nil}, {"doc", e.Document, e.Document != nil}, {"delta", e.Delta.Raw(), e.Delta != nil}, {"ddl", e.DDL, e.DDL != nil}} {
		if part.has {
			fmt.Fprintf(&b, " %s=%s", part.name, part.doc)
		}
	}
	return b.String()
}
