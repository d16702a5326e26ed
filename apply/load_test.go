package apply

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestLoadConflicts puts documents of somebody else's into a collection while it
// is being loaded: one of the same bytes is none, and what another one means is
// the operator's to say.
func TestLoadConflicts(t *testing.T) {
	for _, tt := range []struct{ delivery, conflicts string }{
		{ExactlyOnceOn, ""}, {ExactlyOnceOff, ""}, {ExactlyOnceOn, ConflictsOverwrite}, {ExactlyOnceOff, ConflictsKeep},
	} {
		t.Run(fmt.Sprintf("exactly_once=%s/conflicts=%s", tt.delivery, tt.conflicts), func(t *testing.T) {
			loadConflicts(t, tt.delivery, tt.conflicts)
		})
	}
}

func loadConflicts(t *testing.T, delivery, conflicts string) {
	r := realRig(t)
	r.edit = func(cfg *Config) { cfg.ExactlyOnce, cfg.Conflicts = delivery, conflicts }
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}, uuid: event.UUID{3}}
	document := func(id, text string) bson.Raw {
		return raw(t, bson.D{{Key: "_id", Value: id}, {Key: "text", Value: text}})
	}
	for i := range 30 {
		c.docs = append(c.docs, document(fmt.Sprint(i), "the source's"))
	}
	// A document of two steps: its timestamp would be filled in.
	c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: "steps"}, {Key: "at", Value: bson.Timestamp{}}}))
	m := r.begin(t, c)
	s := r.start(t, "a")
	testenv.Eventually(t, settled, func() error {
		if g, known, _ := s.service.phases.current(); !known || g.Phase != state.PhaseSnapshot || !g.Prepared {
			return errors.New("the load is not prepared")
		}
		return nil
	})
	coll := r.dest.Client.Database(c.ns.DB).Collection(c.ns.Coll)
	want := append([]bson.Raw(nil), c.docs...)
	other, more := document("11", "somebody else's"), document("more", "somebody else's")
	if _, err := coll.InsertMany(t.Context(), []any{c.docs[4], other, more}); err != nil {
		t.Fatal(err)
	}
	r.load(t, m, c)
	if conflicts == "" {
		err := s.fails(t)
		if text := err.Error(); !strings.Contains(text, `shop.orders _id="11"`) || !strings.Contains(text, "hint:") {
			t.Errorf("apply ended with %v", err)
		}
		held, err := coll.FindOne(t.Context(), byID("11")).Raw()
		if err != nil || !bytes.Equal(held, other) {
			t.Errorf("somebody else's document is %s now (%v)", held, err)
		}
		// The operator removes it, and apply goes on where it stopped.
		if _, err := coll.DeleteOne(t.Context(), byID("11")); err != nil {
			t.Fatal(err)
		}
		s = r.start(t, "b")
	}
	if conflicts == ConflictsKeep {
		want[11] = other
	}
	r.await(t, r.watermark(t), s)
	r.same(t, c.ns, append(want, more))
	s.stop(t)
}

// TestLoadBeginsAgain loads a run a second time where the first one's offsets
// were lost, as at least once may: equal documents are no conflict and are not
// written again.
func TestLoadBeginsAgain(t *testing.T) {
	for _, delivery := range []string{ExactlyOnceOn, ExactlyOnceOff} {
		t.Run("exactly_once="+delivery, func(t *testing.T) { loadAgain(t, delivery) })
	}
}

func loadAgain(t *testing.T, delivery string) {
	r := realRig(t)
	r.edit = func(cfg *Config) { cfg.ExactlyOnce = delivery }
	c := collection{ns: event.Namespace{DB: "shop", Coll: "orders"}, uuid: event.UUID{4}}
	for i := range 40 {
		c.docs = append(c.docs, raw(t, bson.D{{Key: "_id", Value: int32(i)}, {Key: "at", Value: bson.Timestamp{I: uint32(i % 3)}}}))
	}
	m := r.begin(t, c)
	s := r.start(t, "a")
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)
	s.stop(t)
	own := r.dest.Client.Database(ownDatabase)
	rewind := set(field("loaded", ""), field("offset", int64(0)))
	if _, err := own.Collection(offsetsCollection).UpdateMany(t.Context(), bson.D{{Key: "_id.topic", Value: r.topics.Snapshot}}, rewind); err != nil {
		t.Fatal(err)
	}
	if _, err := own.Collection(groupsCollection).UpdateMany(t.Context(), bson.D{}, set(field("phase", state.PhaseSnapshot))); err != nil {
		t.Fatal(err)
	}
	writes := r.entriesOf(t, c.ns)
	s = r.start(t, "b")
	testenv.Eventually(t, settled, func() error {
		if g, known, _ := s.service.phases.current(); !known || g.Phase != state.PhaseChanges {
			return errors.New("the load is not over")
		}
		return nil
	})
	s.stop(t)
	r.same(t, c.ns, c.docs)
	if now := r.entriesOf(t, c.ns); now != writes {
		t.Errorf("the second load made %d oplog entries more", now-writes)
	}
}

// entriesOf counts the oplog entries of the destination that write to a
// collection.
func (r *rig) entriesOf(t *testing.T, ns event.Namespace) int64 {
	t.Helper()
	n, err := r.dest.Client.Database("local").Collection("oplog.rs").CountDocuments(t.Context(), bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: "ns", Value: ns.String()}}, bson.D{{Key: "o.applyOps.ns", Value: ns.String()}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLargeIDs asks for documents whose _ids are too large for one command.
func TestLargeIDs(t *testing.T) {
	const (
		count = 200
		most  = 16 << 20
	)
	id := raw(t, bson.D{{Key: "_id", Value: strings.Repeat("x", 100<<10)}}).Lookup("_id")
	var documents []*document
	for range count {
		documents = append(documents, &document{id: id})
	}
	asked := 0
	for rest := documents; len(rest) > 0; rest = rest[fewer(rest):] {
		var ids []bson.RawValue
		for _, d := range rest[:fewer(rest)] {
			ids = append(ids, d.id)
		}
		asked += len(ids)
		if cmd := findCommand("c", ids, needImage, nil); len(ids) == 0 || len(cmd) > most {
			t.Fatalf("a command for %d documents has %d bytes", len(ids), len(cmd))
		}
	}
	if asked != count {
		t.Errorf("%d of %d documents are asked for", asked, count)
	}
}
