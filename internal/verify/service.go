package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
)

// Run compares a quiesced pair and returns what it found. It blocks until it is
// done, the destination stays behind for longer than Config.Wait, or ctx ends.
// An error means that it could not tell, for a cause that lies outside the
// data; a result may say so as well.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	v := &verification{
		cfg:      &cfg,
		standing: newStanding(&cfg),
		found:    newCollector(cfg.Listed),
		source:   &side{client: cfg.Source},
		target:   &side{client: cfg.Target},
	}
	started := time.Now()
	r := &Result{Verdict: Unknown, Pipeline: cfg.Pipeline, Destination: cfg.Destination}
	cause, err := v.run(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("verify destination %s: %w", cfg.Destination, err)
	}
	v.found.fill(r)
	r.Seconds = time.Since(started).Seconds()
	switch {
	case cause != "":
		r.Cause = cause
	case r.Total() > 0:
		r.Verdict = Different
	default:
		r.Verdict = Equal
	}
	return r, nil
}

// verification is one run.
type verification struct {
	cfg            *Config
	standing       *standing
	found          *collector
	source, target *side

	// documents read of the source and their total, for progress and as a
	// check of the counts.
	read, total atomic.Int64
	// reported is when progress was last reported, in Unix nanoseconds.
	reported atomic.Int64
}

// run goes through the phases. A cause says why nothing can be told.
func (v *verification) run(ctx context.Context, r *Result) (cause string, err error) {
	through, err := mongodb.LatestTime(ctx, v.cfg.Source)
	if err != nil {
		return "", fmt.Errorf("read source's cluster time: %w", err)
	}
	r.Through = ClusterTime{T: through.T, I: through.I}
	v.source.after = through
	behind, err := v.standing.await(ctx, through)
	if err != nil {
		return "", err
	}
	if behind != "" {
		return fmt.Sprintf("the destination has not passed the source's present time within %s: %s", v.cfg.Wait, behind), nil
	}
	// A destination that is no replica set has no cluster time: then its
	// reads are those of its only member, and its oplog cannot be looked at.
	if v.target.after, err = mongodb.LatestTime(ctx, v.cfg.Target); err != nil {
		v.target.after = bson.Timestamp{}
	}
	waiting, err := v.standing.waiting(ctx)
	if err != nil {
		return "", err
	}
	c, err := readCatalog(ctx, v.cfg)
	if err != nil {
		return "", err
	}
	if err := compareCatalog(c, waiting, v.found); err != nil {
		return "", err
	}
	cause, err = v.compareDocuments(ctx, c, r)
	if err != nil {
		return "", err
	}
	written, err := v.written(ctx, c)
	if err != nil || written != "" {
		return written, err
	}
	return cause, nil
}

// compareDocuments compares every pair that holds documents.
func (v *verification) compareDocuments(ctx context.Context, c *catalog, r *Result) (cause string, err error) {
	tallies := make([]*tally, 0, len(c.pairs))
	for _, p := range c.pairs {
		tallies = append(tallies, &tally{pair: p})
	}
	if err := v.count(ctx, tallies); err != nil {
		return "", err
	}
	if err := v.probe(ctx, tallies); err != nil {
		return "", err
	}
	if err := v.compareAll(ctx, tallies); err != nil {
		return "", err
	}
	for _, t := range tallies {
		r.Collections = append(r.Collections, t.result())
		if cause == "" {
			cause = t.unstable()
		}
	}
	return cause, nil
}

// probe finds out whether the sides can read ranges, if anything is large
// enough to be read so.
func (v *verification) probe(ctx context.Context, tallies []*tally) error {
	for _, t := range tallies {
		if t.counted[0] < 2*rangeDocuments || t.counted[1] == 0 {
			continue
		}
		return errors.Join(
			probeBounds(ctx, v.source, t.pair.source.NS),
			probeBounds(ctx, v.target, t.pair.target),
		)
	}
	return nil
}

// count counts both sides of every pair.
func (v *verification) count(ctx context.Context, tallies []*tally) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.cfg.Workers)
	for _, t := range tallies {
		if !t.pair.holdsDocuments() {
			continue
		}
		g.Go(func() error {
			for i, end := range []struct {
				side *side
				ns   event.Namespace
			}{{v.source, t.pair.source.NS}, {v.target, t.pair.target}} {
				r, err := end.side.reader()
				if err != nil {
					return err
				}
				t.counted[i], err = r.count(ctx, end.ns)
				r.close(ctx)
				if err != nil {
					return err
				}
			}
			v.total.Add(t.counted[0])
			v.progress("counting")
			return nil
		})
	}
	return g.Wait()
}

