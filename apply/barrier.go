package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	// minBarrierPoll and maxBarrierPoll bound how often the record of a barrier
	// is read while waiting for other processes: once per process, however many
	// of its partitions wait.
	minBarrierPoll = 50 * time.Millisecond
	maxBarrierPoll = 250 * time.Millisecond
)

// barriers lets the partitions of this process wait together.
type barriers struct {
	mu    sync.Mutex
	waits map[barrierID]*barrierWait
}

// barrierWait is one barrier at which partitions of this process wait.
type barrierWait struct {
	// lead holds the token of the one who looks after the barrier for all.
	lead chan struct{}
	// done is closed when the DDL was executed.
	done chan struct{}
	// users counts those who wait.
	users int
	// since is when the first of them came, text what they wait for.
	since time.Time
	text  string
}

func newBarriers() *barriers { return &barriers{waits: map[barrierID]*barrierWait{}} }

func (b *barriers) join(id barrierID) *barrierWait {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, ok := b.waits[id]
	if !ok {
		w = &barrierWait{lead: make(chan struct{}, 1), done: make(chan struct{}), since: time.Now()}
		b.waits[id] = w
	}
	w.users++
	return w
}

func (b *barriers) leave(id barrierID, w *barrierWait) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.users--; w.users == 0 {
		delete(b.waits, id)
	}
}

// tell says what those at a barrier wait for.
func (b *barriers) tell(id barrierID, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w, ok := b.waits[id]; ok {
		w.text = text
	}
}

// longest returns how long partitions of this process have waited at a barrier
// by now, and for what; zero where none waits.
func (b *barriers) longest(now time.Time) (longest time.Duration, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.waits {
		if d := now.Sub(w.since); d > longest {
			longest, text = d, w.text
		}
	}
	return longest, text
}

// barrier brings the worker to the barrier of a DDL event and waits until the
// DDL was executed, by this worker or another one. The partition's offset stands
// at the barrier by then, with majority, so that no earlier event can come back
// after it. It returns false when the worker is to stop instead.
func (w *worker) barrier(ctx context.Context, e *event.Event, r *kgo.Record) (passed bool, err error) {
	g, _, _ := w.s.phases.current()
	groups, err := concerned(w.s.groups, e)
	if err != nil {
		return false, err
	}
	record := barrierRecord{
		ID: barrierID{Pipeline: w.s.cfg.Pipeline, Destination: w.s.cfg.Destination, Time: e.Position.Time, Index: e.Position.Index},
		Op: e.Op, NS: e.NS.String(), State: barrierWaiting, Arrived: []participant{}, Participants: participantsOf(groups, len(g.ChangeOffsets)),
	}
	wait := w.s.barriers.join(record.ID)
	defer w.s.barriers.leave(record.ID, wait)
	err = w.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		w.s.reach(ctx, stepMet)
		return w.s.store.arrive(ctx, record, participant{Group: w.id.Group, Partition: w.id.Partition})
	})
	if err != nil {
		return false, err
	}
	w.s.reach(ctx, stepArrived)
	select {
	case <-wait.done:
	case <-w.stop:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case wait.lead <- struct{}{}:
		done, err := w.lead(ctx, e, record.ID, wait)
		<-wait.lead
		if err != nil || !done {
			return false, err
		}
	}
	w.target.forget()
	w.s.metrics.barriers.Inc()
	w.log.Debug().Str("barrier", e.String()).Int64("offset", r.Offset).Msg("passed barrier")
	return true, nil
}

// lead watches the barrier's record for all partitions of this process until
// the DDL was executed, and executes it when all partitions have arrived and no
// other process does.
func (w *worker) lead(ctx context.Context, e *event.Event, id barrierID, wait *barrierWait) (done bool, err error) {
	poll := minBarrierPoll
	for {
		select {
		case <-wait.done: // the leader before was successful
			return true, nil
		default:
		}
		err := w.s.policy.Do(ctx, classify(classifyStep), func(ctx context.Context) error {
			var err error
			done, err = w.s.advance(ctx, e, id, &w.held)
			return sanitize(err)
		})
		if err != nil {
			return false, err
		}
		if done {
			close(wait.done)
			return true, nil
		}
		if !w.pause(ctx, poll) {
			return false, ctx.Err()
		}
		poll = min(poll*2, maxBarrierPoll)
	}
}

