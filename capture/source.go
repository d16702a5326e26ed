package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// awaitTime is how long the server holds a request for new entries open.
const awaitTime = time.Second

// answerTimeout is how long a member may take beyond that before it counts as
// out of reach.
const answerTimeout = 15 * time.Second

// entrySource is where entries come from: a MongoDB deployment, or a script of
// a test.
type entrySource interface {
	// describe says what the deployment is, asked anew each time.
	describe(ctx context.Context) (event.Source, error)
	// decoder returns what decodes the items of this source's tails: events of
	// the namespaces that selected, which must be safe for concurrent use,
	// reports true for, marked with source.
	decoder(source event.Source, selected func(db, coll string) bool) decoder
	// start returns the position at which a new pipeline begins: everything up
	// to it is committed and left to the full load. Its ByNamespace are the
	// collections that exist and are ordered as a whole.
	start(ctx context.Context) (state.CapturePosition, error)
	// open returns a tail that continues behind at.PublishedThrough, and that
	// position as the source holds it (with its term). Reading begins at
	// at.ReadFrom (zero: at PublishedThrough); what was published is not handed
	// out again. It returns an ErrHistoryLost if the source no longer holds
	// where reading must begin.
	open(ctx context.Context, at state.CapturePosition) (tail, event.Position, error)
}

// tail follows the items behind a position.
type tail interface {
	// fetch appends items to b, or none but says in b.reached how far it came,
	// or neither where it needs another call. If it reports drained, everything
	// that was committed when fetch was called has been handed out before. It
	// sets b.readFrom and b.partial. It blocks for the server's await time at
	// most and may be called from one goroutine at a time. After an error the
	// tail is of no use.
	fetch(ctx context.Context, b *batch) (drained bool, err error)
	// close gives the server's resources back.
	close(ctx context.Context)
}

// mongoSource reads the oplog of a MongoDB deployment.
type mongoSource struct {
	client *mongo.Client
	keep   func(db, coll string) bool
	unique uniqueRules
	// held bounds the fragments of open transactions that are kept in memory,
	// in bytes; those of larger ones are read again.
	held int64
	// begin is the cluster time behind which a new pipeline begins; zero for the
	// present.
	begin   bson.Timestamp
	metrics *metrics
}

func (s *mongoSource) describe(ctx context.Context) (event.Source, error) {
	d, err := mongodb.Describe(ctx, s.client)
	if err != nil {
		return event.Source{}, &sourceError{err}
	}
	if err := d.CheckOplog(); err != nil {
		return event.Source{}, &sourceError{err}
	}
	return event.Source{Deployment: d.ID, Mode: ModeOplog, ServerVersion: d.Version}, nil
}

func (s *mongoSource) start(ctx context.Context) (state.CapturePosition, error) {
	t, err := beginning(ctx, s.client, s.begin)
	if err != nil {
		return state.CapturePosition{}, err
	}
	at := event.Position{Time: t}
	if !s.begin.IsZero() {
		if at, err = s.entryBefore(ctx, t); err != nil {
			return state.CapturePosition{}, err
		}
	}
	// What is created after t announces itself by its create event.
	collections, err := mongodb.ListCollections(ctx, s.client, s.keep)
	if err != nil {
		return state.CapturePosition{}, &sourceError{err}
	}
	var whole []event.UUID
	for _, c := range collections {
		if !c.UUID.IsZero() && (orderedAsWhole(c.Options) || s.unique.orders(&c)) {
			whole = append(whole, c.UUID)
		}
	}
	return state.CapturePosition{ReadFrom: at, PublishedThrough: at, ByNamespace: whole}, nil
}

// oplog reads at the primary: only there is what an idle cursor has seen not
// older than what was read before a failover.
func (s *mongoSource) oplog() *mongo.Collection {
	return s.client.Database("local").Collection("oplog.rs",
		options.Collection().SetReadConcern(readconcern.Majority()).SetReadPreference(readpref.Primary()))
}

// open opens a tailing cursor where reading begins. The first entry must be that
// itself, ts and term: anything else means that the oplog was rolled over, or
// that this is another history.
func (s *mongoSource) open(ctx context.Context, at state.CapturePosition) (tail, event.Position, error) {
	through, from := at.PublishedThrough, at.PublishedThrough
	if !at.ReadFrom.IsZero() && at.ReadFrom.Compare(through) < 0 {
		from = at.ReadFrom
	}
	cursor, err := s.oplog().Find(ctx, bson.D{{Key: "ts", Value: bson.D{{Key: "$gte", Value: from.Time}}}},
		options.Find().SetCursorType(options.TailableAwait).SetNoCursorTimeout(true).SetMaxAwaitTime(awaitTime))
	if err != nil {
		return nil, from, &sourceError{fmt.Errorf("open oplog position=%s: %w", from, err)}
	}
	t := &oplogTail{
		cursor:    cursor,
		assembler: newAssembler(mongoPast{s.oplog()}, s.held, s.metrics),
		stall: stall{
			majority: func(ctx context.Context) (bson.Timestamp, error) { return mongodb.MajorityTime(ctx, s.client) }, patience: stallPatience,
		},
	}
	t.stall.moved(from.Time, time.Now())
	if from.Time.T <= 1 { // the earliest time there is: the oplog was empty
		return t, from, nil
	}
	held, err := t.first(ctx)
	switch {
	case errors.Is(err, errNoEntry):
		err = s.behind(ctx, from)
	case err == nil && (held.Time != from.Time || from.Term != 0 && held.Term != from.Term):
		err = s.lost(ctx, from, held, through)
	case err == nil:
		if err = t.assembler.resume(&at, t.cursor.Current); err == nil {
			return t, t.assembler.through, nil
		}
	}
	t.close(context.WithoutCancel(ctx))
	return nil, from, err
}

