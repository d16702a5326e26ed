package rules

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
)

func TestSources(t *testing.T) {
	selection, err := CompileSelection([]string{"shop.*", "crm.*", "plain.orders"}, []string{"shop.secret"})
	if err != nil {
		t.Fatal(err)
	}
	rename, err := CompileRename(map[string]string{"shop": "crm", "plain": "copy"})
	if err != nil {
		t.Fatal(err)
	}
	d := Destination{Selection: selection, Rename: rename}
	for target, want := range map[event.Namespace][]event.Namespace{
		{DB: "crm", Coll: "orders"}:  {{DB: "shop", Coll: "orders"}, {DB: "crm", Coll: "orders"}},
		{DB: "crm", Coll: "secret"}:  {{DB: "crm", Coll: "secret"}},
		{DB: "copy", Coll: "orders"}: {{DB: "plain", Coll: "orders"}},
		{DB: "copy", Coll: "other"}:  nil,
		{DB: "shop", Coll: "orders"}: nil,
		{DB: "admin", Coll: "x"}:     nil,
	} {
		if diff := cmp.Diff(want, d.Sources(target)); diff != "" {
			t.Errorf("sources of %s (-want +got):\n%s", target, diff)
		}
	}
	if got := (Destination{}).Sources(event.Namespace{DB: "a", Coll: "b"}); len(got) != 1 {
		t.Errorf("without rules: %v", got)
	}
}
