package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"
)

const (
	// buildGrace is how long a barrier waits for its index build before the
	// build goes on behind it.
	buildGrace = 300 * time.Millisecond
	// buildPoll is how often a barrier asks whether the destination lists the
	// indexes, and how often a build's owner renews its claim and learns whether
	// it is cancelled.
	buildPoll = 500 * time.Millisecond
	// buildScan is how often members look for builds that nobody has in hand.
	buildScan = 5 * time.Second
)

// indexBuilder looks after index builds that outlast their barriers. Those that this
// member has begun, and those whose owner is gone, it brings to their end: asking
// the destination again for an index that it is building, or has, is harmless.
type indexBuilder struct {
	s *Service
	// requests takes builds that barriers begin.
	requests chan *build
	// stopped is closed when nobody takes them any more.
	stopped chan struct{}
	// running counts the builds that this member has in hand behind barriers.
	running atomic.Int64
}

func newIndexBuilder(s *Service) *indexBuilder {
	return &indexBuilder{s: s, requests: make(chan *build), stopped: make(chan struct{})}
}

// run works until ctx ends or a build fails for good. Ctx outlives the workers, so
// that what they have in hand comes to its end. What goes on behind a barrier then
// is left to the next start, or to another member.
func (b *indexBuilder) run(ctx context.Context) error {
	defer close(b.stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case one := <-b.requests:
			group.Go(func() error { return one.run(ctx) })
		case <-next.C:
			next.Reset(buildScan)
			if err := b.takeOver(ctx, group.Go); err != nil && ctx.Err() == nil {
				cancel()
				return errors.Join(err, group.Wait())
			}
		case <-ctx.Done():
			return group.Wait()
		}
	}
}

// takeOver goes on with builds that nobody has in hand.
func (b *indexBuilder) takeOver(ctx context.Context, launch func(func() error)) error {
	return b.s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error {
		list, err := b.s.store.lapsedBuilds(ctx, b.s.cfg.Destination)
		if err != nil {
			return err
		}
		for _, r := range list {
			one, err := b.prepare(r)
			if err != nil {
				return err
			}
			taken, err := b.s.store.takeBuild(ctx, r.ID, one.record.Owner)
			if err != nil {
				return err
			}
			if taken {
				one.adopt()
				launch(func() error { return one.run(ctx) })
			}
		}
		return nil
	})
}

// prepare makes a build out of what is to be recorded of it.
func (b *indexBuilder) prepare(r buildRecord) (*build, error) {
	target, err := r.target()
	if err != nil {
		return nil, err
	}
	r.Owner = b.s.store.owner + "/" + bson.NewObjectID().Hex()
	return &build{b: b, record: r, target: target, abandoned: make(chan struct{}), over: make(chan struct{})}, nil
}

// begin builds the indexes of a barrier whose execution the caller has claimed.
// It returns when they are there, or when the destination lists them as being
// built and the build is on record: then it goes on behind the barrier.
func (b *indexBuilder) begin(ctx context.Context, r buildRecord) (failed int, goesOn bool, err error) {
	// A try before may have come this far.
	if recorded, err := b.s.store.hasBuild(ctx, r.ID); err != nil || recorded {
		return 0, recorded, err
	}
	one, err := b.prepare(r)
	if err != nil {
		return 0, false, err
	}
	select {
	case b.requests <- one:
	case <-b.stopped:
		return 0, false, context.Canceled
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
	wait := buildGrace
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-one.over:
			timer.Stop()
			return one.failed, false, one.err
		case <-ctx.Done():
			timer.Stop()
			one.abandon()
			return 0, false, ctx.Err()
		}
		goesOn, err := one.handOver(ctx)
		if err != nil {
			one.abandon()
			return 0, false, err
		}
		if goesOn {
			return 0, true, nil
		}
		wait = buildPoll
	}
}

// build is one index build that this member has in hand: for its barrier at
// first, whose claim covers it, and by its own record once it is adopted.
type build struct {
	b      *indexBuilder
	record buildRecord
	target event.Namespace
	// abandoned is closed when the barrier gives the build up.
	abandoned chan struct{}
	// over is closed at the end; failed and err are set by then.
	over   chan struct{}
	failed int
	err    error

	mu                sync.Mutex
	adopted, finished bool
	cancelled         atomic.Bool
}

// adopt has the build go on behind its barrier; it returns false where the build
// is over already.
func (o *build) adopt() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished {
		return false
	}
	o.adopted = true
	return true
}

// finish takes the end of a try that was not adopted; it returns false where the
// build goes on behind its barrier.
func (o *build) finish() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = !o.adopted
	return o.finished
}

// abandon ends a build that was not adopted.
func (o *build) abandon() {
	close(o.abandoned)
	<-o.over
}

// handOver records the build if the destination lists its indexes; the barrier
// may be passed then.
func (o *build) handOver(ctx context.Context) (bool, error) {
	listed, err := o.listed(ctx)
	if err != nil || !listed {
		return false, err
	}
	store := o.b.s.store
	if err := store.putBuild(ctx, o.record); err != nil {
		return false, err
	}
	if o.adopt() {
		return true, nil
	}
	return false, store.dropBuild(ctx, o.record.ID, o.record.Owner)
}

