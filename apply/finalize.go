package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The outcomes of a FinalizedIndex.
const (
	// IndexFinalized: the index is complete now.
	IndexFinalized = "finalized"
	// IndexWouldFinalize: it would be tried (dry run).
	IndexWouldFinalize = "would be finalized"
	// IndexGone: it went away meanwhile.
	IndexGone = "gone"
	// IndexNotFinalized: it could not be completed; it is as it was.
	IndexNotFinalized = "not finalized"
)

// maxDuplicates is how many duplicate keys of one index are shown.
const maxDuplicates = 5

// FinalizeConfig says what Finalize restores.
type FinalizeConfig struct {
	// Pipeline, Destination and Group name the group; Group is empty for a
	// destination's only one.
	Pipeline, Destination, Group string
	// Topic is the pipeline's change topic.
	Topic string
	// Client reaches the destination; the caller disconnects it.
	Client *mongo.Client
	// Through is the cluster time that every partition must have passed; zero
	// asks for nothing.
	Through bson.Timestamp
	// Wait bounds the wait for Through, and for DDL under way.
	Wait time.Duration
	// DryRun looks for duplicates and builds nothing.
	DryRun bool
	// Force goes on where the group is not caught up.
	Force bool
	// Retry bounds retries; its zero value is one try.
	Retry retry.Policy
	// Progress, where set, hears of each index before its turn.
	Progress func(FinalizedIndex)
}

// FinalizeReport says what Finalize found and did.
type FinalizeReport struct {
	Pipeline    string `json:"pipeline"`
	Destination string `json:"destination"`
	DryRun      bool   `json:"dry_run,omitempty"`
	// Behind says what the group still had to do, where Force overruled that.
	Behind  string           `json:"behind,omitempty"`
	Indexes []FinalizedIndex `json:"indexes"`
}

// Complete reports whether nothing is left to finalise, or, of a dry run,
// nothing was found to stand against it.
func (r *FinalizeReport) Complete() bool {
	for _, ix := range r.Indexes {
		if ix.Outcome == IndexNotFinalized {
			return false
		}
	}
	return true
}

// FinalizedIndex is one index that was deferred.
type FinalizedIndex struct {
	NS    string `json:"ns"`
	Index string `json:"index"`
	// Reason says why it was deferred: unique, ttl or failed.
	Reason  string `json:"reason"`
	Outcome string `json:"outcome,omitempty"`
	// Detail says why it could not be completed.
	Detail string `json:"detail,omitempty"`
	// Duplicates are some of the keys that stand against uniqueness. They are
	// content of documents.
	Duplicates []DuplicateKey `json:"duplicates,omitempty"`
}

// BehindError says that a group has not caught up, so that its destination is
// not to be finalised yet.
type BehindError struct{ Behind string }

// Error names what is missing and the remedy.
func (e *BehindError) Error() string {
	return "finalize: the destination has not caught up: " + e.Behind + ": hint: wait until `tributary status` shows it running without lag, or insist with -force"
}