// classifyStep decides about errors of steps that members take for all: what
// was left to another member is looked at again.
func classifyStep(err error) retry.Verdict {
	var (
		ddl      *ddlError
		state    *stateError
		conflict *conflictError
		meeting  *rules.Collision
	)
	switch {
	case errors.Is(err, errClaimLost):
		return retry.Now
	case errors.As(err, &ddl), errors.As(err, &state), errors.As(err, &conflict), errors.As(err, &meeting):
		return retry.Stop
	}
	return mongodb.Classify(err)
}

// advance looks at a barrier's record once, and executes the DDL if it is time
// and nobody else does; done says that it was executed. Held is where the
// caller's partition stands: at the barrier.
func (s *Service) advance(ctx context.Context, e *event.Event, id barrierID, held *offsetRecord) (done bool, err error) {
	record, err := s.store.barrier(ctx, id)
	if barrierGone(err) {
		// Everybody has passed it, so this partition is another's by now, and
		// the next commit says so.
		return true, nil
	}
	if err != nil || record.State == barrierDone {
		return err == nil, err
	}
	missing, st, err := s.missing(ctx, &record)
	if err != nil {
		return false, err
	}
	s.barriers.tell(id, waitText(e, missing, &st))
	if len(missing) > 0 {
		return false, nil
	}
	token := s.store.owner + "/" + bson.NewObjectID().Hex()
	claimed, err := s.store.claimBarrier(ctx, id, token)
	if claimed && err != nil {
		return false, errors.Join(err, s.store.releaseBarrier(ctx, id, token))
	}
	if err != nil || !claimed {
		return false, err
	}
	s.barriers.tell(id, fmt.Sprintf("executes %s", e))
	s.reach(ctx, stepClaimed)
	// Where this partition still is this member's and still stands here, nobody
	// has passed the barrier: the claim is not of a record that a late comer
	// wrote anew after everybody had.
	if err := s.store.stands(ctx, held); err != nil {
		return false, errors.Join(err, s.store.releaseBarrier(ctx, id, token))
	}
	if busy, err := s.store.building(ctx, targetsOf(s.cfg.Rules, e)...); err != nil || busy {
		s.barriers.tell(id, fmt.Sprintf("waits for an index of %s to be built before it executes %s", e.NS, e))
		return false, errors.Join(err, s.store.releaseBarrier(ctx, id, token))
	}
	groups, err := concerned(s.groups, e)
	if err != nil {
		return false, errors.Join(err, s.store.releaseBarrier(ctx, id, token))
	}
	if ns, err := s.awaitBuilds(ctx, e, groups); err != nil || ns != "" {
		s.barriers.tell(id, fmt.Sprintf("waits for the end of an index build in %s before it executes %s", ns, e))
		return false, errors.Join(err, s.store.releaseBarrier(ctx, id, token))
	}
	outcome, err := s.execute(ctx, e, id, groups, &st, func(ctx context.Context) (bool, error) { return s.store.claimBarrier(ctx, id, token) })
	if err != nil {
		return false, s.giveUp(ctx, id, token, err)
	}
	s.reach(ctx, stepExecuted)
	s.log.Info().Str("barrier", e.String()).Str("outcome", outcome).Msg("applied DDL")
	if done, err = s.store.finishBarrier(ctx, id, token, outcome); err != nil || !done {
		return false, err
	}
	s.reach(ctx, stepDone)
	return true, s.pruneBarriers(ctx)
}

// execute runs the DDL of a barrier that a claim holds.
func (s *Service) execute(ctx context.Context, e *event.Event, id barrierID, groups []groupRules, st *standing, renew func(context.Context) (bool, error)) (outcome string, err error) {
	x := &executor{
		client: s.client, store: s.store, rules: s.cfg.Rules, groups: groups, log: s.log, event: e, barrier: id, builder: s.builder,
		lenient: st.lenientFor(groups, e), uuids: s.able.collectionUUID, shards: s.newSharder(),
	}
	x.hold = func(ctx context.Context) error {
		if ok, err := renew(ctx); err != nil || !ok {
			return errors.Join(err, errClaimLost)
		}
		s.reach(ctx, stepHeld)
		return nil
	}
	err = keep(ctx, renew, func(ctx context.Context) error {
		var err error
		outcome, err = x.run(ctx)
		return err
	})
	return outcome, err
}

