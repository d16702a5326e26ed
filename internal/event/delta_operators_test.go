package event_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestOperators(t *testing.T) {
	for _, tc := range []struct {
		name   string
		delta  string
		want   string
		absent []string
	}{
		{"update", `{"u":{"a":1,"b":"x"}}`, `{"$set":{"a":1,"b":"x"}}`, nil},
		{"delete", `{"d":{"a":false}}`, `{"$unset":{"a":true}}`, nil},
		{"nested", `{"d":{"x":false},"u":{"a":1},"sb":{"d":{"y":false},"sc":{"u":{"d":2}}}}`, `{"$set":{"a":1,"b.c.d":2},"$unset":{"x":true,"b.y":true}}`, nil},
		{"array", `{"sa":{"a":true,"u0":1,"s2":{"u":{"b":1}},"s3":{"a":true,"u4":5}}}`, `{"$set":{"a.0":1,"a.2.b":1,"a.3.4":5}}`, nil},
		{"digits", `{"u":{"0":1},"s7":{"u":{"01":2}}}`, `{"$set":{"0":1,"7.01":2}}`, nil},
		{"insert", `{"u":{"z":1},"i":{"a":1}}`, `{"$set":{"z":1,"a":1}}`, []string{"a"}},
		{"inserts that ascend", `{"i":{"a":1,"b":2},"sc":{"i":{"a":1}}}`, `{"$set":{"a":1,"b":2,"c.a":1}}`, []string{"a", "b", "c.a"}},
		{"inserts that do not", `{"i":{"b":1,"a":2}}`, "", nil},
		{"inserted numbers", `{"i":{"9":1,"a":2}}`, `{"$set":{"9":1,"a":2}}`, []string{"9", "a"}},
		{"inserted numbers of two lengths", `{"i":{"10":1,"9":2}}`, "", nil},
		{"truncation", `{"sa":{"a":true,"l":1}}`, "", nil},
		{"id", `{"u":{"_id":1}}`, "", nil},
		{"id inside", `{"sa":{"u":{"_id":1}}}`, `{"$set":{"a._id":1}}`, nil},
		{"dotted name", `{"u":{"a.b":1}}`, "", nil},
		{"dotted name on the way", `{"sa.b":{"u":{"c":1}}}`, "", nil},
		{"dollar name", `{"d":{"$a":false}}`, "", nil},
		{"empty name", `{"u":{"":1}}`, "", nil},
		{"dollar name in a value", `{"u":{"a":[{"$b":1}]}}`, "", nil},
		{"dollar in a text", `{"u":{"a":"$b"}}`, `{"$set":{"a":"$b"}}`, nil},
		{"too deep", strings.Repeat(`{"sa":`, 120) + `{"u":{"a":1}}` + strings.Repeat(`}`, 120), "", nil},
		{"ordered", `{"o":1,"n":{"sfa":1,"nfb":{"se0":1,"ufx":true},"ufz":true}}`, `{"$set":{"a":1,"b.0":1},"$unset":{"b.x":true,"z":true}}`, nil},
		{"ordered that does not ascend", `{"o":1,"n":{"sfb":1,"sfa":1}}`, "", nil},
		{"ordered and uncertain", `{"o":2,"n":{"sfa":1}}`, "", nil},
		{"ordered with a dotted name", `{"o":1,"n":{"sfa.b":1}}`, "", nil},
		{"ordered with a length", `{"o":1,"n":{"nfa":{"l":1}}}`, "", nil},
		{"ordered and empty", `{"o":1,"n":{}}`, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			delta := fromRaw(t, raw(t, tc.delta))
			update, absent, exact := delta.GuardedOperators()
			if exact != (tc.want != "") {
				t.Fatalf("exact = %t, %s", exact, update)
			}
			if exact && !bytes.Equal(update, raw(t, tc.want)) {
				t.Errorf("got %s, want %s", update, tc.want)
			}
			if diff := cmp.Diff(tc.absent, absent); exact && diff != "" {
				t.Error(diff)
			}
			if _, plain := delta.Operators(); plain != (exact && len(absent) == 0) {
				t.Errorf("Operators says exact = %t", plain)
			}
		})
	}
}

// TestOperatorsOnFixtures runs random histories of a real server with deltas
// and, where they are exact, with operators in the order in which a server
// works them off, and compares every document.
func TestOperatorsOnFixtures(t *testing.T) {
	for _, name := range fixture.Names(t) {
		if !strings.Contains(name, "/random_") && !strings.Contains(name, "/update_") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := fixture.Load(t, name)
			held := make(map[string]bson.Raw)
			for _, documents := range s.Before.Documents {
				for _, doc := range documents {
					held[idKey(t, doc.Lookup("_id"))] = doc
				}
			}
			exact, guarded, total := 0, 0, 0
			for _, entry := range s.Oplog {
				key, delta := fixtureDelta(t, entry)
				if delta == nil {
					if o := entry.Lookup("o").Document(); entry.Lookup("op").StringValue() != "d" {
						held[idKey(t, o.Lookup("_id"))] = o
					}
					continue
				}
				want, err := delta.Apply(held[key], event.Strict)
				if err != nil {
					t.Fatal(err)
				}
				total++
				update, absent, ok := delta.GuardedOperators()
				if ok && !slices.ContainsFunc(absent, func(path string) bool { return holds(held[key], path) }) {
					guarded++
					if got := serverUpdate(t, held[key], update); !bytes.Equal(got, want) {
						t.Fatalf("%s on %s: operators %s made %s, want %s", delta.Raw(), held[key], update, got, want)
					}
				}
				if ok && len(absent) == 0 {
					exact++
				}
				held[key] = want
			}
			t.Logf("%d of %d deltas exact, %d with guards", exact, total, guarded)
			if exact == 0 && total > 100 {
				t.Error("no delta was exact")
			}
		})
	}
}

// fixtureDelta returns an update's _id and delta, nil for other entries.
func fixtureDelta(t *testing.T, entry bson.Raw) (string, event.Delta) {
	t.Helper()
	o := entry.Lookup("o").Document()
	if v, err := o.LookupErr("$v"); err != nil || entry.Lookup("op").StringValue() != "u" {
		return "", nil
	} else if v.Int32() == 1 {
		return idKey(t, entry.Lookup("o2", "_id")), modifiers(t, o.String())
	}
	delta, err := event.DeltaFromDiff(o.Lookup("diff").Document())
	if err != nil {
		t.Fatal(err)
	}
	return idKey(t, entry.Lookup("o2", "_id")), delta
}

// serverUpdate does what a server does with $set and $unset: in the order of
// the paths, by the rules that the ordered delta's tests fix.
func serverUpdate(t *testing.T, doc, update bson.Raw) bson.Raw {
	t.Helper()
	var parts [2]bson.Raw
	for i, name := range []string{"$set", "$unset"} {
		if v, err := update.LookupErr(name); err == nil {
			var d bson.D
			if err := bson.Unmarshal(v.Document(), &d); err != nil {
				t.Fatal(err)
			}
			slices.SortStableFunc(d, func(a, b bson.E) int {
				return slices.Compare(strings.Split(a.Key, "."), strings.Split(b.Key, "."))
			})
			if parts[i], err = bson.Marshal(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	delta, err := event.DeltaFromModifiers(parts[0], parts[1])
	if err != nil {
		t.Fatal(err)
	}
	got, err := delta.Apply(doc, event.Strict)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// holds reports whether a dotted path of plain names leads to a field.
func holds(doc bson.Raw, path string) bool {
	_, err := doc.LookupErr(strings.Split(path, ".")...)
	return err == nil
}
