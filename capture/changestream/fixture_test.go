package changestream_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// decodeChanges decodes a scenario's changes as a reader of the stream does.
// Updates that their paths do not tell are kept without a delta.
func decodeChanges(t *testing.T, d *changestream.Decoder, changes []bson.Raw) []event.Event {
	t.Helper()
	var events []event.Event
	var at event.Position
	for _, doc := range changes {
		h, err := changestream.ReadHeader(doc)
		if err != nil {
			t.Fatal(err)
		}
		if h.Time == at.Time {
			at.Index++
		} else {
			at = event.Position{Time: h.Time}
		}
		events, err = d.Decode(doc, at, events)
		var ambiguous *changestream.AmbiguousError
		if errors.As(err, &ambiguous) {
			events, err = append(events, ambiguous.Event), nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return events
}

func dotsOf(name string) event.DotRule {
	if strings.HasPrefix(name, "diff-v2/") {
		return event.DotsUncertain
	}
	return event.DotsSeparate
}

// line names an event as both sources must tell it: without what only one of
// them knows.
func line(e *event.Event) string {
	kind, ddl := string(e.Op), ""
	if e.Op == event.OpRename {
		ddl = " to " + e.DDL.Lookup("to").StringValue()
	}
	key := ""
	if e.DocumentKey != nil {
		key = " " + e.DocumentKey.String()
	}
	txn := ""
	if e.Transaction != nil {
		txn = fmt.Sprintf(" txn=%d", e.Transaction.Number)
	}
	return fmt.Sprintf("%d.%d %s %s uuid=%s%s%s%s", e.Position.Time.T, e.Position.Time.I, kind, e.NS, e.UUID, key, ddl, txn)
}

// inBoth reports whether both sources show an event: change streams before 6.0
// show no other DDL than drops and renames, and no views.
func inBoth(e *event.Event) bool {
	switch e.Op {
	case event.OpCreate, event.OpCreateIndexes, event.OpDropIndexes, event.OpModify:
		return false
	case event.OpDrop, event.OpRename:
		return !e.UUID.IsZero() && !strings.HasPrefix(e.NS.Coll, "system.")
	default:
		return true
	}
}

// hidden reports whether change streams leave an entry out although it changes
// documents: what a server copies by itself, and a user's applyOps.
func hidden(entry bson.Raw) bool {
	copied, _ := entry.Lookup("fromMigrate").BooleanOK()
	_, applied := entry.Lookup("o", "applyOps").ArrayOK()
	return copied || applied && entry.Lookup("lsid").IsZero()
}

// TestSameAsOplog: the two sources tell the same story of every recording:
// order, namespaces, UUIDs, keys, transactions and images.
func TestSameAsOplog(t *testing.T) {
	for _, name := range fixture.Names(t) {
		if strings.HasSuffix(name, "/transactions_chained") || strings.HasSuffix(name, "/transactions_prepared") {
			continue // compared with their end state below
		}
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			var want, got []string
			var images []bson.Raw
			for _, entry := range s.Oplog {
				if hidden(entry) {
					continue
				}
				fromOplog, err := (&oplog.Decoder{}).Decode(entry, nil)
				if err != nil {
					t.Fatal(err)
				}
				for i := range fromOplog {
					if e := &fromOplog[i]; inBoth(e) {
						want, images = append(want, line(e)), append(images, e.Document)
					}
				}
			}
			events := decodeChanges(t, &changestream.Decoder{Dots: dotsOf(name)}, s.Changes)
			for i := range events {
				e := &events[i]
				got = append(got, line(e))
				if e.WallTime.IsZero() || e.Op.IsDDL() == (e.DDL == nil) || e.Op.IsData() == (e.DocumentKey == nil) {
					t.Errorf("%s has what it should not or lacks what it should have", e)
				}
				if i < len(images) && !bytes.Equal(images[i], e.Document) {
					t.Errorf("%s: image %s, want %s", e, e.Document, images[i])
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-oplog +changes):\n%s", diff)
			}
		})
	}
}

// TestTransactionsGiveTheEndState applies transactions over several entries,
// prepared and aborted ones among them.
func TestTransactionsGiveTheEndState(t *testing.T) {
	for _, name := range []string{"diff-v2/transactions", "diff-v2/transactions_chained", "diff-v2/transactions_prepared"} {
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			held := map[string]bson.Raw{}
			key := func(namespace string, doc bson.Raw) string {
				k, err := event.AppendIDKey([]byte(namespace+"|"), doc.Lookup("_id"))
				if err != nil {
					t.Fatal(err)
				}
				return string(k)
			}
			for namespace, documents := range s.Before.Documents {
				for _, doc := range documents {
					held[key(namespace, doc)] = doc
				}
			}
			events := decodeChanges(t, &changestream.Decoder{Dots: dotsOf(name)}, s.Changes)
			for i := range events {
				e := &events[i]
				if i > 0 && events[i-1].Position.Compare(e.Position) >= 0 {
					t.Errorf("%s does not follow %s", e, events[i-1].Position)
				}
				k := key(e.NS.String(), e.DocumentKey)
				switch e.Op {
				case event.OpInsert, event.OpReplace:
					held[k] = e.Document
				case event.OpDelete:
					delete(held, k)
				default:
					doc, err := e.Delta.Apply(held[k], event.Strict)
					if err != nil {
						t.Fatalf("%s: %v", e, err)
					}
					held[k] = doc
				}
			}
			for namespace, documents := range s.After.Documents {
				for _, want := range documents {
					k := key(namespace, want)
					if got := held[k]; !bytes.Equal(got, want) {
						t.Errorf("%s: got %s, want %s", namespace, got, want)
					}
					delete(held, k)
				}
			}
			if len(held) > 0 {
				t.Errorf("%d documents too many", len(held))
			}
		})
	}
}

// TestTokensOfFixtures: the token says the change's time, and for changes of a
// collection its UUID.
func TestTokensOfFixtures(t *testing.T) {
	for _, name := range fixture.Names(t) {
		for _, doc := range fixture.Load(t, name).Changes {
			h, err := changestream.ReadHeader(doc)
			if err != nil {
				t.Fatal(err)
			}
			token, err := changestream.ParseToken(h.Token)
			if err != nil || token.Time != h.Time || token.UUID.IsZero() != (h.Kind == "dropDatabase") {
				t.Errorf("%s: token of %s at %v reads %+v, %v", name, h.Kind, h.Time, token, err)
			}
		}
	}
}
