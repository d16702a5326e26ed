package event_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// modifiers builds a delta from a document of $set and $unset.
func modifiers(tb testing.TB, text string) event.Delta {
	tb.Helper()
	var parts [2]bson.Raw
	for i, name := range []string{"$set", "$unset"} {
		if v, err := raw(tb, text).LookupErr(name); err == nil {
			parts[i] = v.Document()
		}
	}
	d, err := event.DeltaFromModifiers(parts[0], parts[1])
	if err != nil {
		tb.Fatalf("read %s: %v", text, err)
	}
	return fromRaw(tb, d.Raw())
}

func TestModifiersWireForm(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{"$set":{"a.0.b":1,"c":2},"$unset":{"d":true}}`, `{"o":1,"n":{"nfa":{"ne0":{"sfb":1}},"sfc":2,"ufd":true}}`},
		{`{}`, `{"o":1,"n":{}}`},
		{`{"$set":{"b.x":1,"a":2,"b.y":3}}`, `{"o":1,"n":{"nfb":{"sfx":1,"sfy":3},"sfa":2}}`},
		{`{"$set":{"0":1,"7.01.x":2}}`, `{"o":1,"n":{"sf0":1,"nf7":{"ne01":{"sfx":2}}}}`},
		{`{"$set":{"a.99999999999":1,"a.-1":2}}`, `{"o":1,"n":{"nfa":{"sf99999999999":1,"sf-1":2}}}`},
		{`{"$unset":{"a.b":true,"a.c":true}}`, `{"o":1,"n":{"nfa":{"ufb":true,"ufc":true}}}`},
		{`{"$set":{"":1,"a.":2}}`, `{"o":1,"n":{"sf":1,"nfa":{"sf":2}}}`},
	} {
		got := modifiers(t, tc.in)
		if diff := cmp.Diff(raw(t, tc.want), got.Raw()); diff != "" {
			t.Errorf("%s: got %s, want %s", tc.in, got.Raw(), tc.want)
		}
		if !got.Ambiguous() {
			t.Errorf("%s is not ambiguous", tc.in)
		}
	}
}

// TestModifiersGolden fixes the bytes of the wire form.
func TestModifiersGolden(t *testing.T) {
	got := fmt.Sprintf("%x", []byte(modifiers(t, `{"$set":{"a.0":1},"$unset":{"d":true}}`)))
	const want = "2d000000" + // length
		"10" + "6f00" + "01000000" + // o: 1
		"03" + "6e00" + "1e000000" + // n:
		"03" + "6e666100" + "0e000000" + // nfa:
		"10" + "73653000" + "01000000" + "00" + // se0: 1
		"08" + "75666400" + "01" + // ufd: true
		"00" + "00"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestModifiersContradict(t *testing.T) {
	for _, tc := range [][2]string{
		{`{"a":1,"a.b":2}`, `{}`},
		{`{"a.b":1,"a":2}`, `{}`},
		{`{"a":1}`, `{"a":true}`},
		{`{"a.b":1}`, `{"a.b":true}`},
	} {
		if _, err := event.DeltaFromModifiers(raw(t, tc[0]), raw(t, tc[1])); !errors.Is(err, event.ErrDeltaAmbiguous) {
			t.Errorf("%v: got %v", tc, err)
		}
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, `"f%d.x":1,`, i)
	}
	if _, err := event.DeltaFromModifiers(raw(t, `{`+many.String()+`"f50.x":2}`), nil); !errors.Is(err, event.ErrDeltaAmbiguous) {
		t.Errorf("many: got %v", err)
	}
	deep := strings.Repeat("a.", 600) + "b"
	if _, err := event.DeltaFromModifiers(raw(t, `{"`+deep+`":1}`), nil); !errors.Is(err, event.ErrDeltaInvalid) {
		t.Errorf("deep: got %v", err)
	}
}

func TestApplyModifiers(t *testing.T) {
	mismatch := event.ErrDeltaMismatch
	for _, tc := range []applyCase{
		{name: "set in place", doc: `{"_id":1,"a":1,"b":2}`, delta: `{"$set":{"a":"x"}}`, want: `{"_id":1,"a":"x","b":2}`},
		{name: "set new in order", doc: `{"a":1,"_id":1}`, delta: `{"$set":{"z":1,"c":2}}`, want: `{"_id":1,"a":1,"z":1,"c":2}`},
		{name: "unset", doc: `{"_id":1,"a":1,"b":{"c":1,"d":2}}`, delta: `{"$unset":{"a":true,"b.c":true}}`, want: `{"_id":1,"b":{"d":2}}`},
		{name: "unset nothing", doc: `{"_id":1}`, delta: `{"$unset":{"a":true,"b.c":true}}`, want: `{"_id":1}`},
		{name: "new documents on the way", doc: `{"_id":1}`, delta: `{"$set":{"a.b.c":1,"a.b.d":2,"e":3}}`, want: `{"_id":1,"a":{"b":{"c":1,"d":2}},"e":3}`},
		{name: "new fields inside before and after", doc: `{"_id":1,"s":{"x":1}}`, delta: `{"$set":{"a":1,"s.y":2,"z":3}}`, want: `{"_id":1,"s":{"x":1,"y":2},"a":1,"z":3}`},
		{name: "position in an array", doc: `{"_id":1,"a":[1,2]}`, delta: `{"$set":{"a.0":5}}`, want: `{"_id":1,"a":[5,2]}`},
		{name: "name in a document", doc: `{"_id":1,"a":{"0":1}}`, delta: `{"$set":{"a.0":5,"a.1":6}}`, want: `{"_id":1,"a":{"0":5,"1":6}}`},
		{name: "name on the way to nothing", doc: `{"_id":1}`, delta: `{"$set":{"a.0":5}}`, want: `{"_id":1,"a":{"0":5}}`},
		{name: "array pads", doc: `{"_id":1,"a":[1]}`, delta: `{"$set":{"a.3":4,"a.2":3}}`, want: `{"_id":1,"a":[1,null,3,4]}`},
		{name: "ten before nine", doc: `{"_id":1,"a":[]}`, delta: `{"$set":{"a.10":10,"a.9":9}}`, want: `{"_id":1,"a":[null,null,null,null,null,null,null,null,null,9,10]}`},
		{name: "document past the end", doc: `{"_id":1,"a":[]}`, delta: `{"$set":{"a.1.x.0":4}}`, want: `{"_id":1,"a":[null,{"x":{"0":4}}]}`},
		{name: "unset in an array", doc: `{"_id":1,"a":[1,{"b":2}]}`, delta: `{"$unset":{"a.0":true,"a.1.b":true,"a.7":true,"a.8.x":true}}`, want: `{"_id":1,"a":[null,{}]}`},
		{name: "leading zeros", doc: `{"_id":1,"a":[1,2]}`, delta: `{"$set":{"a.01":5}}`, want: `{"_id":1,"a":[1,5]}`},
		{name: "first of duplicates", doc: `{"_id":1,"a":1,"a":2}`, delta: `{"$set":{"a":9}}`, want: `{"_id":1,"a":9,"a":2}`},
		{name: "unset first of duplicates", doc: `{"_id":1,"a":1,"a":2}`, delta: `{"$unset":{"a":true}}`, want: `{"_id":1,"a":2}`},
		{name: "many", doc: manyFields(12, 0), delta: `{"$set":` + manyFields(14, 5) + `}`, want: manyFields(14, 5)},
		{name: "nothing", doc: `{"_id":1}`, delta: `{}`, want: `{"_id":1}`},

		{name: "inside a scalar", doc: `{"_id":1,"a":5}`, delta: `{"$set":{"a.b":1,"c":2}}`, strict: mismatch, lenient: `{"_id":1,"a":5,"c":2}`},
		{name: "name in an array", doc: `{"_id":1,"a":[5]}`, delta: `{"$set":{"a.b":1,"c":2}}`, strict: mismatch, lenient: `{"_id":1,"a":[5],"c":2}`},
		{name: "unset name in an array", doc: `{"_id":1,"a":[5]}`, delta: `{"$unset":{"a.b":true}}`, want: `{"_id":1,"a":[5]}`},
		{name: "scalar in an array", doc: `{"_id":1,"a":[5]}`, delta: `{"$set":{"a.0.b":1}}`, strict: mismatch, lenient: `{"_id":1,"a":[5]}`},
		{name: "one position twice", doc: `{"_id":1,"a":[5,6]}`, delta: `{"$set":{"a.01":1,"a.0":3,"a.1":2}}`, want: `{"_id":1,"a":[3,2]}`},
		{name: "one position set and unset", doc: `{"_id":1,"a":[5,6]}`, delta: `{"$set":{"a.1":1},"$unset":{"a.01":true}}`, strict: event.ErrDeltaAmbiguous},
		{name: "inside one position twice", doc: `{"_id":1,"a":[5,{}]}`, delta: `{"$set":{"a.01.b":1,"a.1.c":2}}`, strict: event.ErrDeltaAmbiguous},
		{name: "too far", doc: `{"_id":1,"a":[]}`, delta: `{"$set":{"a.4000000000":1}}`, strict: event.ErrDeltaTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, modifiers(t, tc.delta)) })
	}
}

func TestUpdateDescriptionWireForm(t *testing.T) {
	for _, tc := range []struct {
		in   string
		dots event.DotRule
		want string
	}{
		{`{"updatedFields":{"a.0":1,"b":2},"removedFields":["c.d"]}`, event.DotsUncertain, `{"o":2,"n":{"nfa":{"se0":1},"sfb":2,"nfc":{"ufd":true}}}`},
		{`{"updatedFields":{},"removedFields":[],"truncatedArrays":[{"field":"a.b","newSize":3}]}`, event.DotsSeparate, `{"o":1,"n":{"nfa":{"nfb":{"l":3}}}}`},
		{`{"updatedFields":{"a.b.1":5,"a.c":1},"removedFields":[],"truncatedArrays":[{"field":"a.b","newSize":3}]}`, event.DotsSeparate, `{"o":1,"n":{"nfa":{"nfb":{"l":3,"se1":5},"sfc":1}}}`},
		{
			`{"updatedFields":{"home.town":1,"res.0.city":2,"res.0.x":3},"removedFields":["q.1"],"truncatedArrays":[],
			"disambiguatedPaths":{"home.town":["home.town"],"res.0.city":["res",0,"city"],"q.1":["q","1"]}}`,
			event.DotsSeparate,
			`{"o":1,"n":{"sfhome.town":1,"nfres":{"np0":{"sfcity":2,"sfx":3}},"nfq":{"uf1":true}}}`,
		},
	} {
		d, err := event.DeltaFromUpdateDescription(raw(t, tc.in), tc.dots)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got := fromRaw(t, d.Raw()).Raw(); string(got) != string(raw(t, tc.want)) {
			t.Errorf("%s: got %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestUpdateDescriptionInvalid(t *testing.T) {
	for _, text := range []string{
		`{"updatedFields":1}`, `{"removedFields":{}}`, `{"removedFields":[1]}`, `{"truncatedArrays":[1]}`, `{"truncatedArrays":[{"field":"a"}]}`,
		`{"truncatedArrays":[{"field":"a","newSize":-1}]}`, `{"disambiguatedPaths":[]}`, `{"disambiguatedPaths":{"a":1}}`, `{"more":{}}`,
		`{"updatedFields":{"a":1},"disambiguatedPaths":{"a":[]}}`, `{"updatedFields":{"a":1},"disambiguatedPaths":{"a":[1.5]}}`,
		`{"updatedFields":{"a":1},"truncatedArrays":[{"field":"a","newSize":1}]}`,
		`{"truncatedArrays":[{"field":"a","newSize":1},{"field":"a","newSize":2}]}`,
	} {
		if d, err := event.DeltaFromUpdateDescription(raw(t, text), event.DotsSeparate); err == nil {
			t.Errorf("%s: got %s", text, d.Raw())
		}
	}
}

func TestApplyUpdateDescription(t *testing.T) {
	mismatch, ambiguous := event.ErrDeltaMismatch, event.ErrDeltaAmbiguous
	for _, tc := range []struct {
		applyCase
		dots event.DotRule
	}{
		{applyCase{name: "shorter", doc: `{"a":{"b":[1,2,3]}}`, delta: `{"updatedFields":{"a.b.0":9},"truncatedArrays":[{"field":"a.b","newSize":2}]}`, want: `{"a":{"b":[9,2]}}`}, event.DotsSeparate},
		{applyCase{name: "longer", doc: `{"a":[1]}`, delta: `{"truncatedArrays":[{"field":"a","newSize":2}]}`, want: `{"a":[1,null]}`}, event.DotsSeparate},
		{applyCase{name: "shorter document", doc: `{"a":{"x":1}}`, delta: `{"truncatedArrays":[{"field":"a","newSize":2}]}`, strict: mismatch, lenient: `{"a":{"x":1}}`}, event.DotsSeparate},
		{applyCase{name: "dotted name said", doc: `{"a.b":1,"a":{"b":1}}`, delta: `{"updatedFields":{"a.b":2},"disambiguatedPaths":{"a.b":["a.b"]}}`, want: `{"a.b":2,"a":{"b":1}}`}, event.DotsSeparate},
		{applyCase{name: "position said", doc: `{"a":{"0":1}}`, delta: `{"updatedFields":{"a.0":2},"disambiguatedPaths":{"a.0":["a",0]}}`, strict: mismatch, lenient: `{"a":{"0":1}}`}, event.DotsSeparate},
		{applyCase{name: "name said", doc: `{"a":[1]}`, delta: `{"updatedFields":{"a.0":2},"disambiguatedPaths":{"a.0":["a","0"]}}`, strict: mismatch, lenient: `{"a":[1]}`}, event.DotsSeparate},
		{applyCase{name: "uncertain and plain", doc: `{"a":{"b":1}}`, delta: `{"updatedFields":{"a.b":2,"c":1}}`, want: `{"a":{"b":2},"c":1}`}, event.DotsUncertain},
		{applyCase{name: "uncertain with a dotted field", doc: `{"a":{"b":1},"a.b":1}`, delta: `{"updatedFields":{"a.b":2}}`, strict: ambiguous}, event.DotsUncertain},
		{applyCase{name: "uncertain with only a dotted field", doc: `{"a.b":1}`, delta: `{"updatedFields":{"a.b":2}}`, strict: ambiguous}, event.DotsUncertain},
		{applyCase{name: "uncertain without a holder", doc: `{"c":1}`, delta: `{"updatedFields":{"a.b":2}}`, strict: ambiguous}, event.DotsUncertain},
		{applyCase{name: "uncertain past the end", doc: `{"a":[]}`, delta: `{"updatedFields":{"a.0.b":2}}`, strict: ambiguous}, event.DotsUncertain},
		{applyCase{name: "certain without a holder", doc: `{"c":1}`, delta: `{"updatedFields":{"a.b":2}}`, want: `{"c":1,"a":{"b":2}}`}, event.DotsSeparate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := event.DeltaFromUpdateDescription(raw(t, tc.delta), tc.dots)
			if err != nil {
				t.Fatal(err)
			}
			tc.run(t, fromRaw(t, d.Raw()))
		})
	}
}
