package oplog_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// fragment is an entry of a transaction at a second, linked to that of another.
func fragment(t *testing.T, at, previous uint32, session int, o string) (bson.Raw, oplog.Header) {
	t.Helper()
	text := fmt.Sprintf(`{"lsid":{"id":%d},"txnNumber":{"$numberLong":"1"},"op":"c","ns":"admin.$cmd","o":%s}`, session, o)
	if session == 0 {
		text = fmt.Sprintf(`{"op":"c","ns":"admin.$cmd","o":%s}`, o)
	}
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		t.Fatal(err)
	}
	raw, err := bson.Marshal(append(d,
		bson.E{Key: "ts", Value: bson.Timestamp{T: at, I: 1}}, bson.E{Key: "t", Value: int64(2)}, bson.E{Key: "wall", Value: bson.DateTime(1500)},
		bson.E{Key: "prevOpTime", Value: bson.D{{Key: "ts", Value: bson.Timestamp{T: previous, I: min(previous, 1)}}, {Key: "t", Value: int64(2)}}}))
	if err != nil {
		t.Fatal(err)
	}
	h, err := oplog.ReadHeader(raw)
	if err != nil {
		t.Fatal(err)
	}
	return raw, h
}

const (
	partial  = `{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"}}],"partialTxn":true}`
	prepared = `{"applyOps":[],"prepare":true}`
	last     = `{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"y"}}],"count":2}`
	commit   = `{"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":1,"i":1}}}`
	abort    = `{"abortTransaction":1}`
)

