package changestream_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// fragments are those of one change, as a server splits it: every field in one
// of them, each with its own token.
func fragments(t *testing.T) []bson.Raw {
	t.Helper()
	parts := []string{
		head[len(`"_id": {"_data": "82"}, `):] + `"operationType": "replace", "documentKey": {"_id": 1}`,
		`"fullDocument": {"a": 1, "_id": 1}`,
		`"fullDocumentBeforeChange": {"_id": 1}`,
	}
	docs := make([]bson.Raw, len(parts))
	for i, part := range parts {
		docs[i] = parse(t, fmt.Sprintf(`{"_id": {"_data": "82%d"}, "splitEvent": {"fragment": %d, "of": %d}, %s}`, i+1, i+1, len(parts), part))
	}
	return docs
}

func add(t *testing.T, a *changestream.Assembler, doc bson.Raw) (bson.Raw, error) {
	t.Helper()
	h, err := changestream.ReadHeader(doc)
	if err != nil {
		t.Fatal(err)
	}
	return a.Add(doc, h)
}

func TestSplitChange(t *testing.T) {
	a := changestream.Assembler{Limit: 1 << 20}
	var whole bson.Raw
	docs := fragments(t)
	for i, doc := range docs {
		var err error
		if whole, err = add(t, &a, doc); err != nil || (whole != nil) != (i == len(docs)-1) || a.Pending() != (whole == nil) {
			t.Fatalf("fragment %d: whole %t, pending %t, %v", i+1, whole != nil, a.Pending(), err)
		}
	}
	events, err := (&changestream.Decoder{}).Decode(whole, documented, nil)
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if want := parse(t, `{"_id": 1, "a": 1}`); !bytes.Equal(events[0].Document, want) || events[0].Op != event.OpReplace {
		t.Errorf("%s of %s, want %s", &events[0], events[0].Document, want)
	}
	if h, err := changestream.ReadHeader(whole); err != nil || h.Token.Lookup("_data").StringValue() != "823" {
		t.Errorf("token %s, %v, want that of the last fragment", h.Token, err)
	}
}

func TestSplitFaults(t *testing.T) {
	docs := fragments(t)
	plain := parse(t, "{"+head+`"operationType": "drop"}`)
	for _, tt := range []struct {
		name  string
		limit int
		docs  []bson.Raw
		is    error
	}{
		{"begins in the middle", 1 << 20, docs[1:2], changestream.ErrMalformed},
		{"one is missing", 1 << 20, []bson.Raw{docs[0], docs[2]}, changestream.ErrMalformed},
		{"twice", 1 << 20, []bson.Raw{docs[0], docs[0]}, changestream.ErrMalformed},
		{"another change between", 1 << 20, []bson.Raw{docs[0], plain}, changestream.ErrMalformed},
		{"too large", len(docs[0]) + 10, docs, changestream.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := changestream.Assembler{Limit: tt.limit}
			var err error
			for _, doc := range tt.docs {
				if _, err = add(t, &a, doc); err != nil {
					break
				}
			}
			if !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
		})
	}
}

// FuzzDecode: no bytes make the decoder panic, and what it returns is whole.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"diff-v2/ddl_collections", "diff-v2/transactions", "diff-v2/update_pipelines", "set-v1/update_arrays"} {
		for i, doc := range fixture.Load(f, name).Changes {
			if i < 8 {
				f.Add([]byte(doc))
			}
		}
	}
	for _, part := range []string{
		`"operationType": "create", "operationDescription": {"capped": true, "type": "collection"}`,
		`"operationType": "dropIndexes", "operationDescription": {"indexes": [` + spec + `]}`,
		`"operationType": "insert", "splitEvent": {"fragment": 1, "of": 2}`,
	} {
		f.Add([]byte(parse(f, "{"+head+part+"}")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := changestream.ReadHeader(data)
		if err != nil {
			return
		}
		if _, err := changestream.ParseToken(h.Token); err != nil && !errors.Is(err, changestream.ErrToken) {
			t.Errorf("token: %v", err)
		}
		a := changestream.Assembler{Limit: 1 << 16}
		if whole, err := a.Add(data, h); err == nil && whole == nil && h.Fragment == 0 {
			t.Error("a whole change is held back")
		}
		events, err := (&changestream.Decoder{}).Decode(data, documented, nil)
		for i := range events {
			if e := &events[i]; err != nil || !e.Op.Valid() || e.NS.Coll == "" {
				t.Errorf("%s beside %v", e, err)
			}
		}
	})
}
