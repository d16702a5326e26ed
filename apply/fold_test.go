package apply

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

var rewrite = flag.Bool("rewrite", false, "write what came out into testdata")

// TestFold runs testdata/fold.txt: events in, writes out. A case is
//
//	case NAME
//	strict | lenient | look       (strict: nothing is looked up but for deltas)
//	held DOCUMENT                 what the destination has, any number
//	insert | replace DOCUMENT     events, in canonical Extended JSON
//	delete ID
//	update ID DIFF
//	----
//	what is looked up and written, or the error
func TestFold(t *testing.T) {
	const path = "testdata/fold.txt"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, text := range strings.Split(strings.TrimRight(string(data), "\n"), "\n\n") {
		script, _, _ := strings.Cut(text, "\n----")
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(script + "\n----\n" + foldCase(t, script))
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(data), out.String()); diff != "" {
		t.Errorf("%s differs (-want +got); if that is right: go test -run TestFold -rewrite\n%s", path, diff)
	}
}

// foldCase runs one case and returns what came out, a line each.
func foldCase(t *testing.T, script string) string {
	t.Helper()
	ns := event.Namespace{DB: "db", Coll: "c"}
	mode, look := event.Strict, false
	held := map[string]bson.Raw{}
	var changes []change
	for _, line := range strings.Split(script, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		add := func(e event.Event) {
			changes = append(changes, change{Event: &e, target: ns, offset: int64(len(changes))})
		}
		switch word {
		case "case", "#", "strict":
		case "lenient":
			mode, look = event.Lenient, true
		case "look":
			look = true
		case "held":
			doc := extJSON(t, rest)
			held[idKey(t, doc.Lookup("_id"))] = doc
		case "insert":
			add(inserted(t, ns, extJSON(t, rest)))
		case "replace":
			add(replaced(t, ns, extJSON(t, rest)))
		case "delete":
			add(deleted(t, ns, extJSON(t, `{"v": `+rest+`}`).Lookup("v")))
		case "update":
			id, diff, _ := strings.Cut(rest, " ")
			add(updated(t, ns, extJSON(t, `{"v": `+id+`}`).Lookup("v"), extJSON(t, diff)))
		default:
			t.Fatalf("line %q is not of a form that is known", line)
		}
	}
	plans, err := fold(changes, mode, func(event.Namespace) bool { return false })
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var out strings.Builder
	for _, p := range plans {
		for _, d := range p.documents {
			out.WriteString(outcome(t, d, held, mode, d.needs(look)) + "\n")
		}
	}
	return out.String()
}

func outcome(t *testing.T, d *document, held map[string]bson.Raw, mode event.ApplyMode, n need) string {
	if d.unfit != nil {
		return "wants the whole document: " + d.unfit.Error()
	}
	needs := []string{"look up nothing", "look up _id", "look up document"}[n]
	w, err := d.resolve(), error(nil)
	if n != needNothing {
		w, _, err = d.resolveHeld(held[idKey(t, d.id)], mode, mode)
	}
	if err != nil {
		return needs + ": error: " + err.Error()
	}
	kind := []string{"nothing", "insert", "replace", "delete and insert", "delete"}[w.kind]
	if w.kind == writeNothing {
		return needs + ": " + kind
	}
	return fmt.Sprintf("%s: %s %s %s", needs, kind, w.id, w.doc)
}

func idKey(t *testing.T, id bson.RawValue) string {
	t.Helper()
	key, err := event.AppendIDKey(nil, id)
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

func extJSON(t *testing.T, text string) bson.Raw {
	t.Helper()
	var d bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(text), false, &d); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}