// TestTransactions follows entries written as "second<link session content" and
// says what each commits and from where reading would resume.
func TestTransactions(t *testing.T) {
	type step struct {
		at, previous uint32
		session      int
		o            string
		// want is "first-last fragments" of what it commits, or "unknown".
		want string
		// oldest is the second of the oldest open one.
		oldest uint32
	}
	for _, tc := range []struct {
		name  string
		limit int64
		steps []step
	}{
		{"chained", -1, []step{{5, 0, 1, partial, "", 5}, {6, 5, 1, partial, "", 5}, {7, 6, 1, last, "5-7 3", 0}}},
		{"prepared", -1, []step{{5, 0, 1, prepared, "", 5}, {9, 5, 1, commit, "5-5 1", 0}}},
		{"prepared after others", -1, []step{{5, 0, 1, partial, "", 5}, {6, 5, 1, prepared, "", 5}, {9, 6, 1, commit, "5-6 2", 0}}},
		{"a server's own batch", -1, []step{{5, 0, 0, partial, "", 5}, {6, 5, 0, last, "5-6 2", 0}}},
		{"two at once", -1, []step{{5, 0, 1, partial, "", 5}, {6, 0, 2, prepared, "", 5}, {7, 5, 1, last, "5-7 2", 6}, {8, 6, 2, commit, "6-6 1", 0}}},
		{"aborted", -1, []step{{5, 0, 1, prepared, "", 5}, {6, 0, 2, prepared, "", 5}, {7, 5, 1, abort, "", 6}, {8, 6, 2, abort, "", 0}}},
		{"aborted by the next primary", -1, []step{{5, 0, 1, partial, "", 5}, {6, 5, 1, partial, "", 5}, {7, 5, 1, abort, "", 0}}},
		{"aborted by no name but the session", -1, []step{{5, 0, 1, partial, "", 5}, {6, 0, 2, partial, "", 5}, {7, 0, 1, abort, "", 6}}},
		{"unknown", -1, []step{{5, 4, 1, partial, "unknown", 0}, {6, 5, 1, last, "unknown", 0}, {7, 3, 1, commit, "unknown", 0}, {8, 3, 1, abort, "", 0}}},
		{"not held", 0, []step{{5, 0, 1, partial, "", 5}, {6, 5, 1, last, "5-6 0", 0}}},
		{"the largest is not held", 400, []step{{5, 0, 1, partial, "", 5}, {6, 5, 1, prepared, "", 5}, {7, 0, 2, prepared, "", 5}, {8, 6, 1, commit, "5-6 0", 7}, {9, 7, 2, commit, "7-7 1", 0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			open := oplog.Transactions{Limit: tc.limit}
			for _, s := range tc.steps {
				raw, h := fragment(t, s.at, s.previous, s.session, s.o)
				committed, known := open.Take(raw, &h)
				got := ""
				switch {
				case !known:
					got = "unknown"
				case committed != nil:
					got = fmt.Sprintf("%d-%d %d", committed.First.Time.T, committed.Last.Time.T, len(committed.Fragments))
					if committed.Held != (len(committed.Fragments) > 0) {
						t.Errorf("second %d: held is %t of %d fragments", s.at, committed.Held, len(committed.Fragments))
					}
				}
				oldest, _ := open.Oldest()
				if got != s.want || oldest.Time.T != s.oldest {
					t.Errorf("second %d: commits %q, oldest %d, want %q, %d", s.at, got, oldest.Time.T, s.want, s.oldest)
				}
				if tc.limit >= 0 && open.Bytes() > tc.limit {
					t.Errorf("second %d: %d bytes are held", s.at, open.Bytes())
				}
			}
			if _, ok := open.Oldest(); !ok && open.Bytes() != 0 {
				t.Errorf("%d bytes are held with nothing open", open.Bytes())
			}
		})
	}
}

// TestNewTerm: what a failover cut off is forgotten; what is prepared is not.
func TestNewTerm(t *testing.T) {
	var open oplog.Transactions
	for i, o := range []string{partial, prepared, partial} {
		raw, h := fragment(t, uint32(5+i), 0, 1+i, o)
		if i == 2 {
			h.Position.Term = 3
		}
		open.Take(raw, &h)
	}
	for _, tc := range []struct {
		term   int64
		oldest uint32
	}{{2, 5}, {3, 6}, {4, 6}} {
		open.NewTerm(tc.term)
		if oldest, _ := open.Oldest(); oldest.Time.T != tc.oldest {
			t.Errorf("term %d: oldest is of second %d, want %d", tc.term, oldest.Time.T, tc.oldest)
		}
	}
}

// TestDecodeFragment places operations where the transaction commits and leaves
// out those that were published.
func TestDecodeFragment(t *testing.T) {
	raw := entry(t, `{`+session+`"op":"c","ns":"admin.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"}},{"op":"d","ns":"a.b","o":{"_id":"y"}}],"partialTxn":true}}`)
	effect := oplog.Effect{Position: event.Position{Time: bson.Timestamp{T: 9, I: 2}, Term: 4, Index: 10}, Skip: 11}
	events, err := (&oplog.Decoder{}).DecodeFragment(raw, effect, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`9.2/11@4 delete a.b txn=5/11 key={"_id": "y"}`}, lines(events)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, text := range []string{`{"op":"i","ns":"a.b","o":{"_id":1}}`, `{"op":"c","ns":"admin.$cmd","o":{"abortTransaction":1}}`} {
		if events, err := (&oplog.Decoder{}).DecodeFragment(entry(t, text), effect, nil); err == nil || events != nil {
			t.Errorf("%s: %d events, %v", text, len(events), err)
		}
	}
}

// TestSplit: an entry's fragments become the entry's events, whatever the cut.
func TestSplit(t *testing.T) {
	d := &oplog.Decoder{}
	cut := 0
	for _, name := range fixture.Names(t) {
		for _, raw := range fixture.Load(t, name).Oplog {
			h, err := oplog.ReadHeader(raw)
			if err != nil {
				t.Fatal(err)
			}
			if h.Fragment != oplog.Whole {
				continue
			}
			want, err := d.Decode(raw, nil)
			if err != nil {
				t.Fatal(err)
			}
			for n := 1; n < 4; n++ {
				var got []event.Event
				effect := oplog.Effect{Position: h.Position, WallTime: h.WallTime}
				parts := oplog.Split(raw, n)
				if len(parts) == 1 {
					continue
				}
				cut++
				for _, part := range parts {
					if got, err = d.DecodeFragment(part, effect, got); err != nil {
						t.Fatal(err)
					}
					effect.Position.Index += oplog.Operations(part)
				}
				if diff := cmp.Diff(lines(want), lines(got)); diff != "" || effect.Position.Index != oplog.Operations(raw) {
					t.Errorf("%s, %d operations each: (-want +got):\n%s", name, n, diff)
				}
			}
		}
	}
	if cut < 10 {
		t.Errorf("%d entries were cut", cut)
	}
}

// FuzzTransactions: no entry is too odd to be followed or counted.
func FuzzTransactions(f *testing.F) {
	for _, name := range []string{"diff-v2/transactions_chained", "diff-v2/transactions_prepared", "diff-v2/apply_ops_command"} {
		for _, raw := range fixture.Load(f, name).Oplog {
			f.Add([]byte(raw))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := oplog.ReadHeader(data)
		if err != nil {
			return
		}
		n := oplog.Operations(data)
		var sum int32
		for _, part := range oplog.Split(data, 2) {
			sum += oplog.Operations(part)
		}
		if sum != n {
			t.Errorf("%d operations, %d in parts", n, sum)
		}
		effect := oplog.Effect{Position: event.Position{Time: h.Position.Time, Index: 7}}
		events, err := (&oplog.Decoder{}).DecodeFragment(data, effect, nil)
		if err == nil && len(events) > 0 && events[len(events)-1].Position.Index >= 7+n {
			t.Errorf("%d operations, but the last has index %d after 7", n, events[len(events)-1].Position.Index)
		}
		if h.Fragment == oplog.Whole || !oplog.IsCommand(data) {
			return
		}
		open := oplog.Transactions{Limit: 1 << 10}
		for range 3 {
			open.Take(data, &h)
			open.NewTerm(h.Position.Term)
		}
		if open.Bytes() > open.Limit || open.Bytes() < 0 {
			t.Errorf("%d bytes are held", open.Bytes())
		}
	})
}
