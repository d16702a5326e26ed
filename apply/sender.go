package apply

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// sendInterval is how often a process looks at the group's outbox.
	sendInterval = 30 * time.Second
	// sendBatch bounds how many entries are read at a time.
	sendBatch = 5000
	// forgottenAfter is when a request that capture has not even taken over is
	// sent again: the control topic keeps its records for a week.
	forgottenAfter = 24 * time.Hour
)

// sender sends what stands in the group's outbox to capture: new entries at
// once, and those again that capture is done with but that were not made good by
// the time the group had passed the place where capture stood then. Every
// process runs one. Sending something twice costs no more than another image.
type sender struct {
	s     *Service
	poked chan struct{}
	// over holds, by request, how far capture had published when the request
	// was first seen to be over.
	over map[string]bson.Timestamp
}

func newSender(s *Service) *sender {
	return &sender{s: s, poked: make(chan struct{}, 1), over: map[string]bson.Timestamp{}}
}

// poke has the sender look at the outbox now.
func (s *sender) poke() {
	select {
	case s.poked <- struct{}{}:
	default: // it is about to
	}
}

// run sends until ctx ends. What fails is retried as everything else; a failure
// for good ends the service.
func (s *sender) run(ctx context.Context) error {
	tick := time.NewTicker(sendInterval)
	defer tick.Stop()
	for {
		if err := s.round(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.poked:
		case <-tick.C:
		}
	}
}

// round sends what has not been sent, and what has to be sent again.
func (s *sender) round(ctx context.Context) error {
	if g, known, _ := s.s.phases.current(); !known || g.Phase != state.PhaseChanges {
		return nil
	}
	if err := s.tidy(ctx); err != nil {
		return err
	}
	for {
		entries, err := s.entries(ctx, sendBatch, field("state", requestWanted), field("sent", int64(0)))
		if err != nil {
			return err
		}
		read := len(entries)
		if entries, err = s.due(ctx, entries); err != nil {
			return err
		}
		if err := s.send(ctx, entries); err != nil {
			return err
		}
		if read < sendBatch || len(entries) == 0 {
			return nil
		}
	}
}

// due leaves out the reloads that history has made necessary while it is being
// replayed: for what was renamed under its reads the run has asked itself, and the
// reload is a part of that history. What is still wanted at its end is sent then.
func (s *sender) due(ctx context.Context, entries []requestRecord) ([]requestRecord, error) {
	if !slices.ContainsFunc(entries, func(e requestRecord) bool { return e.whole() }) {
		return entries, nil
	}
	var offsets map[int32]offsetRecord
	err := s.retry(ctx, func(ctx context.Context) error {
		var err error
		offsets, err = s.s.store.offsets(ctx, s.s.topics.changes)
		return err
	})
	if err != nil {
		return nil, err
	}
	g, _, _ := s.s.phases.current()
	behind := len(offsets) < len(g.ChangeOffsets)
	for _, o := range offsets {
		behind = behind || o.CatchingUp
	}
	return slices.DeleteFunc(entries, func(e requestRecord) bool {
		return behind && e.whole() && event.CompareTimes(e.Place.Time, g.ReadThrough) <= 0
	}), nil
}

func (s *sender) entries(ctx context.Context, n int64, filter ...bson.E) (list []requestRecord, err error) {
	err = s.retry(ctx, func(ctx context.Context) error {
		list, err = s.s.store.requests(ctx, n, filter...)
		return err
	})
	return list, err
}

func (s *sender) retry(ctx context.Context, fn func(context.Context) error) error {
	return s.s.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error { return sanitize(fn(ctx)) })
}

// send sends entries: a collection's documents together, up to what a request
// may hold.
func (s *sender) send(ctx context.Context, entries []requestRecord) error {
	byColl := map[string][]requestRecord{}
	for _, e := range entries {
		if e.whole() {
			if err := s.sendOne(ctx, state.RequestReload, e.Request, []requestRecord{e}); err != nil {
				return err
			}
			continue
		}
		byColl[e.ID.Coll] = append(byColl[e.ID.Coll], e)
	}
	for _, list := range byColl {
		for len(list) > 0 {
			n := fitting(list)
			id := s.s.store.id.Group + "/" + bson.NewObjectID().Hex()
			if err := s.sendOne(ctx, state.RequestRefresh, id, list[:n]); err != nil {
				return err
			}
			list = list[n:]
		}
	}
	return nil
}

// fitting returns how many documents one request may name.
func fitting(list []requestRecord) int {
	size := 0
	for i, e := range list {
		size += len(e.Doc)
		if i > 0 && (i >= state.MaxRequestIDs || size > state.MaxRequestBytes) {
			return i
		}
	}
	return len(list)
}

