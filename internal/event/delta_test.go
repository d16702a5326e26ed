package event_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// raw builds a document from Extended JSON; duplicate names are kept.
func raw(tb testing.TB, text string) bson.Raw {
	tb.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		tb.Fatalf("parse %s: %v", text, err)
	}
	b, err := bson.Marshal(d)
	if err != nil {
		tb.Fatalf("marshal %s: %v", text, err)
	}
	return b
}

func fromRaw(tb testing.TB, doc bson.Raw) event.Delta {
	tb.Helper()
	d, err := event.DeltaFromRaw(doc)
	if err != nil {
		tb.Fatalf("read delta %s: %v", doc, err)
	}
	return d
}

// applyCase is one delta on one document. Lenient is what lenient mode makes
// where strict mode errs; empty means the same document as strict.
type applyCase struct {
	name    string
	doc     string
	delta   string
	want    string
	strict  error
	lenient string
}

func (tc *applyCase) run(t *testing.T, delta event.Delta) {
	doc := raw(t, tc.doc)
	before := string(doc)
	got, err := delta.Apply(doc, event.Strict)
	if !errors.Is(err, tc.strict) {
		t.Fatalf("strict: got error %v, want %v", err, tc.strict)
	}
	lenient := tc.lenient
	if tc.strict == nil {
		lenient = tc.want
		if want := raw(t, tc.want); string(got) != string(want) {
			t.Errorf("strict: got %s, want %s", got, want)
		}
	}
	got, err = delta.Apply(doc, event.Lenient)
	if errors.Is(tc.strict, event.ErrDeltaAmbiguous) || errors.Is(tc.strict, event.ErrDeltaTooLarge) {
		if !errors.Is(err, tc.strict) {
			t.Errorf("lenient: got error %v, want %v", err, tc.strict)
		}
	} else if err != nil {
		t.Errorf("lenient: %v", err)
	} else if want := raw(t, lenient); string(got) != string(want) {
		t.Errorf("lenient: got %s, want %s", got, want)
	}
	if string(doc) != before {
		t.Error("the document was changed")
	}
}

