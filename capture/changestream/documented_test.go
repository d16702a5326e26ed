package changestream_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// parse reads relaxed Extended JSON.
func parse(t testing.TB, text string) bson.Raw {
	t.Helper()
	var doc bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(text), false, &doc); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return doc
}

const (
	head = `"_id": {"_data": "82"}, "clusterTime": {"$timestamp": {"t": 1700000000, "i": 7}}, "wallTime": {"$date": "2026-01-02T03:04:05.678Z"}, ` +
		`"ns": {"db": "shop", "coll": "orders"}, "collectionUUID": {"$uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"}, `
	spec = `{"v": 2, "key": {"a": 1}, "name": "a_1"}`
)

var documented = event.Position{Time: bson.Timestamp{T: 1700000000, I: 7}, Index: 3}

// TestDocumentedForms: the forms of servers that no recording has, as they are
// documented.
func TestDocumentedForms(t *testing.T) {
	for _, tt := range []struct {
		name, change string
		op           event.Op
		ddl          string
	}{
		{
			"create", `"operationType": "create", "operationDescription": {"idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}, "capped": true, "size": 4096, "type": "collection"}`,
			event.OpCreate, `{"create": "orders", "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}, "capped": true, "size": 4096}`,
		},
		{"create plain", `"operationType": "create", "operationDescription": {}`, event.OpCreate, `{"create": "orders"}`},
		{
			"create view", `"operationType": "create", "nsType": "view", "operationDescription": {"viewOn": "all", "pipeline": [{"$match": {"a": 1}}]}`,
			event.OpCreate, `{"create": "orders", "viewOn": "all", "pipeline": [{"$match": {"a": 1}}]}`,
		},
		{
			"modify", `"operationType": "modify", "operationDescription": {"index": {"name": "a_1", "expireAfterSeconds": 10}}, "stateBeforeChange": {"indexOptions": {"expireAfterSeconds": 5}}`,
			event.OpModify, `{"collMod": "orders", "index": {"name": "a_1", "expireAfterSeconds": 10}}`,
		},
		{
			"createIndexes", `"operationType": "createIndexes", "operationDescription": {"indexes": [` + spec + `]}`,
			event.OpCreateIndexes, `{"createIndexes": "orders", "indexes": [` + spec + `]}`,
		},
		{
			"dropIndexes", `"operationType": "dropIndexes", "operationDescription": {"indexes": [` + spec + `]}`,
			event.OpDropIndexes, `{"dropIndexes": "orders", "index": "a_1", "spec": ` + spec + `}`,
		},
		{"drop", `"operationType": "drop"`, event.OpDrop, `{"drop": "orders"}`},
		{
			"rename", `"operationType": "rename", "to": {"db": "shop", "coll": "old"}, "operationDescription": {"to": {"db": "shop", "coll": "old"}, "dropTarget": {"$uuid": "11111111-1111-1111-1111-111111111111"}}`,
			event.OpRename, `{"renameCollection": "shop.orders", "to": "shop.old", "dropTarget": {"$uuid": "11111111-1111-1111-1111-111111111111"}}`,
		},
		{
			"rename to a free name", `"operationType": "rename", "to": {"db": "shop", "coll": "old"}, "operationDescription": {"to": {"db": "shop", "coll": "old"}}`,
			event.OpRename, `{"renameCollection": "shop.orders", "to": "shop.old"}`,
		},
		{
			"rename before 6.0", `"operationType": "rename", "to": {"db": "shop", "coll": "old"}`,
			event.OpRename, `{"renameCollection": "shop.orders", "to": "shop.old", "dropTarget": true}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := (&changestream.Decoder{Source: event.Source{Mode: "change_stream"}}).Decode(parse(t, "{"+head+tt.change+"}"), documented, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := []event.Event{{
				Op: tt.op, NS: event.Namespace{DB: "shop", Coll: "orders"}, DDL: parse(t, tt.ddl), Position: documented,
				UUID:     event.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
				WallTime: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC), Source: event.Source{Mode: "change_stream"},
			}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDocumentedUpdates(t *testing.T) {
	const key = `"operationType": "update", "documentKey": {"region": "eu", "_id": 1}, "lsid": {"id": 1}, "txnNumber": 9, `
	for _, tt := range []struct{ name, change, held, want string }{
		{"raw diff moves a field", key + `"rawUpdateDescription": {"$v": 2, "diff": {"i": {"a": 2}}}`, `{"_id": 1, "a": 1, "b": 1}`, `{"_id": 1, "b": 1, "a": 2}`},
		{
			"disambiguated", key + `"updateDescription": {"updatedFields": {"a.0.b": 2}, "removedFields": [], "truncatedArrays": [], "disambiguatedPaths": {"a.0.b": ["a", "0", "b"]}}`,
			`{"_id": 1, "a": {"0": {"b": 1}}}`, `{"_id": 1, "a": {"0": {"b": 2}}}`,
		},
		{
			"truncated", key + `"updateDescription": {"updatedFields": {"a.1": 5}, "removedFields": ["b"], "truncatedArrays": [{"field": "a", "newSize": 2}]}`,
			`{"_id": 1, "a": [1, 2, 3], "b": 1}`, `{"_id": 1, "a": [1, 5]}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := (&changestream.Decoder{}).Decode(parse(t, "{"+head+tt.change+"}"), documented, nil)
			if err != nil || len(events) != 1 {
				t.Fatalf("%d events, %v", len(events), err)
			}
			e := &events[0]
			if e.Transaction == nil || e.Transaction.Number != 9 || e.Transaction.Index != 3 || e.ID().AsInt64() != 1 {
				t.Errorf("transaction %+v, _id %s", e.Transaction, e.ID())
			}
			doc, err := e.Delta.Apply(parse(t, tt.held), event.Strict)
			if want := parse(t, tt.want); err != nil || !bytes.Equal(doc, want) {
				t.Errorf("got %s, %v, want %s", doc, err, want)
			}
		})
	}
}

