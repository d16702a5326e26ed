package snapshot

import (
	"context"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// reviewInterval is how often requests that were sent are looked after.
const reviewInterval = 15 * time.Second

// disturbed are the collections that a rename (or a conversion, which is one)
// touched between W and R: what was loaded of them may be split between two
// names. Each is asked for whole, for every destination, and the run is complete
// when all of them have come.
type disturbed struct {
	o   *owner
	p   *producer
	run string
	// w and r bound the renames that count.
	w, r bson.Timestamp
	// touched holds them by what names them for good.
	touched map[string]*touched
	// through is the latest time that the images of a reload can have.
	through  bson.Timestamp
	asked    bool
	reviewed time.Time
}

// touched is one collection and what became of its request.
type touched struct {
	request state.Request
	// sent is the offset behind its record in the control topic.
	sent int64
	// over is how far capture had published when the request was first seen to
	// be over without a result; zero before.
	over bson.Timestamp
}

// settle follows the changes from W until a watermark has passed r, and until
// every collection that a rename in between touched was reloaded, or is gone. It
// returns the time that nothing which was loaded is later than.
func (o *owner) settle(ctx context.Context, p *producer, m *state.Manifest, r bson.Timestamp) (bson.Timestamp, error) {
	d := &disturbed{o: o, p: p, run: m.Run, w: m.Watermark, r: r, touched: map[string]*touched{}, through: r}
	err := o.s.followChanges(ctx, m.ChangeOffsets[followed], func(e *event.Event) (bool, error) {
		if e.Op == event.OpWatermark {
			return d.watermark(ctx, e.Position.Time)
		}
		return false, d.see(e)
	})
	return d.through, err
}

// see takes note of a DDL event.
func (d *disturbed) see(e *event.Event) error {
	switch e.Op {
	case event.OpRename:
		return d.renamed(e)
	case event.OpDrop:
		delete(d.touched, nameForGood(e.NS, e.UUID))
	case event.OpReloadEnd:
		return d.reloaded(e)
	case event.OpCreate, event.OpCreateIndexes, event.OpDropIndexes, event.OpModify, event.OpReload,
		event.OpInsert, event.OpUpdate, event.OpReplace, event.OpDelete, event.OpRefresh, event.OpWatermark:
	}
	return nil
}

// renamed takes note of a rename: after R only of those that end something.
func (d *disturbed) renamed(e *event.Event) error {
	to, err := renameTarget(e)
	if err != nil {
		return err
	}
	key := nameForGood(e.NS, e.UUID)
	former := d.touched[key]
	delete(d.touched, key)
	for other, t := range d.touched {
		if t.request.Namespace() == to {
			delete(d.touched, other) // it was replaced
		}
	}
	if d.o.s.cfg.OneOff {
		return nil
	}
	inside := event.CompareTimes(e.Position.Time, d.w) > 0 && event.CompareTimes(e.Position.Time, d.r) <= 0
	if !d.o.s.cfg.Select.Match(to.DB, to.Coll) || !inside && former == nil {
		return nil
	}
	if former == nil {
		former = &touched{request: state.Request{
			Kind: state.RequestReload, ID: "snapshot/" + d.run + "/" + key, UUID: e.UUID,
			Reason: "it was renamed while it was loaded",
		}}
		d.o.log.Info().Str(logfield.Namespace, to.String()).Str(logfield.Reason, fmt.Sprintf("%s was renamed at %s, while it was loaded", e.NS, e.Position)).
			Msg("collection will be reloaded")
	}
	former.request.DB, former.request.Coll = to.DB, to.Coll
	d.touched[nameForGood(to, e.UUID)] = former
	return nil
}

// nameForGood is the UUID, or the name where the source has none.
func nameForGood(ns event.Namespace, uuid event.UUID) string {
	if uuid.IsZero() {
		return ns.String()
	}
	return uuid.String()
}

// reloaded takes note of the end of a reload, also of one that an earlier life
// of this run has asked for.
func (d *disturbed) reloaded(e *event.Event) error {
	id, _ := e.DDL.Lookup("request").StringValueOK()
	for key, t := range d.touched {
		if t.request.ID == id {
			delete(d.touched, key)
		}
	}
	through, found, err := rawbson.Lookup(e.DDL, "through")
	if err != nil || !found || through.Type != bson.TypeTimestamp {
		return &refusedError{reason: fmt.Sprintf("read change event %s: it has no time", e)}
	}
	t, i := through.RawValue().Timestamp()
	d.through = later(later(d.through, e.Position.Time), bson.Timestamp{T: t, I: i})
	return nil
}

// watermark goes on behind everything up to a time; done says that nothing is
// left to wait for.
func (d *disturbed) watermark(ctx context.Context, at bson.Timestamp) (done bool, err error) {
	if event.CompareTimes(at, d.r) < 0 {
		return false, nil
	}
	if len(d.touched) == 0 {
		return event.CompareTimes(at, d.through) >= 0, nil
	}
	if !d.asked {
		d.asked, d.reviewed = true, time.Now()
		for _, t := range d.touched {
			if err := d.ask(ctx, t); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	if time.Since(d.reviewed) < reviewInterval {
		return false, nil
	}
	d.reviewed = time.Now()
	return false, d.review(ctx, at)
}

// ask sends a request.
func (d *disturbed) ask(ctx context.Context, t *touched) error {
	t.request.Asked, t.over = time.Now().UTC(), bson.Timestamp{}
	record, err := state.RequestRecord(d.o.s.cfg.Pipeline, &t.request)
	if err != nil {
		return err
	}
	if err := d.p.transact(ctx, []*kgo.Record{record}); err != nil {
		return fmt.Errorf("ask for reload ns=%s: %w", t.request.Namespace(), err)
	}
	t.sent = record.Offset + 1
	d.o.log.Info().Str(logfield.Namespace, t.request.Namespace().String()).Msg("asked capture for a reload")
	return nil
}

// review asks again for what capture was done with before the place that the
// stream has reached, without a result.
func (d *disturbed) review(ctx context.Context, at bson.Timestamp) error {
	view, err := state.Load(ctx, d.o.s.cfg.Kafka, d.o.s.topics.State)
	if err != nil {
		return err
	}
	position, _ := view.Position()
	for _, t := range d.touched {
		if _, pending := view.Request(t.request.ID); pending || view.ControlOffset() < t.sent {
			continue
		}
		switch {
		case t.over == bson.Timestamp{}:
			t.over = position.PublishedThrough.Time
		case event.CompareTimes(at, t.over) > 0: // results may stand behind a watermark of their time
			d.o.log.Warn().Str(logfield.Namespace, t.request.Namespace().String()).Str(logfield.Reason, refusal(view, t.request.ID)).
				Msg("the reload was not done: asking again")
			if err := d.ask(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusal is why capture did not serve a request, where it said so.
func refusal(view *state.View, id string) string {
	for _, a := range view.Answers() {
		if a.ID == id {
			return a.Cause
		}
	}
	return ""
}