// sendOne sends one request and takes down where it stands in the control topic.
func (s *sender) sendOne(ctx context.Context, kind, id string, list []requestRecord) error {
	r, err := s.requestOf(kind, id, list)
	if err != nil {
		return err
	}
	record, err := state.RequestRecord(s.s.cfg.Pipeline, r)
	if err != nil {
		return err
	}
	err = s.s.kafkaRetry(ctx, func(ctx context.Context) error {
		if err := s.s.fetcher.client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return fmt.Errorf("send request id=%s: %w", id, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.s.log.Info().Str("request", id).Str("kind", kind).Str(logfield.Namespace, list[0].NS).Int("documents", len(r.IDs)).
		Str(logfield.Reason, r.Reason).Msg("asked the source for it")
	return s.retry(ctx, func(ctx context.Context) error { return s.s.store.sent(ctx, list, id, record.Offset) })
}

func (s *sender) requestOf(kind, id string, list []requestRecord) (*state.Request, error) {
	ns, err := event.ParseNamespace(list[0].NS)
	if err != nil {
		return nil, &stateError{err}
	}
	r := &state.Request{
		Kind: kind, ID: id, Destination: s.s.cfg.Destination, Group: s.s.cfg.Group, DB: ns.DB, Coll: ns.Coll,
		Reason: list[0].Reason, Asked: list[0].Asked,
	}
	if list[0].UUID != "" {
		if err := r.UUID.UnmarshalText([]byte(list[0].UUID)); err != nil {
			return nil, &stateError{fmt.Errorf("read request ns=%s: %w", ns, err)}
		}
	}
	if kind == state.RequestRefresh {
		for _, e := range list {
			r.IDs = append(r.IDs, e.Doc)
		}
	}
	return r, nil
}

// tidy removes what has done its service and marks for sending what was sent in
// vain.
func (s *sender) tidy(ctx context.Context) error {
	entries, err := s.entries(ctx, 0)
	if err == nil {
		s.s.tellDead(entries)
	}
	if err != nil || len(entries) == 0 {
		clear(s.over)
		return err
	}
	var offsets map[int32]offsetRecord
	err = s.retry(ctx, func(ctx context.Context) error {
		offsets, err = s.s.store.offsets(ctx, s.s.topics.changes)
		return err
	})
	if err != nil {
		return err
	}
	g, _, _ := s.s.phases.current()
	if len(offsets) < len(g.ChangeOffsets) {
		return nil
	}
	passed, history := leastPassed(offsets)
	shaky := history || slices.ContainsFunc(entries, lastsLonger)
	var useless []requestID
	var sent []requestRecord
	for _, e := range entries {
		switch {
		case e.State == requestSettling && event.CompareTimes(e.Through, passed) <= 0,
			e.State == requestShaken && !shaky:
			useless = append(useless, e.ID)
		case e.State == requestWanted && e.Sent > 0, e.State == requestBegun:
			sent = append(sent, e)
		}
	}
	err = s.retry(ctx, func(ctx context.Context) error { return s.s.store.writeRequests(ctx, useless, nil) })
	if err != nil {
		return err
	}
	return s.review(ctx, sent, passed)
}

// lastsLonger reports whether an entry may still have history replayed over
// documents.
func lastsLonger(e requestRecord) bool { return e.State != requestShaken }

// leastPassed returns the watermark that all partitions have passed, and whether
// any of them replays history.
func leastPassed(offsets map[int32]offsetRecord) (passed bson.Timestamp, history bool) {
	first := true
	for _, o := range offsets {
		if first || event.CompareTimes(o.Watermark, passed) < 0 {
			passed, first = o.Watermark, false
		}
		history = history || o.mode(o.Offset) == event.Lenient
	}
	return passed, history
}

// review looks at entries that were sent. A request that capture has taken over
// and does not have any more is over: its results stand at or before what
// capture has published. Once the group has passed that, an entry that is still
// there was not made good by it.
func (s *sender) review(ctx context.Context, sent []requestRecord, passed bson.Timestamp) error {
	if len(sent) == 0 {
		clear(s.over)
		return nil
	}
	view, err := s.s.loadState(ctx)
	if err != nil {
		return err
	}
	position, _ := view.Position()
	over := map[string]bson.Timestamp{}
	var again []requestRecord
	for _, e := range sent {
		if _, pending := view.Request(e.Request); pending {
			continue
		}
		if view.ControlOffset() < e.Sent {
			if !e.SentAt.IsZero() && time.Since(e.SentAt) > forgottenAfter {
				again = append(again, e)
			}
			continue
		}
		since, seen := s.over[e.Request]
		switch {
		case !seen:
			over[e.Request] = position.PublishedThrough.Time
		case event.CompareTimes(passed, since) > 0: // results stand behind the watermark of their time
			again = append(again, e)
		default:
			over[e.Request] = since
		}
	}
	s.over = over
	if len(again) == 0 {
		return nil
	}
	s.s.log.Warn().Int("entries", len(again)).Str(logfield.Namespace, again[0].NS).Msg("requests were over and not made good: they are sent again")
	return s.retry(ctx, func(ctx context.Context) error { return s.s.store.unsent(ctx, again) })
}

// sent takes down that entries were sent, those that are still there.
func (s *store) sent(ctx context.Context, list []requestRecord, request string, offset int64) error {
	return s.markSent(ctx, list, field("request", request), field("sent", offset+1), field("sent_at", time.Now().UTC()))
}

// unsent has entries sent again.
func (s *store) unsent(ctx context.Context, list []requestRecord) error {
	return s.markSent(ctx, list, field("state", requestWanted), field("sent", int64(0)))
}

func (s *store) markSent(ctx context.Context, list []requestRecord, fields ...bson.E) error {
	ids := make(bson.A, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}, {Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{requestWanted, requestBegun}}}}}
	if _, err := s.db.Collection(requestsCollection).UpdateMany(ctx, filter, set(fields...)); err != nil {
		return fmt.Errorf("mark requests as sent: %w", sanitize(err))
	}
	return nil
}
