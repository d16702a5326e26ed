package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/verify"
)

// verdict is what a pipeline is judged by after its faults.
type verdict struct {
	broker              []string
	pipeline            string
	source, destination *testenv.Mongo
}

// verifications is how often a pair is compared until the answer is clear.
const verifications = 3

// judge fails the test unless the destination "eu" equals the source and every
// change was published once.
func judge(ctx context.Context, t *testing.T, fleet *stack.Fleet, v verdict) {
	t.Helper()
	var r *verify.Result
	err := fleet.Guard(ctx, func(ctx context.Context) (err error) {
		for range verifications {
			// An index build that an election has interrupted goes on by itself:
			// then the source was written to meanwhile.
			if r, err = fleet.Verify(ctx, "eu"); err != nil || r.Verdict != verify.Unknown {
				return err
			}
			t.Logf("verify again: %s", r.Cause)
		}
		return nil
	})
	if err != nil {
		fatal(t, fleet, err)
	}
	if r.Verdict != verify.Equal && !v.onlyOrder(ctx, t, r) {
		if err := verify.WriteTable(t.Output(), r); err != nil {
			t.Error(err)
		}
		v.show(ctx, t, r)
		fatal(t, fleet, fmt.Errorf("verdict %s %s, want equal", r.Verdict, r.Cause))
	}
	events, err := stack.CountEvents(ctx, v.broker, v.pipeline)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events of documents and %d definitions, %d collections compared", events.Data, events.Definitions, len(r.Collections))
	// None is possible: everything may have been written before the load began.
	if events.Repeated > 0 {
		t.Errorf("%d events were published, %d of them twice", events.Data, events.Repeated)
	}
}

// onlyOrder reports whether documents differ in nothing but the order of fields,
// and the source's updates do not say it: a $v: 1 entry that is applied to a
// later state, as in a load or once more, cannot put a field that was removed
// and set again where it was.
func (v verdict) onlyOrder(ctx context.Context, t *testing.T, r *verify.Result) bool {
	t.Helper()
	if r.Verdict != verify.Different || !strings.HasPrefix(v.source.Version, "4.4") {
		return false
	}
	for _, difference := range r.Differences {
		if difference.Kind == verify.KindDeferred {
			continue
		}
		if difference.Kind != verify.KindDifferent {
			return false
		}
		want, got := v.both(ctx, t, difference)
		if !bytes.Equal(inOrder(t, want), inOrder(t, got)) {
			return false
		}
	}
	t.Logf("ORDER: %d documents have their fields in another order, since $v: 1 updates do not tell it", r.Total())
	return true
}

// both reads a document at the source and at the destination; nil where there
// is none.
func (v verdict) both(ctx context.Context, t *testing.T, difference verify.Difference) (want, got bson.Raw) {
	t.Helper()
	var id bson.Raw
	if err := bson.UnmarshalExtJSON(difference.ID, true, &id); err != nil {
		t.Fatal(err)
	}
	read := func(m *testenv.Mongo, ns string) bson.Raw {
		db, coll, _ := strings.Cut(ns, ".")
		var doc bson.Raw
		filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: id.Lookup("_id")}}}}
		if err := m.Client.Database(db).Collection(coll).FindOne(ctx, filter).Decode(&doc); err != nil {
			return nil
		}
		return doc
	}
	return read(v.source, difference.Source), read(v.destination, difference.Target)
}

// show prints the first few documents that differ.
func (v verdict) show(ctx context.Context, t *testing.T, r *verify.Result) {
	t.Helper()
	const shown = 3
	for _, difference := range r.Differences[:min(shown, len(r.Differences))] {
		if len(difference.ID) == 0 || difference.Source == "" {
			continue
		}
		want, got := v.both(ctx, t, difference)
		t.Logf("%s %s: source %.2000s\ndestination %.2000s", difference.Kind, difference.Source, want, got)
	}
}

// inOrder returns a document with its fields, also nested ones, sorted by name.
func inOrder(t *testing.T, doc bson.Raw) bson.Raw {
	t.Helper()
	elements, err := doc.Elements()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(elements, func(a, b bson.RawElement) int { return strings.Compare(a.Key(), b.Key()) })
	dst, at := rawbson.Begin(nil)
	for _, e := range elements {
		value := e.Value()
		if value.Type == bson.TypeEmbeddedDocument || value.Type == bson.TypeArray {
			value.Value = inOrder(t, value.Value)
		}
		dst = rawbson.AppendValue(dst, value.Type, e.Key(), value.Value)
	}
	return rawbson.End(dst, at)
}