// giveUp ends a claim whose execution failed. If the destination answered, the
// next try may begin at once. Otherwise the command may still be under way, and
// the claim is left until it cannot be any more: nobody may pass the barrier
// before.
func (s *Service) giveUp(ctx context.Context, id barrierID, token string, cause error) error {
	var own *ddlError
	if !errors.As(cause, &own) && !answered(cause) {
		return cause
	}
	return errors.Join(cause, s.store.releaseBarrier(ctx, id, token))
}

// answered reports whether the destination has answered a command, so that
// nothing of it is under way any more.
func answered(err error) bool {
	var answer mongo.CommandError
	return err == nil || errors.As(err, &answer) && !hasLabel(err, "NetworkError")
}

// arrive records that a partition stands at a barrier; the first one writes the
// barrier down.
func (s *store) arrive(ctx context.Context, record barrierRecord, who participant) error {
	coll := s.db.Collection(barriersCollection)
	if _, err := coll.InsertOne(ctx, record); err != nil && !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("write barrier record: %w", sanitize(err))
	}
	add := bson.D{{Key: "$addToSet", Value: bson.D{{Key: "arrived", Value: who}}}}
	if _, err := coll.UpdateOne(ctx, byID(record.ID), add); err != nil {
		return fmt.Errorf("record arrival at barrier: %w", sanitize(err))
	}
	return nil
}

// barrier reads a barrier's record.
func (s *store) barrier(ctx context.Context, id barrierID) (barrierRecord, error) {
	var b barrierRecord
	if err := s.db.Collection(barriersCollection).FindOne(ctx, byID(id)).Decode(&b); err != nil {
		return barrierRecord{}, fmt.Errorf("read barrier record: %w", err)
	}
	return b, nil
}

// claimBarrier takes the execution in hand for leaseTime, or prolongs that; it
// reports whether the token holds it now, and long enough for a command.
func (s *store) claimBarrier(ctx context.Context, id barrierID, token string) (bool, error) {
	began := time.Now()
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	filter := bson.D{{Key: "_id", Value: id}, {Key: "$or", Value: bson.A{
		bson.D{{Key: "state", Value: barrierWaiting}},
		bson.D{{Key: "state", Value: barrierClaimed}, {Key: "owner", Value: token}},
		bson.D{{Key: "state", Value: barrierClaimed}, {Key: "deadline", Value: bson.D{{Key: "$lt", Value: now}}}},
	}}}
	claimed, err := s.updateBarrier(ctx, filter, field("state", barrierClaimed), field("owner", token), field("deadline", now.Add(leaseTime)))
	if err != nil || !claimed {
		return false, err
	}
	return true, inTime(began)
}

// finishBarrier lets everyone pass.
func (s *store) finishBarrier(ctx context.Context, id barrierID, token, outcome string) (bool, error) {
	return s.updateBarrier(ctx, claimedBy(id, token), field("state", barrierDone), field("outcome", outcome), field("done", time.Now().UTC()))
}

// releaseBarrier ends a claim without execution.
func (s *store) releaseBarrier(ctx context.Context, id barrierID, token string) error {
	_, err := s.updateBarrier(ctx, claimedBy(id, token), field("state", barrierWaiting), field("owner", ""))
	return err
}

func claimedBy(id barrierID, token string) bson.D {
	return bson.D{{Key: "_id", Value: id}, {Key: "state", Value: barrierClaimed}, {Key: "owner", Value: token}}
}

func (s *store) updateBarrier(ctx context.Context, filter bson.D, fields ...bson.E) (bool, error) {
	res, err := s.db.Collection(barriersCollection).UpdateOne(ctx, filter, set(fields...))
	if err != nil {
		return false, fmt.Errorf("write barrier record: %w", sanitize(err))
	}
	return res.MatchedCount == 1, nil
}
