package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// surveyInterval is how often the destination is asked how far its load and
	// its index builds have come, surveySlowly how many times less often it is
	// asked for what seldom changes.
	surveyInterval = time.Second
	surveySlowly   = 20
	// surveyTimeout bounds one look.
	surveyTimeout = 10 * time.Second
)

// loading is what the state topic says of the group's load. It is safe for
// concurrent use.
type loading struct {
	mu     sync.Mutex
	ledger *progress.Ledger
	run    *state.Manifest
	// said is the percentage that processes of the group last published, of the run
	// saidOf.
	said   float64
	saidOf string
	// current says that everything that stood in the topic at the beginning is
	// known.
	current bool
}

func newLoading() *loading { return &loading{ledger: progress.NewLedger()} }

// take takes over a record of the state topic.
func (l *loading) take(destination, key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !state.IsStatus(key) || value == nil {
		return l.ledger.Apply(key, value)
	}
	var s state.Status
	if err := json.Unmarshal(value, &s); err != nil {
		return fmt.Errorf("decode state record key=%s: %w", key, err)
	}
	if p := s.Progress; p != nil && s.Service == "apply" && s.Destination == destination && p.Phase == state.LoadLoading {
		if p.Run != l.saidOf {
			l.said, l.saidOf = 0, p.Run
		}
		l.said = max(l.said, p.Percent)
	}
	return nil
}

// before is the largest percentage that was published of a run.
func (l *loading) before(run string) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.saidOf != run {
		return 0
	}
	return l.said
}

func (l *loading) isCurrent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = true
}

// of takes note of the run's newest manifest.
func (l *loading) of(m *state.Manifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = m
}

// figures adds up what is loaded of a run; ok is false before that is known.
func (l *loading) figures(run string, selects func(event.Namespace) bool, places []progress.Place) (m *state.Manifest, f progress.Figures, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.current || l.run == nil || l.run.Run != run {
		return nil, f, false
	}
	return l.run, l.ledger.Loaded(l.run, selects, places), true
}

// loadRecord is how far a partition of the snapshot topic was loaded: the chunk
// that was loaded last, and what was taken of it.
type loadRecord struct {
	Chunk     int32 `bson:"chunk"`
	Documents int64 `bson:"documents"`
	Bytes     int64 `bson:"bytes"`
}

// passed is the record behind a batch of documents.
func (r loadRecord) passed(chunk int32, documents, bytes int64) loadRecord {
	if r.Chunk != chunk {
		r = loadRecord{Chunk: chunk}
	}
	r.Documents += documents
	r.Bytes += bytes
	return r
}

// surveyor tells of the destination what takes a look at it: how far the load
// of the whole group and the server's index builds have come, and which indexes
// wait. What it cannot learn it leaves out: nothing depends on it.
type surveyor struct {
	s         *Service
	reckoner  progress.Reckoner
	last      *state.Progress
	looks     int
	phase     string
	noBuilds  bool
	building  bool
	complains bool
}

// run looks until ctx ends.
func (v *surveyor) run(ctx context.Context) error {
	tick := time.NewTicker(surveyInterval)
	defer tick.Stop()
	for {
		v.look(ctx)
		select {
		case <-ctx.Done():
			if g, known, _ := v.s.phases.current(); known {
				v.publish(v.closing(&g))
				v.s.cfg.Report.Update(func(status *state.Status) { status.Phase = g.Phase })
			}
			return nil
		case <-tick.C:
		}
	}
}

// look looks once.
func (v *surveyor) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	g, known, _ := v.s.phases.current()
	if !known {
		v.publish(&state.Progress{Phase: state.LoadPlanning})
		return
	}
	slowly := v.looks%surveySlowly == 0 || g.Phase != v.phase
	v.looks++
	v.phase = g.Phase
	err := v.load(ctx, &g, time.Now())
	if slowly || v.building || g.Phase == state.PhaseIndexes {
		err = errors.Join(err, v.builds(ctx))
	}
	if slowly {
		err = errors.Join(err, v.deferred(ctx))
	}
	if err != nil && ctx.Err() == nil && !v.complains {
		v.s.log.Info().Err(sanitize(err)).Msg("the destination does not say how far it has come; it is asked again")
	}
	v.complains = err != nil
}

// load tells how far the group's load has come.
func (v *surveyor) load(ctx context.Context, g *groupRecord, now time.Time) error {
	if g.Phase != state.PhaseSnapshot && g.Phase != state.PhaseIndexes || !v.s.cfg.Sync.Full {
		v.publish(v.closing(g))
		return nil
	}
	offsets, err := v.s.store.offsets(ctx, v.s.topics.snapshot)
	if err != nil {
		return err
	}
	places := make([]progress.Place, len(g.SnapshotOffsets))
	for p := range places {
		o := offsets[int32(p)]
		places[p] = progress.Place{Chunk: o.Load.Chunk, Amount: progress.Amount{Documents: o.Load.Documents, Bytes: o.Load.Bytes}, Loaded: o.Loaded == g.Run}
	}
	selects := func(ns event.Namespace) bool {
		_, ok := v.s.cfg.Rules.Target(ns)
		return ok
	}
	if m, f, ok := v.s.loading.figures(g.Run, selects, places); ok {
		v.reckoner.Floor(g.Run, v.s.loading.before(g.Run))
		v.publish(v.reckoner.Reckon(now, v.phaseOf(g), m, f))
	}
	return nil
}

