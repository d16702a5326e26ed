package state

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func idOf(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := bson.Marshal(bson.D{{Key: "_id", Value: v}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRequestRecord(t *testing.T) {
	asked := Request{
		Kind: RequestRefresh, ID: "a/1", Destination: "d", Group: "g", DB: "shop", Coll: "orders", UUID: event.UUID{1, 2},
		IDs: [][]byte{idOf(t, 1), idOf(t, "x")}, Reason: "delta on a missing document", Asked: time.Unix(5, 0).UTC(),
	}
	r, err := RequestRecord("p", &asked)
	if err != nil {
		t.Fatal(err)
	}
	if r.Topic != "p.control" || string(r.Key) != "p" || !strings.HasPrefix(string(r.Value), `{"kind":"refresh",`) {
		t.Errorf("record topic %s key %s value %s", r.Topic, r.Key, r.Value)
	}
	kind, got, err := DecodeCommand(r.Value)
	if err != nil || kind != RequestRefresh {
		t.Fatalf("kind %s: %v", kind, err)
	}
	if diff := cmp.Diff(&asked, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeCommand(t *testing.T) {
	many := `"` + strings.Repeat(`AAAA","`, MaxRequestIDs) + `AAAA"`
	tests := []struct {
		name, value, kind string
		// problem is part of the message; request says that its id was read.
		problem string
		request bool
	}{
		{"another command", `{"kind":"pause","destination":"d"}`, "pause", "", false},
		{"no kind", `{}`, "", "", false},
		{"not JSON", `{`, "", "decode command", false},
		{"kind of another type", `{"kind":1}`, "", "decode command", false},
		{"reload", `{"kind":"reload","id":"r","db":"a","coll":"b"}`, RequestReload, "", true},
		{"reload with documents", `{"kind":"reload","id":"r","db":"a","coll":"b","ids":["AAAA"]}`, RequestReload, "takes no _ids", true},
		{"no collection", `{"kind":"reload","id":"r","db":"a"}`, RequestReload, "names no collection", true},
		{"no id", `{"kind":"reload","db":"a","coll":"b"}`, RequestReload, "its id has 0 bytes", true},
		{"no documents", `{"kind":"refresh","id":"r","db":"a","coll":"b"}`, RequestRefresh, "refresh of 0 documents", true},
		{"too many documents", `{"kind":"refresh","id":"r","db":"a","coll":"b","ids":[` + many + `]}`, RequestRefresh, "refresh of 1001 documents", true},
		{"no BSON", `{"kind":"refresh","id":"r","db":"a","coll":"b","ids":["AAAA"]}`, RequestRefresh, "document 0", true},
		{"UUID that is none", `{"kind":"reload","id":"r","db":"a","coll":"b","uuid":"12"}`, RequestReload, "parse UUID", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kind, r, err := DecodeCommand([]byte(tt.value))
			if kind != tt.kind || (r != nil) != tt.request {
				t.Errorf("kind %q request %v, want %q %v", kind, r != nil, tt.kind, tt.request)
			}
			if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
				t.Errorf("error %v, want %q", err, tt.problem)
			}
		})
	}
}

func TestRequestBounds(t *testing.T) {
	r := Request{Kind: RequestRefresh, ID: "r", DB: "a", Coll: "b", IDs: [][]byte{idOf(t, string(bytes.Repeat([]byte("x"), MaxRequestBytes)))}}
	if err := r.Validate(); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("a document key of more than a MiB: %v", err)
	}
	two, err := bson.Marshal(bson.D{{Key: "_id", Value: 1}, {Key: "a", Value: 1}})
	if err != nil {
		t.Fatal(err)
	}
	r.IDs = [][]byte{two}
	if err := r.Validate(); err == nil || !strings.Contains(err.Error(), "_id alone") {
		t.Errorf("a whole document in place of its key: %v", err)
	}
}

func TestViewHoldsRequests(t *testing.T) {
	view := NewView()
	apply := func(key string, v any) {
		t.Helper()
		r, err := Record("p.state", key, v)
		if err != nil {
			t.Fatal(err)
		}
		if err := view.Apply(key, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	first := PendingRequest{
		Request: Request{Kind: RequestReload, ID: "1", DB: "a", Coll: "b"}, Now: event.Namespace{DB: "a", Coll: "c"},
		Reload: &ReloadProgress{Next: idOf(t, 7), ReadThrough: bson.Timestamp{T: 9}, Documents: 3},
	}
	apply(KeyRequest("2"), PendingRequest{Request: Request{ID: "2"}})
	apply(KeyRequest("1"), first)
	apply(KeyControl(), ControlOffset{Offset: 12})
	apply(KeyAnswer("3"), Answer{ID: "3", Cause: "no such collection"})
	if got, ok := view.Request("1"); !ok || cmp.Diff(first, got) != "" {
		t.Error(cmp.Diff(first, got))
	}
	if got := view.Requests(); len(got) != 2 || got[0].ID != "1" || got[1].ID != "2" {
		t.Errorf("requests %v", got)
	}
	if view.ControlOffset() != 12 || len(view.Answers()) != 1 {
		t.Errorf("control offset %d answers %v", view.ControlOffset(), view.Answers())
	}
	apply(KeyRequest("1"), nil)
	apply(KeyAnswer("3"), nil)
	apply(KeyControl(), nil)
	if _, ok := view.Request("1"); ok || len(view.Requests()) != 1 || len(view.Answers()) != 0 || view.ControlOffset() != 0 {
		t.Error("what was removed is still there")
	}
}
