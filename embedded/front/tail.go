package front

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The limits of tailable cursors.
const (
	// firstTailID is above every cursor id of the server, which counts up to 32
	// bits.
	firstTailID = int64(1) << 40
	// defaultAwait is how long a getMore waits that says nothing about it.
	defaultAwait = time.Second
	// maxBatch is how many entries a getMore returns at most.
	maxBatch = 4096
)

// tail holds the tailable cursors on the oplog.
type tail struct {
	mu      sync.Mutex
	cursors map[int64]*cursor
	nextID  int64
	// writes counts commands that may have added entries, and changed is closed
	// and replaced at each.
	writes  uint64
	changed chan struct{}
}

// cursor is a tailable cursor. Its fields belong to tail.mu.
type cursor struct {
	filter bson.Raw
	// last is the record id of the last entry that was looked at.
	last int64
	// drained is what tail.writes was when the cursor last found nothing, plus
	// one; zero before that.
	drained uint64
}

func newTail() *tail {
	return &tail{cursors: map[int64]*cursor{}, nextID: firstTailID, changed: make(chan struct{})}
}

// written notes that there may be new entries.
func (t *tail) written() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writes++
	close(t.changed)
	t.changed = make(chan struct{})
}

// open makes a cursor.
func (t *tail) open(filter bson.Raw, after int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextID++
	t.cursors[t.nextID] = &cursor{filter: filter, last: after}
	return t.nextID
}

// get returns a copy of a cursor.
func (t *tail) get(id int64) (cursor, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.cursors[id]
	if !ok {
		return cursor{}, false
	}
	return *c, true
}

// set stores where a cursor stands now, if it is still open.
func (t *tail) set(id int64, c cursor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.cursors[id]; ok {
		t.cursors[id] = &c
	}
}

// remove closes a cursor.
func (t *tail) remove(id int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.cursors[id]
	delete(t.cursors, id)
	return ok
}

// await returns the count of writes as soon as it differs from what the cursor
// has drained, or when the time is up; fresh says which.
func (t *tail) await(ctx context.Context, c cursor, wait time.Duration) (writes uint64, fresh bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		t.mu.Lock()
		writes, changed := t.writes, t.changed
		t.mu.Unlock()
		if c.drained != writes+1 {
			return writes, true
		}
		select {
		case <-changed:
		case <-timer.C:
			return writes, false
		case <-ctx.Done():
			return writes, false
		}
	}
}

// read serves find, getMore and killCursors: those of tailable cursors on the
// oplog itself, all others by the server.
func (s *session) read(ctx context.Context, m message, c command) (message, error) {
	switch c.name() {
	case "find":
		if tailable, ok := c.body.Lookup("tailable").BooleanOK(); ok && tailable && c.onOplog("find") && s.front.cfg.Fill != nil {
			return s.openTail(c)
		}
		if c.asksForNewest() && s.front.cfg.Newest != nil {
			return s.readNewest(ctx, c)
		}
		if ids, ok := c.idsOf(); ok {
			return s.lookUp(m, c, ids)
		}
	case "getMore":
		if id, ok := c.body.Lookup("getMore").AsInt64OK(); ok && id > firstTailID && c.onOplog("collection") {
			return s.readTail(ctx, c, id)
		}
	case "killCursors":
		if c.onOplog("killCursors") && s.killTails(c) {
			return answer(c, bson.D{{Key: "cursorsKilled", Value: c.body.Lookup("cursors")}, {Key: "ok", Value: 1.0}})
		}
	}
	return s.ask(m)
}

// onOplog reports whether the command's field with that key names the oplog.
func (c command) onOplog(key string) bool {
	db, _ := c.body.Lookup("$db").StringValueOK()
	collection, _ := c.body.Lookup(key).StringValueOK()
	return db == "local" && collection == "oplog.rs"
}

// asksForNewest reports whether a find asks for the oplog's last entry and
// nothing else: {sort: {$natural: -1}, limit: 1} without a filter.
func (c command) asksForNewest() bool {
	if !c.onOplog("find") {
		return false
	}
	filter, _ := c.body.Lookup("filter").DocumentOK()
	natural, _ := c.body.Lookup("sort", "$natural").AsInt64OK()
	limit, _ := c.body.Lookup("limit").AsInt64OK()
	return len(filter) <= 5 && natural == -1 && limit == 1
}

// readNewest answers such a find from the window.
func (s *session) readNewest(ctx context.Context, c command) (message, error) {
	s.front.write.Lock()
	before, err := s.front.cfg.Newest(ctx)
	s.front.write.Unlock()
	if err != nil {
		return failure(c, err), nil
	}
	entries, refusal, err := s.entriesAfter(ctx, c, &cursor{filter: bson.Raw{5, 0, 0, 0, 0}, last: before}, maxBatch)
	if err != nil || refusal != nil {
		return refusal, err
	}
	// Others may have come since.
	return cursorAnswer(c, "firstBatch", 0, entries[max(len(entries)-1, 0):])
}