// Finalize completes the indexes that a destination has deferred: unique and
// TTL indexes and those whose build failed. It may run beside apply, may be
// interrupted and repeated, and never ends with an index gone that it found. A
// finalised index stays so: later DDL on it applies as it comes. It blocks until
// all builds are over. An error means that nothing can be said, a *BehindError
// that it is too early.
func Finalize(ctx context.Context, cfg FinalizeConfig) (*FinalizeReport, error) {
	group := groupID{Pipeline: cfg.Pipeline, Group: (&Config{Destination: cfg.Destination, Group: cfg.Group}).groupName()}
	f := &finalizer{cfg: cfg, store: newStore(cfg.Client, group, "finalize/"+bson.NewObjectID().Hex(), topicNames{changes: cfg.Topic})}
	report := &FinalizeReport{Pipeline: cfg.Pipeline, Destination: cfg.Destination, DryRun: cfg.DryRun, Indexes: []FinalizedIndex{}}
	behind, err := f.await(ctx)
	switch {
	case err != nil:
		return nil, err
	case behind != "" && !cfg.Force:
		return nil, &BehindError{behind}
	}
	report.Behind = behind
	var list []deferredRecord
	err = f.try(ctx, func(ctx context.Context) error {
		list, err = f.store.deferredRecords(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Reason == deferredReload {
			continue // its collection's reload builds it
		}
		ix := FinalizedIndex{NS: list[i].ID.NS, Index: list[i].ID.Index, Reason: list[i].Reason}
		if cfg.Progress != nil {
			cfg.Progress(ix)
		}
		if err := f.index(ctx, &list[i], &ix); err != nil {
			return nil, err
		}
		report.Indexes = append(report.Indexes, ix)
	}
	return report, nil
}

// finalizer is one run of Finalize.
type finalizer struct {
	cfg   FinalizeConfig
	store *store
}

func (f *finalizer) try(ctx context.Context, fn func(context.Context) error) error {
	return f.cfg.Retry.Do(ctx, mongodb.Classify, fn)
}

// await waits until the group has caught up, and returns what it still has to
// do when the time is over.
func (f *finalizer) await(ctx context.Context) (behind string, err error) {
	deadline := time.Now().Add(f.cfg.Wait)
	for {
		err := f.try(ctx, func(ctx context.Context) error {
			behind, err = f.behind(ctx)
			return err
		})
		if err != nil || behind == "" || !time.Now().Before(deadline) {
			return behind, err
		}
		timer := time.NewTimer(claimPoll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		}
	}
}

// behind says what the group still has to do; empty when it has caught up.
func (f *finalizer) behind(ctx context.Context) (string, error) {
	g, ok, err := f.store.group(ctx)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("finalize destination %s: pipeline %s has written nothing there: hint: check -destination and its uri", f.cfg.Destination, f.cfg.Pipeline)
	case g.Phase == state.PhaseDone:
		return "", nil
	case g.Phase != state.PhaseChanges:
		return "it is in phase " + g.Phase, nil
	}
	going, err := f.store.buildsOf(ctx)
	if err != nil {
		return "", err
	}
	if len(going) > 0 {
		return fmt.Sprintf("%d indexes of %s are being built", len(going[0].Indexes), going[0].NS), nil
	}
	offsets, err := f.store.offsets(ctx, f.cfg.Topic)
	if err != nil {
		return "", err
	}
	for p := range g.ChangeOffsets {
		o, ok := offsets[int32(p)]
		switch {
		case !ok:
			return fmt.Sprintf("partition %d was not begun", p), nil
		case o.CatchingUp:
			return fmt.Sprintf("partition %d is catching up with its load", p), nil
		case event.CompareTimes(o.Watermark, f.cfg.Through) < 0:
			return fmt.Sprintf("partition %d stands at %d.%d, the source at %d.%d", p, o.Watermark.T, o.Watermark.I, f.cfg.Through.T, f.cfg.Through.I), nil
		}
	}
	return f.store.incomplete(ctx)
}

// index completes one index, or says why that cannot be.
func (f *finalizer) index(ctx context.Context, d *deferredRecord, ix *FinalizedIndex) error {
	c, err := newConverter(ctx, f.cfg.Client, d, enforceAll())
	if err != nil {
		ix.Outcome, ix.Detail = IndexNotFinalized, err.Error()
		return ctx.Err()
	}
	if f.cfg.DryRun {
		ix.Outcome = IndexWouldFinalize
		return f.report(ctx, c, ix, nil)
	}
	token := f.store.owner + "/" + bson.NewObjectID().Hex()
	gone, err := f.store.beginBuild(ctx, d.ID, token, max(f.cfg.Wait, leaseTime))
	switch {
	case gone:
		ix.Outcome = IndexGone
		return nil
	case errors.Is(err, errBarrierBusy):
		ix.Outcome, ix.Detail = IndexNotFinalized, err.Error()
		return nil
	case err != nil:
		return err
	}
	cause := f.store.convert(ctx, c, d.ID, token, func(ctx context.Context) error {
		if err := f.store.putFinalized(ctx, d.ID); err != nil {
			return err
		}
		return f.store.endBuild(ctx, d.ID, token, "")
	})
	if cause == nil {
		ix.Outcome = IndexFinalized
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return f.report(ctx, c, ix, cause)
}

// convert does a conversion that is claimed, and ends the claim: with done, or
// with the cause in the record.
func (s *store) convert(ctx context.Context, c *converter, id deferredID, token string, done func(context.Context) error) error {
	renew := func(ctx context.Context) (bool, error) { return s.claimBuild(ctx, id, token) }
	err := keep(ctx, renew, c.run)
	if err == nil {
		err = done(ctx)
	}
	if err == nil {
		return nil
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return errors.Join(err, s.releaseBuild(end, id, token, sanitize(err).Error()))
}

// report fills in what stands against an index.
func (f *finalizer) report(ctx context.Context, c *converter, ix *FinalizedIndex, cause error) error {
	found, err := c.duplicates(ctx, maxDuplicates)
	if err == nil && len(found) == 0 && cause != nil {
		found, err = c.answered(ctx, cause)
	}
	ix.Duplicates = found
	switch {
	case cause != nil:
		ix.Outcome, ix.Detail = IndexNotFinalized, cause.Error()
	case len(found) > 0:
		ix.Outcome, ix.Detail = IndexNotFinalized, errDuplicates.Error()
	}
	if err != nil {
		ix.Outcome, ix.Detail = IndexNotFinalized, errors.Join(cause, err).Error()
	}
	return ctx.Err()
}

// policyAfter is what still waits of an index once a policy was enforced; empty
// if nothing does.
func policyAfter(spec bson.Raw, policy rules.IndexPolicy) (string, error) {
	_, deferred, err := rules.DeferIndex(spec, policy)
	if err != nil || !deferred {
		return "", err
	}
	if rules.UniqueIndex(spec) && !policy.Unique {
		return deferredUnique, nil
	}
	return deferredTTL, nil
}