// TestContradictoryPaths: the update is known, and not what it does.
func TestContradictoryPaths(t *testing.T) {
	change := parse(t, `{`+head+`"operationType": "update", "documentKey": {"_id": 1}, "updateDescription": {"updatedFields": {"a": 1, "a.b": 2}, "removedFields": []}}`)
	events, err := (&changestream.Decoder{Dots: event.DotsUncertain}).Decode(change, documented, nil)
	var ambiguous *changestream.AmbiguousError
	if !errors.As(err, &ambiguous) || !errors.Is(err, event.ErrDeltaAmbiguous) || len(events) != 0 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if e := &ambiguous.Event; e.Op != event.OpUpdate || e.ID().AsInt64() != 1 || e.Position != documented {
		t.Errorf("event %+v", e)
	}
}

func TestNothingToPublish(t *testing.T) {
	none := (&changestream.Decoder{Select: func(_, coll string) bool { return coll != "orders" }}).Decode
	all := (&changestream.Decoder{}).Decode
	for _, tt := range []struct {
		name, change string
		decode       func(bson.Raw, event.Position, []event.Event) ([]event.Event, error)
	}{
		{"dropDatabase", `"operationType": "dropDatabase", "ns": {"db": "shop"}`, all},
		{"shardCollection", `"operationType": "shardCollection", "operationDescription": {"shardKey": {"a": 1}}`, all},
		{"reshardCollection", `"operationType": "reshardCollection", "operationDescription": {}`, all},
		{"refineCollectionShardKey", `"operationType": "refineCollectionShardKey"`, all},
		{"endOfTransaction", `"operationType": "endOfTransaction"`, all},
		{"own database", `"operationType": "insert", "ns": {"db": "tributary", "coll": "offsets"}, "documentKey": {"_id": 1}, "fullDocument": {"_id": 1}`, all},
		{"unselected", `"operationType": "insert", "documentKey": {"_id": 1}, "fullDocument": {"_id": 1}`, none},
		{"unselected drop", `"operationType": "drop"`, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if events, err := tt.decode(parse(t, "{"+head+tt.change+"}"), documented, nil); err != nil || len(events) != 0 {
				t.Errorf("%d events, %v", len(events), err)
			}
		})
	}
	rename := parse(t, "{"+head+`"operationType": "rename", "to": {"db": "shop", "coll": "sold"}}`)
	if events, err := none(rename, documented, nil); err != nil || len(events) != 1 {
		t.Errorf("a rename into the selection: %d events, %v", len(events), err)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, change string
		is           error
	}{
		{"invalidate", `"operationType": "invalidate"`, changestream.ErrUnknown},
		{"unknown type", `"operationType": "levitate"`, changestream.ErrUnknown},
		{"no type", `"x": 1`, changestream.ErrMalformed},
		{"no key", `"operationType": "delete"`, changestream.ErrMalformed},
		{"key without _id", `"operationType": "delete", "documentKey": {"a": 1}`, changestream.ErrMalformed},
		{"no image", `"operationType": "insert", "documentKey": {"_id": 1}`, changestream.ErrMalformed},
		{"no description", `"operationType": "update", "documentKey": {"_id": 1}`, changestream.ErrMalformed},
		{"unknown part of a description", `"operationType": "update", "documentKey": {"_id": 1}, "updateDescription": {"x": {}}`, changestream.ErrMalformed},
		{"raw update of another version", `"operationType": "update", "documentKey": {"_id": 1}, "rawUpdateDescription": {"$v": 3, "diff": {}}`, changestream.ErrMalformed},
		{"no target", `"operationType": "rename"`, changestream.ErrMalformed},
		{"no indexes", `"operationType": "createIndexes", "operationDescription": {}`, changestream.ErrMalformed},
		{"empty indexes", `"operationType": "createIndexes", "operationDescription": {"indexes": []}`, changestream.ErrMalformed},
		{"other form of an index", `"operationType": "createIndexes", "operationDescription": {"indexes": [{"keys": {}}]}`, changestream.ErrUnknown},
		{"two indexes dropped", `"operationType": "dropIndexes", "operationDescription": {"indexes": [` + spec + `,` + spec + `]}`, changestream.ErrUnknown},
		{"fragment", `"operationType": "insert", "splitEvent": {"fragment": 1, "of": 2}`, changestream.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := (&changestream.Decoder{}).Decode(parse(t, "{"+head+tt.change+"}"), documented, nil)
			var fault *changestream.EventError
			if !errors.As(err, &fault) || !errors.Is(err, tt.is) || len(events) != 0 {
				t.Fatalf("%d events, %v, want %v", len(events), err, tt.is)
			}
			if !strings.Contains(err.Error(), "shop.orders") || !strings.Contains(err.Error(), "1700000000.7") {
				t.Errorf("the error does not say where: %v", err)
			}
		})
	}
}

func TestTokenFaults(t *testing.T) {
	for _, text := range []string{`{}`, `{"_data": 1}`, `{"_data": ""}`, `{"_data": "82"}`, `{"_data": "00112233445566778899"}`, `{"_data": "82zz2233445566778899"}`} {
		if token, err := changestream.ParseToken(parse(t, text)); !errors.Is(err, changestream.ErrToken) {
			t.Errorf("%s reads %+v, %v", text, token, err)
		}
	}
	// A mark of how far the stream has come, and a token of a later form.
	for _, text := range []string{"826553F100000000072B0229296E04", "826553F100000000072B0429FF"} {
		token, err := changestream.ParseToken(parse(t, `{"_data": "`+text+`"}`))
		if err != nil || token.Time != documented.Time || !token.UUID.IsZero() {
			t.Errorf("%s reads %+v, %v", text, token, err)
		}
	}
}
