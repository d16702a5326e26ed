package capture

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestUniqueClass has collections get into the order of the whole by the events
// that bring a unique index where one is enforced, and never out of it.
func TestUniqueClass(t *testing.T) {
	selection, err := rules.CompileSelection([]string{"shop.*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unique := bson.D{{Key: "key", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "name", Value: "a_1"}, {Key: "unique", Value: true}}
	plain := bson.D{{Key: "key", Value: bson.D{{Key: "b", Value: 1}}}, {Key: "name", Value: "b_1"}}
	indexes := func(specs ...any) bson.D {
		return bson.D{{Key: "createIndexes", Value: "c"}, {Key: "indexes", Value: bson.A(specs)}}
	}
	shop, crm := event.Namespace{DB: "shop", Coll: "c"}, event.Namespace{DB: "crm", Coll: "c"}
	for name, test := range map[string]struct {
		op   event.Op
		ns   event.Namespace
		ddl  bson.D
		want bool
	}{
		"unique":                 {event.OpCreateIndexes, shop, indexes(plain, unique), true},
		"plain":                  {event.OpCreateIndexes, shop, indexes(plain), false},
		"not enforced there":     {event.OpCreateIndexes, crm, indexes(unique), false},
		"made unique":            {event.OpModify, shop, bson.D{{Key: "collMod", Value: "c"}, {Key: "index", Value: bson.D{{Key: "name", Value: "b_1"}, {Key: "unique", Value: true}}}}, true},
		"another change":         {event.OpModify, shop, bson.D{{Key: "collMod", Value: "c"}, {Key: "index", Value: bson.D{{Key: "name", Value: "b_1"}, {Key: "hidden", Value: true}}}}, false},
		"renamed in":             {event.OpRename, crm, bson.D{{Key: "renameCollection", Value: "crm.c"}, {Key: "to", Value: "shop.c"}}, true},
		"renamed inside":         {event.OpRename, shop, bson.D{{Key: "renameCollection", Value: "shop.c"}, {Key: "to", Value: "shop.d"}}, false},
		"drop of a unique index": {event.OpDropIndexes, shop, bson.D{{Key: "dropIndexes", Value: "c"}, {Key: "index", Value: "a_1"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClasses(nil)
			c.unique = uniqueRules{"d": selection}
			ddl, err := bson.Marshal(test.ddl)
			if err != nil {
				t.Fatal(err)
			}
			e := event.Event{Op: test.op, NS: test.ns, UUID: event.UUID{1}, DDL: ddl}
			c.observeUnique(&e)
			if got := c.contains(e.UUID); got != test.want {
				t.Errorf("ordered as a whole: %t, want %t", got, test.want)
			}
		})
	}
	u := uniqueRules{"a": selection, "b": selection}
	if diff := cmp.Diff([]string{"a", "b"}, u.names()); diff != "" {
		t.Error(diff)
	}
	if err := u.check("p", []string{"a", "b", "gone"}); err != nil {
		t.Error(err)
	}
	if err := u.check("p", []string{"a"}); err == nil || !strings.Contains(err.Error(), "destination b") {
		t.Errorf("a destination that enforces too late: %v", err)
	}
}
