package snapshot

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

// TestDefinitionsChangeWhileLoading drops a collection and makes it anew, and
// converts another one to a capped one, while both are being read: what is left
// of them is no fault of the run, the converted one is asked for, and a third
// one is loaded whole.
func TestDefinitionsChangeWhileLoading(t *testing.T) {
	r := newRig(t, realPair(t))
	ns := func(coll string) event.Namespace { return event.Namespace{DB: "shop", Coll: coll} }
	kept, dropped, converted := ns("kept"), ns("dropped"), ns("converted")
	const each = 600
	for _, name := range []event.Namespace{kept, dropped, converted} {
		fill(t, r.source, name, objectIDs(each), 300)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changes := make(chan event.Event)
	// No watermark passes what is not published yet.
	var behind atomic.Bool
	var capture, load errgroup.Group
	capture.Go(func() error { return r.publishAll(ctx, changes, &behind) })

	cfg := r.config("one")
	cfg.Throttle = throttle.New(throttle.Limits{Documents: 20})
	load.Go(func() error { return r.run(t, cfg) })
	r.awaitProgress(t, 0, func() bool { return true })
	behind.Store(true)
	db := r.source.Client.Database("shop")
	if err := db.Collection(dropped.Coll).Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, r.source, dropped, objectIDs(100), 300)
	if err := db.RunCommand(t.Context(), bson.D{{Key: "convertToCapped", Value: converted.Coll}, {Key: "size", Value: 1 << 20}}).Err(); err != nil {
		t.Fatal(err)
	}
	at, uuid := r.now(t), event.UUID{0: 7, 15: 1}
	if n, m := r.progressOf(t); n >= 3*each || m.State != state.RunLoading {
		t.Fatalf("the run is %s with %d documents already", m.State, n)
	}
	ddl := func(op event.Op, name event.Namespace, field, value string, through bson.Timestamp) event.Event {
		cmd, err := bson.Marshal(bson.D{{Key: field, Value: value}, {Key: "through", Value: through}, {Key: "request", Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		return event.Event{Op: op, NS: name, UUID: uuid, DDL: cmd, Position: event.Position{Time: at}, WallTime: time.Unix(0, 0)}
	}
	changes <- ddl(event.OpRename, ns("tmpaaaaa.convertToCapped.converted"), "to", converted.String(), at)
	behind.Store(false)
	cfg.Throttle.Set(throttle.Limits{})

	request := r.request(t)
	if request.Kind != state.RequestReload || request.Namespace() != converted || request.UUID != uuid {
		t.Errorf("request is %+v", request)
	}
	at = r.now(t)
	changes <- ddl(event.OpReloadEnd, converted, "reloadEnd", request.ID, at)
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := capture.Wait(); err != nil {
		t.Fatal(err)
	}
	if m, _ := r.state(t).LatestRun(); m.State != state.RunComplete {
		t.Errorf("the run is %s", m.State)
	}
	batches := r.loadedBatches(t)
	checkSequences(t, batches)
	if diff := cmp.Diff(held(t, r.source, kept), documentsOf(t, batches)[kept.String()]); diff != "" {
		t.Errorf("documents of %s (-source +topic):\n%.2000s", kept, diff)
	}
}

// publishAll does capture's part with one producer: the events that it is given,
// and watermarks unless it is behind, until ctx ends.
func (r *rig) publishAll(ctx context.Context, events <-chan event.Event, behind *atomic.Bool) error {
	p, err := openProducer(ctx, r.kafka, "capture")
	if err != nil {
		return err
	}
	defer p.close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var next event.Event
		select {
		case next = <-events:
		case <-tick.C:
			if behind.Load() {
				continue
			}
			ts, err := mongodb.MajorityTime(ctx, r.source.Client)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			next = watermark(ts)
		case <-ctx.Done():
			return nil
		}
		if err := r.publishWith(ctx, p, next); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("publish %s: %w", next.Op, err)
		}
	}
}