// compareAll compares the pairs, several ranges at one time.
func (v *verification) compareAll(ctx context.Context, tallies []*tally) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.cfg.Workers)
	for _, t := range tallies {
		if !t.pair.holdsDocuments() {
			continue
		}
		spans, err := v.spans(ctx, t)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, s := range spans {
			g.Go(func() error { return v.compare(ctx, t, s) })
		}
	}
	return g.Wait()
}

func (v *verification) spans(ctx context.Context, t *tally) ([]span, error) {
	if !splittable(t.pair, v.source, v.target) {
		return []span{{}}, nil
	}
	r, err := v.source.reader()
	if err != nil {
		return nil, err
	}
	defer r.close(ctx)
	return r.split(ctx, t.pair.source.NS, t.counted[0])
}

// compare compares one range of a pair.
func (v *verification) compare(ctx context.Context, t *tally, s span) (err error) {
	source, err := v.source.reader()
	if err != nil {
		return err
	}
	defer source.close(ctx)
	target, err := v.target.reader()
	if err != nil {
		return err
	}
	defer target.close(ctx)
	left, err := source.open(ctx, t.pair.source.NS, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, left.close(ctx)) }()
	right, err := target.open(ctx, t.pair.target, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, right.close(ctx)) }()
	c := comparison{
		limit:  windowBytes,
		source: left, target: right,
		sourceLookup: source.lookupIn(t.pair.source.NS),
		targetLookup: target.lookupIn(t.pair.target),
		report:       func(kind Kind, id bson.RawValue) error { return v.found.addDocument(kind, t.pair, id) },
		readSource: func(size int) {
			t.addSource(size)
			if v.read.Add(1)%1000 == 0 {
				v.progress("comparing")
			}
		},
		readTarget: t.addTarget,
	}
	if err := c.run(ctx); err != nil {
		return fmt.Errorf("compare ns=%s: %w", t.pair.source.NS, err)
	}
	return nil
}

// written names what either side was seen to be written to while it was
// compared, if anything. A deployment whose oplog cannot be read (a sharded or
// hosted one) is judged by its counts alone.
func (v *verification) written(ctx context.Context, c *catalog) (string, error) {
	v.progress("checking")
	targets := map[event.Namespace]bool{}
	for _, p := range slices.Concat(c.pairs, c.missing) {
		targets[p.target] = true
	}
	for _, ns := range c.extra {
		targets[ns] = true
	}
	for _, end := range []struct {
		name    string
		side    *side
		matches func(event.Namespace) bool
	}{
		{"source", v.source, func(ns event.Namespace) bool { return v.cfg.Rules.Selection.Match(ns.DB, ns.Coll) }},
		{"destination", v.target, func(ns event.Namespace) bool { return targets[ns] }},
	} {
		if end.side.after.IsZero() {
			continue
		}
		if now, err := mongodb.LatestTime(ctx, end.side.client); err == nil && now == end.side.after {
			continue
		}
		ns, err := writtenSince(ctx, end.side.client, end.side.after, end.matches)
		switch {
		case errors.Is(err, errBusy):
			return fmt.Sprintf("the %s is too busy to see whether it was written to meanwhile", end.name), nil
		case isServerError(err):
			continue
		case err != nil:
			return "", fmt.Errorf("look for writes to the %s: %w", end.name, err)
		case !ns.IsZero():
			return fmt.Sprintf("the %s was written to meanwhile: ns=%s", end.name, ns), nil
		}
	}
	return "", nil
}

// isServerError reports whether a server refused the command: it has no oplog
// or does not let us read it.
func isServerError(err error) bool {
	_, ok := errors.AsType[mongo.ServerError](err)
	return ok
}

// progressInterval is how often progress is reported at most.
const progressInterval = 250 * time.Millisecond

// progress reports how far the verification is, unless it just did.
func (v *verification) progress(phase string) {
	now, last := time.Now().UnixNano(), v.reported.Load()
	if now-last < int64(progressInterval) || !v.reported.CompareAndSwap(last, now) {
		return
	}
	v.cfg.Progress(Progress{Phase: phase, Documents: v.read.Load(), Total: v.total.Load()})
}