// listed reports whether the destination lists all indexes of the build: every
// version lists those that it is building as well.
func (o *build) listed(ctx context.Context) (bool, error) {
	cursor, err := o.b.s.client.Database(o.target.DB).Collection(o.target.Coll).Indexes().List(ctx)
	if hasCode(err, codeNamespaceNotFound) {
		return false, nil
	}
	var list []bson.Raw
	if err == nil {
		err = cursor.All(ctx, &list)
	}
	if err != nil {
		return false, fmt.Errorf("list indexes ns=%s: %w", o.target, err)
	}
	names := map[string]bool{}
	for _, held := range list {
		names[stringOf(held, "name")] = true
	}
	for _, name := range o.record.names() {
		if !names[name] {
			return false, nil
		}
	}
	return true, nil
}

// run brings the build to its end. Its error is the service's: the record stays,
// and the next start goes on with it. What fails before the build is adopted is
// the barrier's to report.
func (o *build) run(ctx context.Context) error {
	defer close(o.over)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group errgroup.Group
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		o.failed, o.err = o.try(ctx)
		if o.finish() {
			return nil
		}
		return o.goOn(ctx)
	})
	group.Go(func() error {
		o.watch(ctx, cancel, done)
		return nil
	})
	err := group.Wait()
	if ctx.Err() != nil {
		return nil // whoever has the claim goes on
	}
	return err
}

// goOn tries until the indexes are there, and takes the build off the record.
func (o *build) goOn(ctx context.Context) error {
	s := o.b.s
	o.b.running.Add(1)
	defer o.b.running.Add(-1)
	first := true
	err := s.policy.Do(ctx, classifyBuild, func(ctx context.Context) error {
		if !first && !o.cancelled.Load() {
			o.failed, o.err = o.try(ctx)
		}
		first = false
		switch {
		case o.cancelled.Load() && answered(o.err):
			return nil
		case o.cancelled.Load():
			// The command may still be under way: nobody may take the indexes
			// away before the claim has lapsed.
			return errClaimLost
		}
		return o.err
	})
	if errors.Is(err, errClaimLost) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("build indexes ns=%s: %w", o.target, err)
	}
	err = s.policy.Do(ctx, mongodb.Classify, func(ctx context.Context) error { return s.store.dropBuild(ctx, o.record.ID, o.record.Owner) })
	if err != nil {
		return err
	}
	log := s.log.Info()
	if o.failed > 0 {
		log = s.log.Warn()
	}
	log.Str(logfield.Target, o.target.String()).Strs("indexes", o.record.names()).Int("failed", o.failed).Bool("cancelled", o.cancelled.Load()).
		Msg("index build behind its barrier is over; indexes that failed are recorded as deferred")
	return nil
}

// try asks for the indexes once. A collection that is not the one of the barrier
// any more was taken away by hand: nothing is left to build.
func (o *build) try(ctx context.Context) (failed int, err error) {
	s := o.b.s
	listed, exists, err := lookup(ctx, s.client, o.target)
	if err != nil {
		return 0, err
	}
	if !exists || uuidText(&listed) != o.record.UUID {
		return 0, nil
	}
	return s.store.buildIndexes(ctx, s.client, o.target, o.record.indexes(), o.record.Lenient)
}

// watch ends the build when its barrier abandons it, and keeps the claim of an
// adopted one until done.
func (o *build) watch(ctx context.Context, cancel context.CancelCauseFunc, done <-chan struct{}) {
	tick := time.NewTicker(buildPoll)
	defer tick.Stop()
	held := time.Now()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-o.abandoned:
			cancel(errClaimLost)
			return
		case <-tick.C:
		}
		o.mu.Lock()
		adopted := o.adopted
		o.mu.Unlock()
		if !adopted {
			held = time.Now()
			continue
		}
		mine, cancelled, err := o.b.s.store.renewBuild(ctx, o.record.ID, o.record.Owner)
		switch {
		case err == nil && mine:
			held = time.Now()
		case err == nil, time.Since(held) > leaseTime-renewTime:
			cancel(errClaimLost)
			return
		}
		if cancelled {
			o.cancelled.Store(true)
			o.stop(ctx)
		}
	}
}

// stop has the destination end a build that is cancelled, which answers the
// command under way. Where nothing is to be stopped it does nothing, and is
// asked again until the command was answered.
func (o *build) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	db := o.b.s.client.Database(o.target.DB)
	drop := func(index any) error {
		return db.RunCommand(ctx, bson.D{{Key: "dropIndexes", Value: o.target.Coll}, {Key: "index", Value: index}}).Err()
	}
	names := o.record.names()
	err := drop(names)
	if err == nil {
		return
	}
	// They are not built together.
	for _, name := range names {
		err = drop(name)
	}
	if err != nil {
		o.b.s.log.Debug().Err(sanitize(err)).Str(logfield.Target, o.target.String()).Msg("nothing of a cancelled index build was there to be stopped")
	}
}

// classifyBuild decides about errors of a build: one that was aborted is begun
// again unless it is cancelled.
func classifyBuild(err error) retry.Verdict {
	var state *stateError
	if errors.As(err, &state) || errors.Is(err, errClaimLost) {
		return retry.Stop
	}
	return mongodb.Classify(err)
}

// uuidText is a collection's UUID as builds remember it; empty where it has none.
func uuidText(listed *listedCollection) string { return fmt.Sprintf("%x", listed.UUID.Value) }