func TestApplyDiff(t *testing.T) {
	mismatch := event.ErrDeltaMismatch
	for _, tc := range []applyCase{
		{name: "update in place", doc: `{"_id":1,"a":1,"b":2}`, delta: `{"u":{"a":"x"}}`, want: `{"_id":1,"a":"x","b":2}`},
		{name: "update of another type", doc: `{"_id":1,"a":[1],"b":2}`, delta: `{"u":{"a":{"c":1}}}`, want: `{"_id":1,"a":{"c":1},"b":2}`},
		{name: "insert in order", doc: `{"_id":1}`, delta: `{"i":{"z":1,"a":2}}`, want: `{"_id":1,"z":1,"a":2}`},
		{name: "insert moves", doc: `{"a":1,"_id":1,"b":2}`, delta: `{"i":{"a":5}}`, want: `{"_id":1,"b":2,"a":5}`},
		{name: "delete", doc: `{"a":1,"_id":1,"b":2}`, delta: `{"d":{"a":false,"b":false}}`, want: `{"_id":1}`},
		{name: "id comes first", doc: `{"a":1,"_id":1,"c":1}`, delta: `{"u":{"a":2},"i":{"b":1}}`, want: `{"_id":1,"a":2,"c":1,"b":1}`},
		{name: "id moved", doc: `{"_id":1,"a":1,"b":1}`, delta: `{"i":{"_id":1,"b":2}}`, want: `{"_id":1,"a":1,"b":2}`},
		{name: "id of another type", doc: `{"_id":1,"a":1}`, delta: `{"u":{"_id":{"$numberDouble":"1.0"}}}`, want: `{"_id":{"$numberDouble":"1.0"},"a":1}`},
		{name: "all parts", doc: `{"_id":1,"a":1,"b":2,"c":{"x":1,"y":1}}`, delta: `{"d":{"a":false},"u":{"b":3},"i":{"n":1},"sc":{"d":{"x":false},"i":{"z":2}}}`, want: `{"_id":1,"b":3,"c":{"y":1,"z":2},"n":1}`},
		{name: "names like parts", doc: `{"_id":1,"d":1,"u":2,"i":{"s":{"l":1}},"a":{"a":1}}`, delta: `{"d":{"d":false},"u":{"u":5},"si":{"ss":{"u":{"l":7}}},"sa":{"u":{"a":8}}}`, want: `{"_id":1,"u":5,"i":{"s":{"l":7}},"a":{"a":8}}`},
		{name: "dotted and dollar names", doc: `{"_id":1,"a.b":1,"$c":{"":2}}`, delta: `{"u":{"a.b":3},"s$c":{"u":{"":4}}}`, want: `{"_id":1,"a.b":3,"$c":{"":4}}`},
		{name: "empty name inside", doc: `{"_id":1,"":{"x":1}}`, delta: `{"s":{"u":{"x":2}}}`, want: `{"_id":1,"":{"x":2}}`},
		{name: "duplicates all change", doc: `{"_id":1,"a":1,"b":1,"a":2}`, delta: `{"u":{"a":9}}`, want: `{"_id":1,"a":9,"b":1,"a":9}`},
		{name: "duplicates all go", doc: `{"_id":1,"a":1,"b":1,"a":2}`, delta: `{"d":{"a":false}}`, want: `{"_id":1,"b":1}`},
		{name: "other duplicates stay", doc: `{"_id":1,"b":1,"b":2,"a":1}`, delta: `{"u":{"a":2}}`, want: `{"_id":1,"b":1,"b":2,"a":2}`},
		{name: "many changes", doc: manyFields(12, 0), delta: `{"u":` + manyFields(12, 5) + `}`, want: manyFields(12, 5)},

		{name: "array update", doc: `{"_id":1,"a":[1,2,3]}`, delta: `{"sa":{"a":true,"u1":"x"}}`, want: `{"_id":1,"a":[1,"x",3]}`},
		{name: "array append", doc: `{"_id":1,"a":[1]}`, delta: `{"sa":{"a":true,"u1":2,"u2":3}}`, want: `{"_id":1,"a":[1,2,3]}`},
		{name: "array pads", doc: `{"_id":1,"a":[1]}`, delta: `{"sa":{"a":true,"u3":2}}`, want: `{"_id":1,"a":[1,null,null,2]}`},
		{name: "array shorter", doc: `{"_id":1,"a":[1,2,3]}`, delta: `{"sa":{"a":true,"l":1}}`, want: `{"_id":1,"a":[1]}`},
		{name: "array emptied", doc: `{"_id":1,"a":[1,2,3]}`, delta: `{"sa":{"a":true,"l":0}}`, want: `{"_id":1,"a":[]}`},
		{name: "array longer", doc: `{"_id":1,"a":[1]}`, delta: `{"sa":{"a":true,"l":3,"u1":5}}`, want: `{"_id":1,"a":[1,5,null]}`},
		{name: "array shorter and changed", doc: `{"_id":1,"a":[{"x":1},{"x":2},3]}`, delta: `{"sa":{"a":true,"l":2,"s0":{"u":{"x":5}},"u1":6}}`, want: `{"_id":1,"a":[{"x":5},6]}`},
		{name: "arrays in arrays", doc: `{"_id":1,"a":[[1,[2,3]]]}`, delta: `{"sa":{"a":true,"s0":{"a":true,"s1":{"a":true,"u1":9}}}}`, want: `{"_id":1,"a":[[1,[2,9]]]}`},
		{name: "ten and more", doc: `{"_id":1,"a":[0,1,2,3,4,5,6,7,8,9,10]}`, delta: `{"sa":{"a":true,"u2":"x","u10":"y","u11":"z"}}`, want: `{"_id":1,"a":[0,1,"x",3,4,5,6,7,8,9,"y","z"]}`},

		{name: "update of nothing", doc: `{"_id":1}`, delta: `{"u":{"a":1},"i":{"b":2}}`, strict: mismatch, lenient: `{"_id":1,"a":1,"b":2}`},
		{name: "delete of nothing", doc: `{"_id":1}`, delta: `{"d":{"a":false}}`, strict: mismatch, lenient: `{"_id":1}`},
		{name: "inside nothing", doc: `{"_id":1}`, delta: `{"sa":{"u":{"b":1}}}`, strict: mismatch, lenient: `{"_id":1}`},
		{name: "inside a scalar", doc: `{"_id":1,"a":5}`, delta: `{"sa":{"u":{"b":1}}}`, strict: mismatch, lenient: `{"_id":1,"a":5}`},
		{name: "document inside an array", doc: `{"_id":1,"a":[5]}`, delta: `{"sa":{"u":{"0":1}}}`, strict: mismatch, lenient: `{"_id":1,"a":[5]}`},
		{name: "array inside a document", doc: `{"_id":1,"a":{"0":5}}`, delta: `{"sa":{"a":true,"u0":1}}`, strict: mismatch, lenient: `{"_id":1,"a":{"0":5}}`},
		{name: "inside past the end", doc: `{"_id":1,"a":[1]}`, delta: `{"sa":{"a":true,"s2":{"u":{"x":1}}}}`, strict: mismatch, lenient: `{"_id":1,"a":[1,null,null]}`},
		{name: "inside a scalar of an array", doc: `{"_id":1,"a":[1,2]}`, delta: `{"sa":{"a":true,"s0":{"u":{"x":1}},"u1":3}}`, strict: mismatch, lenient: `{"_id":1,"a":[1,3]}`},
		{name: "too long an array", doc: `{"_id":1,"a":[]}`, delta: `{"sa":{"a":true,"l":2147483647}}`, strict: event.ErrDeltaTooLarge},
		{name: "too far a position", doc: `{"_id":1,"a":[]}`, delta: `{"sa":{"a":true,"u4294967295":1}}`, strict: event.ErrDeltaTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			delta := fromRaw(t, raw(t, tc.delta))
			if delta.Ambiguous() {
				t.Error("a diff is ambiguous")
			}
			tc.run(t, delta)
		})
	}
}

