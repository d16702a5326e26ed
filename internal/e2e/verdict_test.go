package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/verify"
)

// verdict is what a pipeline is judged by after its faults.
type verdict struct {
	broker              []string
	pipeline            string
	source, destination *testenv.Mongo
}

// judge fails the test unless the destination "eu" equals the source and every
// change was published once.
func judge(ctx context.Context, t *testing.T, fleet *stack.Fleet, v verdict) {
	t.Helper()
	var r *verify.Result
	err := fleet.Guard(ctx, func(ctx context.Context) (err error) {
		for {
			// An index build that an election has interrupted goes on by itself,
			// reloads that were asked for arrive: then a side was written to
			// meanwhile.
			if r, err = fleet.Verify(ctx, "eu"); err != nil || r.Verdict != verify.Unknown {
				return err
			}
			t.Logf("verify again: %s", r.Cause)
		}
	})
	if err != nil {
		fatal(t, fleet, err)
	}
	if r.Verdict != verify.Equal {
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
	if events.Data == 0 || events.Repeated > 0 {
		t.Errorf("%d events were published, %d of them twice", events.Data, events.Repeated)
	}
}

// awaitPublished waits until a capture has published what was written while it
// ran: a writer that stops earlier leaves nothing to judge.
func awaitPublished(ctx context.Context, fleet *stack.Fleet) error {
	for {
		for _, m := range fleet.Members {
			if !m.Running() {
				continue
			}
			if n, ok, err := m.Metric(ctx, "tributary_capture_events_total"); err == nil && ok && n > 0 {
				return nil
			}
		}
		if err := fleet.Check(); err != nil {
			return err
		}
		if err := pause(ctx, pollInterval); err != nil {
			return err
		}
	}
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
