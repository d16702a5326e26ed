package rules_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		name             string
		include, exclude []string
		yes, no          []string
	}{
		{
			name: "everything but what is never selected",
			yes:  []string{"shop.orders", "shop.a.b.c", "x.tmp", "x.tmpfile", "x.tmpabc.other", "x.tmp1.renameCollection.x", "x.systems", "x.tmpab-c.renameCollection"},
			no: []string{
				"admin.a", "local.a", "config.a", "tributary.offsets", "shop.system.views", "shop.system.buckets.x",
				"shop.tmpAb1cD.renameCollection", "shop.tmpAb1cD.convertToCapped.orders", "shop.tmpAb1cD.convertToCapped.a.b",
			},
		},
		{
			name: "fixed", include: []string{"shop.orders", "shop.a.b"},
			yes: []string{"shop.orders", "shop.a.b"}, no: []string{"shop.a", "shop.items", "hr.orders"},
		},
		{
			name: "database", include: []string{"shop.*"}, exclude: []string{"shop.log"},
			yes: []string{"shop.orders", "shop.a.b"}, no: []string{"shop.log", "hr.orders", "shop.system.js"},
		},
		{
			name: "collection", include: []string{"*.orders", "*.a.b"},
			yes: []string{"shop.orders", "hr.orders", "x.a.b"}, no: []string{"shop.items", "local.orders", "x.b"},
		},
		{
			name: "exclude wins", include: []string{"*.*"}, exclude: []string{"hr.*", "*.log"},
			yes: []string{"shop.orders"}, no: []string{"hr.people", "shop.log"},
		},
		{name: "nothing", exclude: []string{"*.*"}, no: []string{"shop.orders"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := rules.CompileSelection(test.include, test.exclude)
			if err != nil {
				t.Fatal(err)
			}
			for _, ns := range test.yes {
				db, coll, _ := strings.Cut(ns, ".")
				if !s.Match(db, coll) {
					t.Errorf("%s is not selected", ns)
				}
			}
			for _, ns := range test.no {
				db, coll, _ := strings.Cut(ns, ".")
				if s.Match(db, coll) {
					t.Errorf("%s is selected", ns)
				}
			}
		})
	}
}

func TestSelectionAnd(t *testing.T) {
	compile := func(include ...string) *rules.Selection {
		s, err := rules.CompileSelection(include, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	both := compile("shop.*").And(compile("*.orders")).And(nil).And(compile("shop.orders", "shop.items"))
	for ns, want := range map[string]bool{"shop.orders": true, "shop.items": false, "hr.orders": false} {
		db, coll, _ := strings.Cut(ns, ".")
		if got := both.Match(db, coll); got != want {
			t.Errorf("%s: %t, want %t", ns, got, want)
		}
	}
	var all *rules.Selection
	if !all.Match("a", "b") || all.Match("admin", "b") || !all.And(compile("a.b")).Match("a", "b") {
		t.Error("nil must select everything that can be selected")
	}
}

func TestSelectionFaultsAreReportedTogether(t *testing.T) {
	_, err := rules.CompileSelection([]string{"shop", "shop.o*", "ok.ok", "admin.x"}, []string{".x", "x.", "*x.y", "a.system.views", ""})
	want := map[string]string{
		`include[0] "shop"`: "want database.collection", `include[1] "shop.o*"`: "whole part", `include[3] "admin.x"`: "never",
		`exclude[0] ".x"`: "want", `exclude[1] "x."`: "want", `exclude[2] "*x.y"`: "whole part",
		`exclude[3] "a.system.views"`: "never", `exclude[4] ""`: "want",
	}
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for pattern, fault := range want {
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, pattern) && strings.Contains(line, fault)
		}
		if !found {
			t.Errorf("no fault %s … %s in:\n%v", pattern, fault, err)
		}
	}
	if fault, ok := errors.AsType[*rules.PatternError](err); !ok || fault.List != "include" || fault.Index != 0 {
		t.Errorf("first fault is %+v", fault)
	}
}

func TestRename(t *testing.T) {
	r, err := rules.CompileRename(map[string]string{"shop": "shop_copy", "a": "b", "b": "a"})
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{"shop.x.y": "shop_copy.x.y", "a.c": "b.c", "b.c": "a.c", "z.c": "z.c"} {
		ns, err := event.ParseNamespace(from)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Namespace(ns).String(); got != want {
			t.Errorf("%s becomes %s, want %s", from, got, want)
		}
	}
	var none *rules.Rename
	if got := none.Namespace(event.Namespace{DB: "a", Coll: "b"}).String(); got != "a.b" {
		t.Errorf("nil renames to %s", got)
	}
}