func manyFields(n, from int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"f%d":%d`, i, i+from)
	}
	return "{" + b.String()[1:] + "}"
}

func TestApplyNamesThePath(t *testing.T) {
	delta := fromRaw(t, raw(t, `{"sa":{"a":true,"s1":{"sb":{"u":{"c":1}}}}}`))
	_, err := delta.Apply(raw(t, `{"a":[0,{"b":{"d":1}}]}`), event.Strict)
	if err == nil || !strings.Contains(err.Error(), `"a.1.b.c"`) {
		t.Errorf("got %v", err)
	}
}

func TestApplyTooLarge(t *testing.T) {
	half := strings.Repeat("x", 9<<20)
	doc, err := bson.Marshal(bson.D{{Key: "_id", Value: 1}, {Key: "a", Value: half}})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := bson.Marshal(bson.D{{Key: "i", Value: bson.D{{Key: "b", Value: half}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fromRaw(t, diff).Apply(doc, event.Lenient); !errors.Is(err, event.ErrDeltaTooLarge) {
		t.Errorf("got %v", err)
	}
}

// TestApplyKeepsBytes has values that a decoder would change: a NaN with a
// payload, deprecated types, an array with odd names, invalid UTF-8.
func TestApplyKeepsBytes(t *testing.T) {
	odd := []byte{
		1, 'n', 0, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f,
		6, 'u', 0,
		0x0e, 's', 0, 2, 0, 0, 0, 0xff, 0,
		4, 'r', 0, 13, 0, 0, 0, 8, 'x', 0, 1, 8, 'x', 0, 0, 0,
	}
	doc, at := rawbson.Begin(nil)
	doc = append(doc, odd...)
	doc = rawbson.AppendInt32(doc, "a", 1)
	doc = rawbson.End(append(doc, odd...), at)
	want, at := rawbson.Begin(nil)
	want = append(want, odd...)
	want = rawbson.AppendInt32(want, "a", 2)
	want = rawbson.End(append(want, odd...), at)
	got, err := fromRaw(t, raw(t, `{"u":{"a":2}}`)).Apply(doc, event.Strict)
	if err != nil || string(got) != string(want) {
		t.Errorf("got %x, %v, want %x", []byte(got), err, want)
	}
}

func TestDeltaInvalid(t *testing.T) {
	for _, text := range []string{
		`{}`, `{"x":{}}`, `{"b":{}}`, `{"u":1}`, `{"ux":{}}`, `{"i":{"a":1},"u":{"b":1}}`, `{"u":{"a":1},"u":{"b":1}}`, `{"sa":{}}`,
		`{"sa":{"u":{"b":1}},"i":{"c":1}}`, `{"u":{"a":1},"sa":{"u":{"b":1}}}`, `{"u":{"a":1,"a":2}}`, `{"d":{"a":false},"i":{"a":1}}`,
		`{"i":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"d":2}}`,
		`{"sa":{"a":false,"u0":1}}`, `{"sa":{"a":true,"u":1}}`, `{"sa":{"a":true,"ux":1}}`, `{"sa":{"a":true,"x1":1}}`, `{"sa":{"a":true,"s1":1}}`,
		`{"sa":{"a":true,"u1":1,"u0":1}}`, `{"sa":{"a":true,"u1":1,"s1":{"u":{"a":1}}}}`, `{"sa":{"a":true,"l":-1}}`, `{"sa":{"a":true,"l":"1"}}`,
		`{"sa":{"a":true,"l":1,"u1":1}}`, `{"sa":{"a":true,"u0":1,"l":1}}`, `{"sa":{"a":true,"s0":{}}}`, `{"a":true,"u0":1}`,
		`{"o":1}`, `{"o":3,"n":{}}`, `{"o":1,"n":1}`, `{"o":1,"m":{}}`, `{"o":1,"n":{},"x":1}`, `{"o":1,"n":{"sx":1}}`, `{"o":1,"n":{"s":1}}`,
		`{"o":1,"n":{"xfa":1}}`, `{"o":1,"n":{"ufa":false}}`, `{"o":1,"n":{"nfa":1}}`, `{"o":1,"n":{"nfa":{}}}`, `{"o":1,"n":{"l":1}}`,
		`{"o":1,"n":{"sfa":1,"ufa":true}}`, `{"o":1,"n":{"nfa":{"spx":1}}}`, `{"o":1,"n":{"nfa":{"se-1":1}}}`, `{"o":1,"n":{"nfa":{"sf0":1,"se0":1}}}`,
		`{"o":1,"n":{"nfa":{"sfb":1,"l":1}}}`, `{"o":1,"n":{"nfa":{"l":-1}}}`,
	} {
		if d, err := event.DeltaFromRaw(raw(t, text)); !errors.Is(err, event.ErrDeltaInvalid) && !errors.Is(err, rawbson.ErrMalformed) {
			t.Errorf("%s: got %v, %v", text, d, err)
		}
	}
	if d, err := event.DeltaFromRaw(nil); d != nil || err != nil {
		t.Errorf("nil: got %v, %v", d, err)
	}
	if _, err := event.DeltaFromDiff(raw(t, `{"o":1,"n":{}}`)); !errors.Is(err, event.ErrDeltaInvalid) {
		t.Errorf("an ordered delta passed for a diff: %v", err)
	}
	broken := raw(t, `{"u":{"a":{"b":"x"}}}`)
	broken[len(broken)-6] = 7
	if _, err := event.DeltaFromRaw(broken); !errors.Is(err, event.ErrDeltaInvalid) {
		t.Errorf("a broken value passed: %v", err)
	}
}
