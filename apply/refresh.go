package apply

import (
	"context"
	"errors"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
)

// look reads what is to be watched for from the destination.
func (w *worker) look(ctx context.Context) error {
	err := w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		return sanitize(w.watch.load(ctx, w.held.Watermark))
	})
	if err != nil {
		return err
	}
	w.s.progress.watch(w.tp, w.watch)
	if !w.watch.idle() {
		w.s.sender.poke()
	}
	return nil
}

// lookAfter looks again where a DDL event may have changed what is to be watched
// for.
func (w *worker) lookAfter(ctx context.Context, op event.Op) error {
	switch op {
	case event.OpDrop, event.OpRename, event.OpCreateIndexes, event.OpReload, event.OpReloadEnd:
		return w.look(ctx)
	case event.OpCreate, event.OpDropIndexes, event.OpModify,
		event.OpInsert, event.OpUpdate, event.OpReplace, event.OpDelete, event.OpRefresh, event.OpWatermark:
	}
	return nil
}

// admit decides which changes of a batch take effect, and looks up their
// collections. A collection that is gone is taken down as such, and its reload
// asked for.
func (w *worker) admit(ctx context.Context, changes []change, mode event.ApplyMode) (*effects, error) {
	var lacking map[event.Namespace]lack
	for {
		fx, err := w.watch.admit(changes, lacking)
		if err != nil {
			return nil, err
		}
		err = w.ensure(ctx, fx.changes, mode)
		var in *eventError
		if err == nil || !errors.Is(err, errNoTarget) || !errors.As(err, &in) {
			return fx, err
		}
		if lacking == nil {
			lacking = map[event.Namespace]lack{}
		}
		lacking[in.change.NS] = w.watch.lacks(in.change)
	}
}

// committed takes note of the effects of a batch that was committed.
func (w *worker) committed(fx *effects) {
	fx.commit()
	w.s.metrics.skipped.Add(float64(fx.skipped))
	documents, collections := fx.asks()
	if documents+collections == 0 && len(fx.fixed) == 0 {
		return
	}
	w.s.progress.watch(w.tp, w.watch)
	if documents+collections == 0 {
		return
	}
	w.s.metrics.refreshes.Add(float64(documents))
	w.s.metrics.reloads.Add(float64(collections))
	for _, e := range fx.found {
		if e.cause != nil {
			w.log.Warn().Err(sanitize(e.cause)).Int("documents", documents).Msg("documents are needed whole from the source; the first of them")
			break
		}
	}
	for ns, r := range fx.ordered {
		w.log.Warn().Str(logfield.Namespace, ns.String()).Str(logfield.Reason, r.Reason).Msg("a reload is asked for")
	}
	for ns, r := range fx.reloads {
		w.log.Warn().Str(logfield.Namespace, ns.String()).Str(logfield.Reason, r.Reason).Msg("a reload is asked for")
	}
	for ns, l := range fx.lacking {
		w.log.Warn().Str(logfield.Namespace, ns.String()).Str(logfield.Reason, l.request.Reason).Msg("a reload is asked for")
	}
	w.s.sender.poke()
}

// passed takes note of how far the partition has come.
func (w *worker) passed(next *offsetRecord) {
	if w.held.CatchingUp && !next.CatchingUp {
		w.watch.caughtUp()
		w.s.sender.poke() // with the last partition, what history has asked for is due
	}
	if event.CompareTimes(next.Watermark, w.held.Watermark) > 0 && !w.watch.idle() {
		w.watch.pass(next.Watermark)
		w.s.progress.watch(w.tp, w.watch)
	}
}
