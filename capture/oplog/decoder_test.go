package oplog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// entry builds an oplog entry from Extended JSON, with ts, t and wall.
func entry(tb testing.TB, text string) bson.Raw {
	tb.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		tb.Fatalf("parse %s: %v", text, err)
	}
	d = append(d, bson.E{Key: "ts", Value: bson.Timestamp{T: 7, I: 3}}, bson.E{Key: "t", Value: int64(2)}, bson.E{Key: "wall", Value: bson.DateTime(1500)})
	raw, err := bson.Marshal(d)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func lines(events []event.Event) []string {
	var out []string
	for i := range events {
		out = append(out, strings.TrimPrefix(describe(&events[i]), "7.3/"))
	}
	return out
}

const session = `"lsid":{"id":1},"txnNumber":{"$numberLong":"5"},`

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   string
		want []string
	}{
		{"insert", `{"op":"i","ns":"a.b","o":{"_id":1,"x":"y"}}`, []string{`0@2 insert a.b key={"_id": {"$numberInt":"1"}} doc={"_id": {"$numberInt":"1"},"x": "y"}`}},
		{"insert with key", `{"op":"i","ns":"a.b.c","o":{"_id":1,"k":2},"o2":{"k":2,"_id":1}}`, []string{`0@2 insert a.b.c key={"k": {"$numberInt":"2"},"_id": {"$numberInt":"1"}} doc={"_id": {"$numberInt":"1"},"k": {"$numberInt":"2"}}`}},
		{"insert of a migration", `{"op":"i","ns":"a.b","o":{"_id":"x"},"fromMigrate":true}`, []string{`0@2 insert a.b key={"_id": "x"} doc={"_id": "x"}`}},
		{"diff", `{"op":"u","ns":"a.b","o":{"$v":2,"diff":{"u":{"x":"y"}}},"o2":{"_id":"k"}}`, []string{`0@2 update a.b key={"_id": "k"} delta={"u": {"x": "y"}}`}},
		{"paths", `{"op":"u","ns":"a.b","o":{"$v":1,"$set":{"x.0":"y"},"$unset":{"z":true}},"o2":{"_id":"k"}}`, []string{`0@2 update a.b key={"_id": "k"} delta={"o": {"$numberInt":"1"},"n": {"nfx": {"se0": "y"},"ufz": true}}`}},
		{"version alone", `{"op":"u","ns":"a.b","o":{"$v":1},"o2":{"_id":"k"}}`, []string{`0@2 update a.b key={"_id": "k"} delta={"o": {"$numberInt":"1"},"n": {}}`}},
		{"replacement", `{"op":"u","ns":"a.b","o":{"_id":"k","x":"y"},"o2":{"_id":"k"}}`, []string{`0@2 replace a.b key={"_id": "k"} doc={"_id": "k","x": "y"}`}},
		{"replacement with _id last", `{"op":"u","ns":"a.b","o":{"x":"y","_id":"k"},"o2":{"_id":"k"}}`, []string{`0@2 replace a.b key={"_id": "k"} doc={"_id": "k","x": "y"}`}},
		{"replacement with odd names", `{"op":"u","ns":"a.b","o":{"$set":1,"_id":"k","diff":1},"o2":{"_id":"k"}}`, []string{`0@2 replace a.b key={"_id": "k"} doc={"_id": "k","$set": {"$numberInt":"1"},"diff": {"$numberInt":"1"}}`}},
		{"whole image in $set", `{"op":"u","ns":"a.b","o":{"$v":1,"$set":{"_id":"k","x":"y"}}}`, []string{`0@2 replace a.b key={"_id": "k"} doc={"_id": "k","x": "y"}`}},
		{"delete with shard key", `{"op":"d","ns":"a.b","o":{"s":"t","_id":"k"}}`, []string{`0@2 delete a.b key={"s": "t","_id": "k"}`}},
		{"no-op", `{"op":"n","ns":"","o":{"msg":"x"}}`, nil},
		{"server's databases", `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[
			{"op":"i","ns":"config.transactions","o":{"_id":1}},{"op":"i","ns":"local.x","o":{}},{"op":"u","ns":"admin.system.version","o":{}},
			{"op":"i","ns":"tributary.state","o":{"_id":1}},{"op":"c","ns":"config.$cmd","o":{"unheardOf":"x"}},{"op":"c","ns":"config.$cmd","o":{"create":"x"}}]}}`, nil},

		{"retryable write", `{` + session + `"op":"i","ns":"a.b","o":{"_id":"x"},"stmtId":0,"prevOpTime":{"ts":{"$timestamp":{"t":6,"i":1}},"t":{"$numberLong":"2"}}}`, []string{`0@2 insert a.b key={"_id": "x"} doc={"_id": "x"}`}},
		{
			"transaction", `{` + session + `"op":"c","ns":"admin.$cmd","o":{"applyOps":[
			{"op":"n","ns":"","o":{}},{"op":"d","ns":"a.b","o":{"_id":"x"}},{"op":"d","ns":"config.b","o":{"_id":"x"}},{"op":"d","ns":"a.c","o":{"_id":"y"}}]},"prevOpTime":{"ts":{"$timestamp":{"t":0,"i":0}},"t":{"$numberLong":"-1"}}}`,
			[]string{`1@2 delete a.b txn=5/1 key={"_id": "x"}`, `3@2 delete a.c txn=5/3 key={"_id": "y"}`},
		},
		{
			"nested applyOps", `{"op":"c","ns":"a.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"}},
			{"op":"c","ns":"a.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"y"}},{"op":"d","ns":"a.b","o":{"_id":"z"}}]}},{"op":"d","ns":"a.b","o":{"_id":"end"}}]}}`,
			[]string{`0@2 delete a.b key={"_id": "x"}`, `1@2 delete a.b key={"_id": "y"}`, `2@2 delete a.b key={"_id": "z"}`, `3@2 delete a.b key={"_id": "end"}`},
		},
		{"vectored writes", `{` + session + `"multiOpType":1,"prevOpTime":{"ts":{"$timestamp":{"t":6,"i":1}},"t":{"$numberLong":"2"}},"op":"c","ns":"admin.$cmd","o":{"applyOps":[
			{"op":"i","ns":"a.b","o":{"_id":"x"},"o2":{"_id":"x"},"stmtId":[0]},{"op":"i","ns":"a.b","o":{"_id":"y"},"o2":{"_id":"y"},"stmtId":[1]}]}}`, []string{`0@2 insert a.b key={"_id": "x"} doc={"_id": "x"}`, `1@2 insert a.b key={"_id": "y"} doc={"_id": "y"}`}},
		{"a server's own batch", `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"}}]},"prevOpTime":{"ts":{"$timestamp":{"t":0,"i":0}},"t":{"$numberLong":"-1"}}}`, []string{`0@2 delete a.b key={"_id": "x"}`}},
		{"applyOps with a session but no transaction", `{"op":"c","ns":"admin.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"},"txnNumber":{"$numberLong":"9"}}],"lsid":{"id":1}}}`, []string{`0@2 delete a.b key={"_id": "x"}`}},

		{"view", `{"op":"i","ns":"a.system.views","o":{"_id":"a.v","viewOn":"b","pipeline":[]}}`, []string{`0@2 create a.v ddl={"create": "v","viewOn": "b","pipeline": []}`}},
		{"view changed", `{"op":"u","ns":"a.system.views","o":{"_id":"a.v.w","viewOn":"b","pipeline":[]},"o2":{"_id":"a.v.w"}}`, []string{`0@2 modify a.v.w ddl={"collMod": "v.w","viewOn": "b","pipeline": []}`}},
		{"view dropped", `{"op":"d","ns":"a.system.views","o":{"_id":"a.v"}}`, []string{`0@2 drop a.v ddl={"drop": "v"}`}},
		{"views created", `{"op":"c","ns":"a.$cmd","o":{"create":"system.views"}}`, nil},
		{"all views dropped", `{"op":"c","ns":"a.$cmd","o":{"drop":"system.views"}}`, []string{`0@2 drop a.system.views ddl={"drop": "system.views"}`}},

		{"old name of dropIndexes", `{"op":"c","ns":"a.$cmd","o":{"deleteIndexes":"b","index":"x_1"}}`, []string{`0@2 drop_indexes a.b ddl={"dropIndexes": "b","index": "x_1"}`}},
		{"rename from a temporary name", `{"op":"c","ns":"a.$cmd","o":{"renameCollection":"a.tmpxyz12.renameCollection","to":"a.b"}}`, []string{`0@2 rename a.tmpxyz12.renameCollection ddl={"renameCollection": "a.tmpxyz12.renameCollection","to": "a.b"}`}},
		{"temporary collection", `{"op":"c","ns":"a.$cmd","o":{"create":"tmpxyz12.renameCollection"}}`, nil},
		{"temporary document", `{"op":"i","ns":"a.tmpxyz12.convertToCapped.b","o":{"_id":1}}`, nil},
		{"not temporary", `{"op":"i","ns":"a.tmp.b","o":{"_id":"x"}}`, []string{`0@2 insert a.tmp.b key={"_id": "x"} doc={"_id": "x"}`}},
		{"nothing to do", `{"op":"c","ns":"a.$cmd","o":{"applyOps":[{"op":"c","ns":"a.$cmd","o":{"dropDatabase":1}},{"op":"c","ns":"a.$cmd","o":{"startIndexBuild":"b"}},{"op":"c","ns":"a.$cmd","o":{"abortIndexBuild":"b"}},{"op":"c","ns":"a.$cmd","o":{"dbCheck":"b"}}]}}`, nil},
		{"of a cluster", `{"op":"c","ns":"a.b","o":{"modifyCollectionShardingIndexCatalog":"a.b","op":"d"}}`, nil},
		{"clustered collection", `{"op":"c","ns":"a.$cmd","o":{"create":"b","clusteredIndex":{"v":2,"key":{"_id":1},"name":"_id_","unique":true}}}`, []string{`0@2 create a.b ddl={"create": "b","clusteredIndex": {"v": {"$numberInt":"2"},"key": {"_id": {"$numberInt":"1"}},"name": "_id_","unique": true}}`}},
		{"index made unique", `{"op":"c","ns":"a.$cmd","o":{"collMod":"b","index":{"name":"x_1","prepareUnique":true}},"o2":{"collectionOptions_old":{}}}`, []string{`0@2 modify a.b ddl={"collMod": "b","index": {"name": "x_1","prepareUnique": true}}`}},
		{"very old name of dropIndexes", `{"op":"c","ns":"a.$cmd","o":{"deleteIndex":"b","index":"x_1"}}`, []string{`0@2 drop_indexes a.b ddl={"dropIndexes": "b","index": "x_1"}`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := oplog.Decoder{Source: event.Source{Deployment: "d"}}
			kept := event.Event{Op: event.OpWatermark}
			got, err := d.Decode(entry(t, tc.in), []event.Event{kept})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, lines(got[1:])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, e := range got[1:] {
				if e.Source.Deployment != "d" || !e.WallTime.Equal(time.UnixMilli(1500)) {
					t.Errorf("source %v, wall time %v", e.Source, e.WallTime)
				}
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	chain := `"prevOpTime":{"ts":{"$timestamp":{"t":6,"i":1}},"t":{"$numberLong":"2"}}`
	for _, tc := range []struct {
		name     string
		in       string
		want     error
		fragment oplog.Fragment
		text     string
	}{
		{"unknown op", `{"op":"zz","ns":"a.b","o":{}}`, oplog.ErrUnknown, oplog.Whole, "op zz"},
		{"unknown letter", `{"op":"x","ns":"a.b","o":{}}`, oplog.ErrUnknown, oplog.Whole, "op x"},
		{"unknown command", `{"op":"c","ns":"a.$cmd","o":{"unheardOf":"b"}}`, oplog.ErrUnknown, oplog.Whole, "command=unheardOf"},
		{"unknown command of the deployment", `{"op":"c","ns":"admin.$cmd","o":{"unheardOf":1}}`, oplog.ErrUnknown, oplog.Whole, "ns=admin.$cmd"},
		{"known and not possible", `{"op":"c","ns":"a.$cmd","o":{"importCollection":"a.b.c","dryRun":false}}`, oplog.ErrUnsupported, oplog.Whole, "collection a.b.c: hint: "},
		{"capped in place", `{"op":"c","ns":"a.$cmd","o":{"convertToCapped":"b","size":4096}}`, oplog.ErrUnsupported, oplog.Whole, "collection a.b"},
		{"time series", `{"op":"c","ns":"a.$cmd","o":{"create":"system.buckets.b","clusteredIndex":true,"timeseries":{"timeField":"t"}}}`, oplog.ErrUnsupported, oplog.Whole, "time-series collection a.b: hint: exclude it"},
		{"time series of a later server", `{"op":"c","ns":"a.$cmd","o":{"create":"b","timeseries":{"timeField":"t"}}}`, oplog.ErrUnsupported, oplog.Whole, "time-series collection a.b"},
		{"update version", `{"op":"u","ns":"a.b","o":{"$v":3},"o2":{"_id":1}}`, oplog.ErrUnknown, oplog.Whole, "position=7.3/0@2"},
		{"other operator", `{"op":"u","ns":"a.b","o":{"$inc":{"x":1}},"o2":{"_id":1}}`, oplog.ErrUnsupported, oplog.Whole, "$inc"},
		{"invalid diff", `{"op":"u","ns":"a.b","o":{"$v":2,"diff":{"q":{}}},"o2":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, "invalid delta"},
		{"diff and $set", `{"op":"u","ns":"a.b","o":{"$v":2,"diff":{"u":{"a":1}},"$set":{"b":1}},"o2":{"_id":1}}`, oplog.ErrUnknown, oplog.Whole, ""},
		{"diff of a view", `{"op":"u","ns":"a.system.views","o":{"$v":2,"diff":{"u":{"viewOn":"c"}}},"o2":{"_id":"a.v"}}`, oplog.ErrUnsupported, oplog.Whole, "view"},
		{"contradiction", `{"op":"u","ns":"a.b","o":{"$v":1,"$set":{"a":1,"a.b":1}},"o2":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, "two changes"},
		{"image without _id", `{"op":"u","ns":"a.b","o":{"x":1},"o2":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"update without key", `{"op":"u","ns":"a.b","o":{"$v":2,"diff":{"u":{"a":1}}}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"insert without _id", `{"op":"i","ns":"a.b","o":{"x":1}}`, oplog.ErrMalformed, oplog.Whole, "no _id"},
		{"delete without _id", `{"op":"d","ns":"a.b","o":{"x":1}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"no document", `{"op":"i","ns":"a.b"}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"no namespace", `{"op":"i","ns":"a","o":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, "namespace"},
		{"no op", `{"ns":"a.b","o":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, "no op"},
		{"wrong type", `{"op":"i","ns":1,"o":{"_id":1}}`, oplog.ErrMalformed, oplog.Whole, "field ns"},
		{"command without collection", `{"op":"c","ns":"a.$cmd","o":{"create":1}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"command on a collection", `{"op":"c","ns":"a.b","o":{"create":"x"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"empty command", `{"op":"c","ns":"a.$cmd","o":{}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"rename to nowhere", `{"op":"c","ns":"a.$cmd","o":{"renameCollection":"a.b"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"rename to a database", `{"op":"c","ns":"a.$cmd","o":{"renameCollection":"a.b","to":"c"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"index of another form", `{"op":"c","ns":"a.$cmd","o":{"createIndexes":"b","spec":{"key":{"x":1},"name":"x_1"}}}`, oplog.ErrUnknown, oplog.Whole, ""},
		{"build without indexes", `{"op":"c","ns":"a.$cmd","o":{"commitIndexBuild":"b"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"build of another form", `{"op":"c","ns":"a.$cmd","o":{"commitIndexBuild":"b","indexes":[{"name":"x"}]}}`, oplog.ErrUnknown, oplog.Whole, ""},
		{"drop of no index", `{"op":"c","ns":"a.$cmd","o":{"dropIndexes":"b"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"view of another database", `{"op":"i","ns":"a.system.views","o":{"_id":"b.v"}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"applyOps without list", `{"op":"c","ns":"a.$cmd","o":{"applyOps":1}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"applyOps of no document", `{"op":"c","ns":"a.$cmd","o":{"applyOps":[1]}}`, oplog.ErrMalformed, oplog.Whole, ""},
		{"error inside applyOps", `{"op":"c","ns":"a.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":1}},{"op":"i","ns":"a.b","o":{}}]}}`, oplog.ErrMalformed, oplog.Whole, "position=7.3/1@2"},

		{"several operations of a later form", `{` + session + `"op":"c","ns":"admin.$cmd","multiOpType":2,"o":{"applyOps":[]}}`, oplog.ErrUnknown, oplog.Whole, "multiOpType"},
		{"partial", `{` + session + `"op":"c","ns":"admin.$cmd","o":{"applyOps":[],"partialTxn":true}}`, oplog.ErrUnsupported, oplog.Partial, "(partial)"},
		{"last", `{` + session + chain + `,"op":"c","ns":"admin.$cmd","o":{"applyOps":[],"count":3}}`, oplog.ErrUnsupported, oplog.Last, "(last)"},
		{"prepared", `{` + session + `"op":"c","ns":"admin.$cmd","o":{"applyOps":[],"prepare":true}}`, oplog.ErrUnsupported, oplog.Prepared, "(prepared)"},
		{"commit", `{` + session + chain + `,"op":"c","ns":"admin.$cmd","o":{"commitTransaction":1,"commitTimestamp":{"$timestamp":{"t":7,"i":1}}}}`, oplog.ErrUnsupported, oplog.Commit, "(commit)"},
		{"abort", `{` + session + chain + `,"op":"c","ns":"admin.$cmd","o":{"abortTransaction":1}}`, oplog.ErrUnsupported, oplog.Abort, "(abort)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kept := []event.Event{{Op: event.OpWatermark}}
			got, err := (&oplog.Decoder{}).Decode(entry(t, tc.in), kept)
			var fault *oplog.EntryError
			if !errors.As(err, &fault) || !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if fault.Fragment != tc.fragment || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got fragment %s and %q", fault.Fragment, err)
			}
			if len(got) != 1 {
				t.Errorf("%d events beside the error", len(got)-1)
			}
		})
	}
	bad := bson.Raw(entry(t, `{"op":"i","ns":"a.b","o":{"_id":1}}`))
	for n := range bad {
		if events, err := (&oplog.Decoder{}).Decode(bad[:n], nil); !errors.Is(err, oplog.ErrMalformed) || events != nil {
			t.Fatalf("cut to %d bytes: %d events, %v", n, len(events), err)
		}
	}
}

func TestDecodeSelects(t *testing.T) {
	d := oplog.Decoder{Select: func(db, coll string) bool { return db == "f" && (coll == "victim" || coll == "view2") }}
	var got []string
	for _, e := range decodeAll(t, &d, fixture.Load(t, "diff-v2/ddl_collections")) {
		got = append(got, string(e.Op)+" "+e.NS.String())
	}
	want := []string{
		"create f.view2", "rename f.new", "rename f.tmpnSPCV.convertToCapped.victim", "drop f.view2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	txn := entry(t, `{`+session+`"op":"c","ns":"admin.$cmd","o":{"applyOps":[{"op":"d","ns":"a.b","o":{"_id":"x"}},{"op":"d","ns":"f.victim","o":{"_id":"y"}}]}}`)
	events, err := d.Decode(txn, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`1@2 delete f.victim txn=5/1 key={"_id": "y"}`}, lines(events)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	nothing := oplog.Decoder{Select: func(string, string) bool { return false }}
	for _, text := range []string{
		`{"op":"c","ns":"a.$cmd","o":{"emptycapped":"b"}}`, `{"op":"c","ns":"a.$cmd","o":{"importCollection":"a.b"}}`,
		`{"op":"c","ns":"a.$cmd","o":{"create":"system.buckets.b","timeseries":{"timeField":"t"}}}`,
	} {
		if events, err := nothing.Decode(entry(t, text), nil); err != nil || events != nil {
			t.Errorf("%s, not selected: %d events, %v", text, len(events), err)
		}
	}
	for _, name := range fixture.Names(t) {
		for _, raw := range fixture.Load(t, name).Oplog {
			if events, err := nothing.Decode(raw, nil); len(events) != 0 || (err != nil && !errors.Is(err, oplog.ErrUnsupported)) {
				t.Errorf("%s: %d events, %v", name, len(events), err)
			}
		}
	}
}

func TestReadHeader(t *testing.T) {
	s := fixture.Load(t, "diff-v2/transactions_prepared")
	var got []string
	for _, raw := range s.Oplog {
		h, err := oplog.ReadHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		at, err := oplog.EntryPosition(raw)
		if err != nil || at != h.Position || h.LSID == nil || h.Number == 0 || h.WallTime.IsZero() {
			t.Errorf("position %s, %v, header %+v", at, err, h)
		}
		if (h.Fragment == oplog.Commit) != (h.CommitTime != bson.Timestamp{}) {
			t.Errorf("commit time %v of %s", h.CommitTime, h.Fragment)
		}
		if h.Op == "c" {
			got = append(got, h.Command+" "+h.Fragment.String())
		} else if h.Fragment != oplog.Whole {
			t.Errorf("%s is %s", h.Op, h.Fragment)
		}
	}
	want := []string{
		"applyOps prepared", "commitTransaction commit", "applyOps prepared", "abortTransaction abort",
		"applyOps partial", "applyOps partial", "applyOps prepared", "commitTransaction commit",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, in := range []bson.Raw{nil, {5, 0, 0, 0, 0}} {
		if _, err := oplog.EntryPosition(in); !errors.Is(err, oplog.ErrMalformed) {
			t.Errorf("%x: %v", []byte(in), err)
		}
		if _, err := oplog.ReadHeader(in); !errors.Is(err, oplog.ErrMalformed) {
			t.Errorf("%x: %v", []byte(in), err)
		}
	}
	if _, err := oplog.ReadHeader(entry(t, `{"op":"c","ns":"admin.$cmd","o":{"commitTransaction":1}}`)); !errors.Is(err, oplog.ErrMalformed) {
		t.Errorf("commit without time: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"diff-v2/ddl_collections", "diff-v2/ddl_indexes", "diff-v2/transactions", "set-v1/update_arrays", "diff-v2/apply_ops_command"} {
		for i, raw := range fixture.Load(f, name).Oplog {
			if i%5 == 0 {
				f.Add([]byte(raw))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := (&oplog.Decoder{}).Decode(data, nil)
		if err != nil {
			var fault *oplog.EntryError
			if !errors.As(err, &fault) || events != nil {
				t.Errorf("%d events and %v", len(events), err)
			}
			return
		}
		for i := range events {
			_ = events[i].String()
			if _, err := event.DeltaFromRaw(events[i].Delta.Raw()); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	d := oplog.Decoder{Select: func(db, _ string) bool { return db == "shop" }}
	pad := strings.Repeat("x", 900)
	for _, bc := range []struct{ name, in string }{
		{"insert", `{"op":"i","ns":"shop.orders","ui":{"$binary":{"base64":"l3RET96VTdS1SniXlhxI1w==","subType":"04"}},"o":{"_id":{"$oid":"5f0c1d2e3a4b5c6d7e8f9001"},"pad":"` + pad + `"},"v":2}`},
		{"update diff", `{"op":"u","ns":"shop.orders","ui":{"$binary":{"base64":"l3RET96VTdS1SniXlhxI1w==","subType":"04"}},"o":{"$v":2,"diff":{"u":{"status":"paid"},"sitems":{"a":true,"s1":{"u":{"n":3}}}}},"o2":{"_id":{"$oid":"5f0c1d2e3a4b5c6d7e8f9001"}},"v":2}`},
		{"update paths", `{"op":"u","ns":"shop.orders","ui":{"$binary":{"base64":"l3RET96VTdS1SniXlhxI1w==","subType":"04"}},"o":{"$v":1,"$set":{"items.1.n":3,"status":"paid"}},"o2":{"_id":{"$oid":"5f0c1d2e3a4b5c6d7e8f9001"}},"v":2}`},
		{"delete", `{"op":"d","ns":"shop.orders","o":{"_id":1},"v":2}`},
		{"not selected", `{"op":"i","ns":"other.orders","o":{"_id":1,"pad":"` + pad + `"},"v":2}`},
	} {
		b.Run(bc.name, func(b *testing.B) {
			raw := entry(b, bc.in)
			events := make([]event.Event, 0, 4)
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := d.Decode(raw, events); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