// closing is the progress of a process that ends, and of a group that loads no
// more, or no documents at all: what the load came to, as far as this process saw
// it.
func (v *surveyor) closing(g *groupRecord) *state.Progress {
	p := &state.Progress{Run: g.Run}
	if v.last != nil && v.last.Run == g.Run {
		p = v.last.Ended()
	}
	p.Phase = v.phaseOf(g)
	if p.Phase == state.LoadDone {
		p.Percent = 100
	}
	return p
}

// phaseOf is the load's.
func (v *surveyor) phaseOf(g *groupRecord) string {
	switch {
	case g.Phase == state.PhaseDone:
		return state.LoadDone
	case g.Phase == state.PhaseIndexes:
		return state.LoadIndexes
	case g.Phase == state.PhaseChanges && v.s.progress.summary(v.s.topics.changes).catchingUp:
		return state.LoadCatchingUp
	case g.Phase == state.PhaseChanges:
		return state.LoadDone
	case !g.Prepared:
		return state.LoadPlanning
	}
	return state.LoadLoading
}

func (v *surveyor) publish(p *state.Progress) {
	if !v.s.cfg.Sync.Schema && !v.s.cfg.Sync.Full {
		return // there is no load
	}
	v.last = p
	v.s.metrics.load.Set(p)
	v.s.cfg.Report.Update(func(status *state.Status) { status.Progress = p })
}

// builds tells how far index builds have come, and logs it where this process
// builds those of the load. A destination that refuses to say so is not asked
// again.
func (v *surveyor) builds(ctx context.Context) error {
	if v.noBuilds {
		return nil
	}
	list, err := indexBuilds(ctx, v.s.client)
	if err != nil {
		if mongodb.Classify(err) == retry.Stop {
			v.noBuilds = true
			v.s.log.Info().Err(sanitize(err)).Msg("the destination does not say how far index builds have come")
			return nil
		}
		return err
	}
	v.building = len(list) > 0
	v.s.metrics.serverBuilds.Set(float64(len(list)))
	least := 1.0
	for _, b := range list {
		least = min(least, float64(b.Progress.Done)/float64(b.Progress.Total))
	}
	v.s.metrics.serverBuildShare.Set(least)
	total, built := v.s.progress.builds.collections.Load(), v.s.progress.builds.built.Load()
	v.s.metrics.indexCollections.Set(float64(total))
	v.s.metrics.indexCollectionsBuilt.Set(float64(built))
	shown := make([]state.IndexBuild, 0, min(len(list), state.MaxListed))
	for _, b := range list[:min(len(list), state.MaxListed)] {
		shown = append(shown, state.IndexBuild{NS: b.NS, Step: b.Message, Done: b.Progress.Done, Total: b.Progress.Total})
		if built < total {
			v.s.log.Info().Str(logfield.Target, b.NS).Str("step", b.Message).Int64("done", b.Progress.Done).Int64("total", b.Progress.Total).
				Int64("collections", total).Int64("built", built).Msg("index build goes on")
		}
	}
	v.s.cfg.Report.Update(func(status *state.Status) { status.Builds = shown })
	return nil
}

// deferred tells which indexes wait for the operator.
func (v *surveyor) deferred(ctx context.Context) error {
	d, err := v.s.store.deferredSummary(ctx)
	if err != nil {
		return err
	}
	for reason, n := range map[string]int64{deferredUnique: d.Unique, deferredTTL: d.TTL, deferredFailed: d.Failed} {
		v.s.metrics.deferredIndexes.WithLabelValues(reason).Set(float64(n))
	}
	shown := d
	if d.Count == 0 {
		shown = nil
	}
	v.s.cfg.Report.Update(func(status *state.Status) { status.Deferred = shown })
	return nil
}

// deferredSummary counts the pipeline's deferred indexes and names some, those
// that failed first.
func (s *store) deferredSummary(ctx context.Context) (*state.DeferredIndexes, error) {
	find := options.Find().SetProjection(bson.D{{Key: "reason", Value: 1}})
	cursor, err := s.db.Collection(deferredCollection).Find(ctx, bson.D{{Key: "_id.pipeline", Value: s.id.Pipeline}}, find)
	if err != nil {
		return nil, fmt.Errorf("read deferred indexes: %w", err)
	}
	var list []deferredRecord
	if err := cursor.All(ctx, &list); err != nil {
		return nil, fmt.Errorf("read deferred indexes: %w", err)
	}
	return summarize(list), nil
}

func summarize(list []deferredRecord) *state.DeferredIndexes {
	d := &state.DeferredIndexes{Count: int64(len(list))}
	var failed, others []string
	for i := range list {
		name := list[i].ID.NS + " " + list[i].ID.Index
		switch list[i].Reason {
		case deferredFailed:
			d.Failed++
			failed = append(failed, name)
			continue
		case deferredTTL:
			d.TTL++
		default:
			d.Unique++
		}
		others = append(others, name)
	}
	slices.SortFunc(failed, strings.Compare)
	slices.SortFunc(others, strings.Compare)
	names := append(failed, others...)
	d.Names = names[:min(len(names), state.MaxListed)]
	return d
}