// openTail answers a find with an empty first batch; entries come with the
// first getMore, as they may from a real server.
func (s *session) openTail(c command) (message, error) {
	filter, ok := c.body.Lookup("filter").DocumentOK()
	if !ok {
		filter = bson.Raw{5, 0, 0, 0, 0}
	}
	// The filter aliases the message, which nobody changes.
	return cursorAnswer(c, "firstBatch", s.front.tail.open(filter, startOf(filter)), nil)
}

// startOf is a record id below that of every entry that a filter like
// {ts: {$gte: T}} matches; 0 for other filters.
func startOf(filter bson.Raw) int64 {
	ts, ok := filter.Lookup("ts").DocumentOK()
	if !ok {
		return 0
	}
	for _, operator := range []string{"$gte", "$gt"} {
		if t, i, ok := ts.Lookup(operator).TimestampOK(); ok {
			return int64(t)<<32 | int64(i) - 1
		}
	}
	return 0
}

// readTail answers a getMore.
func (s *session) readTail(ctx context.Context, c command, id int64) (message, error) {
	at, ok := s.front.tail.get(id)
	if !ok {
		return answer(c, bson.D{
			{Key: "ok", Value: 0.0},
			{Key: "errmsg", Value: fmt.Sprintf("cursor id %d not found", id)},
			{Key: "code", Value: int32(43)},
			{Key: "codeName", Value: "CursorNotFound"},
		})
	}
	wait := defaultAwait
	if ms, ok := c.body.Lookup("maxTimeMS").AsInt64OK(); ok {
		wait = time.Duration(ms) * time.Millisecond
	}
	limit := maxBatch
	if n, ok := c.body.Lookup("batchSize").AsInt64OK(); ok && n > 0 {
		limit = int(min(n, maxBatch))
	}
	for {
		began := time.Now()
		writes, fresh := s.front.tail.await(ctx, at, wait)
		if !fresh {
			return cursorAnswer(c, "nextBatch", id, nil)
		}
		from := at.last
		entries, refusal, err := s.entriesAfter(ctx, c, &at, limit)
		if err != nil || refusal != nil {
			return refusal, err
		}
		at.drained = 0
		if at.last == from {
			at.drained = writes + 1
		}
		s.front.tail.set(id, at)
		if wait -= time.Since(began); len(entries) > 0 || wait <= 0 {
			return cursorAnswer(c, "nextBatch", id, entries)
		}
	}
}

// entriesAfter reads the entries that match a cursor's filter among the next
// ones, at most limit, and moves the cursor past them. What the server refuses
// is returned as the answer to give.
func (s *session) entriesAfter(ctx context.Context, c command, at *cursor, limit int) ([]bson.RawValue, message, error) {
	body, err := bson.Marshal(bson.D{
		{Key: "find", Value: WindowCollection},
		{Key: "filter", Value: at.filter},
		{Key: "batchSize", Value: limit},
		{Key: "singleBatch", Value: true},
		{Key: "$db", Value: "local"},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("encode find: %w", err)
	}
	f := s.front
	f.write.Lock()
	defer f.write.Unlock()
	last, err := f.cfg.Fill(ctx, at.last, limit)
	if err != nil {
		return nil, failure(c, err), nil
	}
	raw, err := s.call(c, body)
	if err != nil {
		return nil, nil, err
	}
	list, ok := raw.Lookup("cursor", "firstBatch").ArrayOK()
	if !ok {
		return nil, encode(c.requestID, c.requestID, raw), nil
	}
	entries, err := list.Values()
	if err != nil {
		return nil, nil, fmt.Errorf("decode oplog entries: %w", err)
	}
	at.last = last
	return entries, nil, nil
}

// killTails closes the cursors that a killCursors names; false if none of them
// is the front's.
func (s *session) killTails(c command) bool {
	list, ok := c.body.Lookup("cursors").ArrayOK()
	if !ok {
		return false
	}
	ids, err := list.Values()
	if err != nil {
		return false
	}
	killed := false
	for _, v := range ids {
		if id, ok := v.AsInt64OK(); ok && s.front.tail.remove(id) {
			killed = true
		}
	}
	return killed
}

// cursorAnswer makes the answer to a find or a getMore.
func cursorAnswer(c command, batchKey string, id int64, entries []bson.RawValue) (message, error) {
	batch := bson.A{}
	for _, e := range entries {
		batch = append(batch, e)
	}
	return answer(c, bson.D{
		{Key: "cursor", Value: bson.D{
			{Key: batchKey, Value: batch},
			{Key: "id", Value: id},
			{Key: "ns", Value: "local.oplog.rs"},
		}},
		{Key: "ok", Value: 1.0},
	})
}