// lost describes the gap between the position and the entry that was found in
// its place.
func (s *mongoSource) lost(ctx context.Context, from, found, through event.Position) error {
	oldest, err := oldestEntry(ctx, s.oplog())
	if err != nil {
		return err
	}
	what := fmt.Sprintf("the source's oplog has %s in its place and begins at %s", found, oldest)
	if event.CompareTimes(oldest.Time, from.Time) <= 0 {
		what += "; " + anotherHistory
	}
	if from != through {
		what += fmt.Sprintf("; the oldest open transaction begins there, others were published through %s", through)
	}
	return historyLost(from, what)
}

// historyLost names the gap and the remedy.
func historyLost(from event.Position, what string) error {
	return &finalError{fmt.Errorf("resume capture at position=%s (%s): %w: %s: hint: the changes in between are gone; "+
		"start a new pipeline name with a full load, and give the source a larger oplog (replSetResizeOplog)",
		from, time.Unix(int64(from.Time.T), 0).UTC().Format(time.RFC3339), ErrHistoryLost, what)}
}

// oldestEntry returns the position of the oplog's first entry.
func oldestEntry(ctx context.Context, oplog *mongo.Collection) (event.Position, error) {
	raw, err := oplog.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: 1}})).Raw()
	if err != nil {
		return event.Position{}, &sourceError{fmt.Errorf("read oldest oplog entry: %w", err)}
	}
	return entryPosition(raw)
}

// oplogTail is a tailing cursor on a real oplog, whose natural order is that of
// cluster times and which shows an entry only once all before it are there.
type oplogTail struct {
	cursor    *mongo.Cursor
	assembler *assembler
	stall     stall
	// failed is why the entry after the last batch could not be taken.
	failed error
}

// first waits for the first entry: the reply to the find may be empty, so the
// next one is waited for as well.
func (t *oplogTail) first(ctx context.Context) (event.Position, error) {
	for range 2 {
		if t.next(ctx) {
			return entryPosition(t.cursor.Current)
		}
		if err := t.failure(); err != nil {
			return event.Position{}, err
		}
	}
	return event.Position{}, errNoEntry
}

func (t *oplogTail) fetch(ctx context.Context, b *batch) (drained bool, err error) {
	if t.failed != nil {
		return false, t.failed
	}
	taken, drained, err := t.fill(ctx, b)
	var last event.Position
	if taken {
		last = t.reached()
	}
	t.assembler.finish(b, last)
	if err != nil && b.begun() {
		// What comes before it is handed over first.
		t.failed, err = err, nil
	}
	return drained && err == nil && !t.assembler.rebuilding, err
}

// fill takes entries until the batch is full, or until the server would have to
// be asked for more. Taken says that the cursor stands at the last entry taken.
func (t *oplogTail) fill(ctx context.Context, b *batch) (taken, drained bool, err error) {
	for !b.full() {
		if t.assembler.replaying() {
			if err := t.assembler.replayInto(ctx, b); err != nil {
				return taken, false, err
			}
			continue
		}
		if t.cursor.RemainingBatchLength() == 0 && (taken || b.begun()) {
			break // hand over before waiting for the server
		}
		if !t.next(ctx) {
			if err := t.failure(); err != nil {
				return false, false, err
			}
			return false, true, t.stall.check(ctx, time.Now())
		}
		taken = true
		if err := t.assembler.take(ctx, b, t.cursor.Current); err != nil {
			return taken, false, err
		}
	}
	return taken, false, nil
}

// next is the cursor's TryNext, which blocks for the server's await time. A
// member that is frozen, or out of reach, answers nothing at all and closes no
// connection either.
func (t *oplogTail) next(ctx context.Context) bool {
	if t.cursor.RemainingBatchLength() > 0 {
		return t.cursor.TryNext(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return t.cursor.TryNext(ctx)
}

// reached is the place of the cursor's present entry; decoding says what is
// wrong with one that has none.
func (t *oplogTail) reached() event.Position {
	p, err := entryPosition(t.cursor.Current)
	if err != nil {
		return event.Position{}
	}
	t.stall.moved(p.Time, time.Now())
	return p
}

// failure is why TryNext returned nothing, or nil where there was nothing.
func (t *oplogTail) failure() error {
	if err := t.cursor.Err(); err != nil {
		return &sourceError{fmt.Errorf("read oplog: %w", err)}
	}
	if t.cursor.ID() == 0 {
		return &transientError{errors.New("read oplog: the server closed the cursor")}
	}
	return nil
}

func (t *oplogTail) close(ctx context.Context) {
	t.assembler.close(ctx)
	closeCursor(ctx, t.cursor)
}

// closeCursor ignores the server's answer: a cursor that cannot be closed is
// gone with its connection or its session.
func closeCursor(ctx context.Context, cursor *mongo.Cursor) {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	_ = cursor.Close(ctx)
}