func TestRenameFaults(t *testing.T) {
	for name, test := range map[string]struct {
		databases map[string]string
		want      string
	}{
		"two into one":     {map[string]string{"a": "x", "b": "x"}, "both a and b"},
		"empty":            {map[string]string{"a": ""}, "empty"},
		"illegal":          {map[string]string{"a": "b.c"}, "does not allow"},
		"pattern":          {map[string]string{"*": "b"}, "does not allow"},
		"the server's":     {map[string]string{"a": "admin"}, "belongs to"},
		"from Tributary's": {map[string]string{"tributary": "x"}, "belongs to"},
		"long":             {map[string]string{"a": strings.Repeat("x", 64)}, "63"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rules.CompileRename(test.databases)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestDestinationTargets(t *testing.T) {
	selection, err := rules.CompileSelection([]string{"shop.*", "old.*", "Case.*", "case.*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rename, err := rules.CompileRename(map[string]string{"shop": "old"})
	if err != nil {
		t.Fatal(err)
	}
	d := rules.Destination{Selection: selection, Rename: rename}
	ns := func(text string) event.Namespace {
		parsed, err := event.ParseNamespace(text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	if target, ok := d.Target(ns("shop.a")); !ok || target != ns("old.a") {
		t.Errorf("target %s %t", target, ok)
	}
	if _, ok := d.Target(ns("hr.a")); ok {
		t.Error("hr.a is taken")
	}
	for name, test := range map[string]struct {
		sources []string
		want    string
	}{
		"apart":                   {[]string{"shop.a", "old.b", "hr.a"}, ""},
		"in one":                  {[]string{"shop.a", "old.a"}, "shop.a and old.a would both be written to old.a"},
		"databases by case alone": {[]string{"Case.a", "case.b"}, "both be written to"},
		"twice the same":          {[]string{"shop.a", "shop.a"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sources []event.Namespace
			for _, s := range test.sources {
				sources = append(sources, ns(s))
			}
			err := d.CheckTargets(sources)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestDeferIndex(t *testing.T) {
	for name, test := range map[string]struct {
		spec, built string // built is empty where nothing changes
		policy      rules.IndexPolicy
	}{
		"plain": {spec: `{"v": 2, "key": {"a": 1}, "name": "a_1"}`},
		"unique and ttl": {
			spec:  `{"v": 2, "unique": true, "key": {"a": 1}, "expireAfterSeconds": 0, "name": "a_1", "sparse": true}`,
			built: `{"v": 2, "key": {"a": 1}, "name": "a_1", "sparse": true}`,
		},
		"unique as a number": {
			spec:  `{"key": {"a": 1}, "unique": 1.0, "name": "a_1"}`,
			built: `{"key": {"a": 1}, "name": "a_1"}`,
		},
		"not unique": {spec: `{"key": {"a": 1}, "name": "a_1", "unique": false}`},
		"_id stays":  {spec: `{"v": 2, "key": {"_id": 1}, "name": "_id_", "unique": true}`},
		"unique enforced": {
			spec:   `{"v": 2, "unique": true, "key": {"a": 1}, "expireAfterSeconds": 0, "name": "a_1"}`,
			built:  `{"v": 2, "unique": true, "key": {"a": 1}, "name": "a_1"}`,
			policy: rules.IndexPolicy{Unique: true},
		},
		"ttl enforced": {
			spec: `{"key": {"a": 1}, "expireAfterSeconds": 60, "name": "a_1"}`, policy: rules.IndexPolicy{TTL: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			built, deferred, err := rules.DeferIndex(raw(t, test.spec), test.policy)
			if err != nil {
				t.Fatal(err)
			}
			want := cmp.Or(test.built, test.spec)
			if !bytes.Equal(raw(t, want), built) || deferred != (test.built != "") {
				t.Errorf("deferred=%t, built %s, want %s", deferred, built, want)
			}
		})
	}
	if _, _, err := rules.DeferIndex(bson.Raw{5, 0, 0}, rules.IndexPolicy{}); err == nil {
		t.Error("a torn document is accepted")
	}
}

// The cost of a match must not grow with the number of patterns.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("patterns=%d", n), func(b *testing.B) {
			patterns := make([]string, n)
			for i := range patterns {
				patterns[i] = fmt.Sprintf("db%d.coll%d", i, i)
			}
			s, err := rules.CompileSelection(patterns, patterns[n/2:])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Match("shop", "orders")
			}
		})
	}
}

// raw reads Extended JSON, order kept.
func raw(t *testing.T, text string) bson.Raw {
	t.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		t.Fatal(err)
	}
	b, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
