package capture

import (
	"cmp"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// maxPending and maxPendingBytes bound the requests that are taken over;
	// the others wait on the control topic.
	maxPending      = 10_000
	maxPendingBytes = 16 << 20
	// requestBytes is about what a request takes beside its _ids.
	requestBytes = 1 << 10
	// keptAnswers is how many refusals the state topic keeps.
	keptAnswers = 100
)

// request is a pending request and what this life knows of it.
type request struct {
	state.PendingRequest
	bytes int64
	// at is where the collection is; nil while it is not known. It is true at
	// the publisher's place in the stream: the DDL published since was looked
	// at.
	at *located
	// tries counts the rounds in a row that did not get all they read into the
	// stream.
	tries int
	// said tells that it was logged what the request waits for.
	said bool
	// failing is since when reading has failed, notBefore when to try again.
	failing, notBefore time.Time
	failures           int
}

// requests are those that were taken over and are not satisfied, with what is
// still to be written about them. It belongs to the publisher.
type requests struct {
	topic string
	log   zerolog.Logger

	byID map[string]*request
	// queue is the order in which they are served.
	queue []*request
	bytes int64
	// offset is that of the control topic's next record.
	offset  int64
	answers []state.Answer

	// What the next commit writes: keys of the state topic and their values,
	// nil where the key is removed.
	changed map[string]any
}

// newRequests resumes with what was committed.
func newRequests(topic string, view *state.View, log zerolog.Logger) *requests {
	r := &requests{
		topic: topic, log: log, byID: map[string]*request{}, changed: map[string]any{},
		offset: view.ControlOffset(), answers: view.Answers(),
	}
	slices.SortStableFunc(r.answers, func(a, b state.Answer) int { return a.Ended.Compare(b.Ended) })
	pending := view.Requests()
	slices.SortStableFunc(pending, func(a, b state.PendingRequest) int { return cmp.Or(a.Asked.Compare(b.Asked), cmp.Compare(a.ID, b.ID)) })
	for _, p := range pending {
		r.add(&request{PendingRequest: p})
	}
	return r
}

func (r *requests) add(q *request) {
	q.bytes = requestBytes
	for _, id := range q.IDs {
		q.bytes += int64(len(id))
	}
	r.byID[q.ID] = q
	r.queue = append(r.queue, q)
	r.bytes += q.bytes
}

// full reports whether no more requests are taken over for now.
func (r *requests) full() bool { return len(r.byID) >= maxPending || r.bytes >= maxPendingBytes }

// take takes a command over: a request becomes pending with the next commit.
// What is no request, or none that can be served, is said and passed over.
func (r *requests) take(c command) {
	r.offset = c.offset + 1
	r.changed[state.KeyControl()] = state.ControlOffset{Offset: r.offset}
	kind, asked, err := state.DecodeCommand(c.value)
	switch {
	case asked == nil && err != nil:
		r.log.Warn().Err(err).Int64(logfield.Offset, c.offset).Msg("command on the control topic was not understood and is passed over")
	case asked == nil:
		r.log.Warn().Int64(logfield.Offset, c.offset).Str(logfield.Reason, kind).Msg("command of a kind that capture does not know is passed over")
	case err != nil:
		r.refuse(&state.PendingRequest{Request: *asked}, err.Error())
	case r.byID[asked.ID] != nil, r.covered(asked): // asked again
	default:
		r.ask(asked)
	}
}

// change has the request written with the next commit.
func (r *requests) change(q *request) { r.changed[state.KeyRequest(q.ID)] = &q.PendingRequest }

// remove ends a request with the next commit.
func (r *requests) remove(q *request) {
	delete(r.byID, q.ID)
	r.queue = slices.DeleteFunc(r.queue, func(other *request) bool { return other == q })
	r.bytes -= q.bytes
	r.changed[state.KeyRequest(q.ID)] = nil
}

// reject ends a pending request that cannot be served.
func (r *requests) reject(q *request, cause string) {
	r.remove(q)
	r.refuse(&q.PendingRequest, cause)
}

// refuse says that a request is not served. The newest refusals are kept for
// whoever waits for an answer.
func (r *requests) refuse(q *state.PendingRequest, cause string) {
	r.log.Warn().Str(logfield.Request, q.ID).Str(logfield.Namespace, q.DB+"."+q.Coll).Str(logfield.Reason, cause).Msg("request is not served")
	key := state.KeyAnswer(q.ID)
	if q.ID == "" || len(key) > maxAnswerKey {
		return
	}
	r.answers = slices.DeleteFunc(r.answers, func(a state.Answer) bool { return a.ID == q.ID })
	a := state.Answer{ID: q.ID, Kind: q.Kind, DB: q.DB, Coll: q.Coll, Cause: cause, Ended: time.Now().UTC()}
	r.answers = append(r.answers, a)
	r.changed[key] = a
	for len(r.answers) > keptAnswers {
		r.changed[state.KeyAnswer(r.answers[0].ID)] = nil
		r.answers = r.answers[1:]
	}
}

// maxAnswerKey bounds the keys that refusals of malformed requests make.
const maxAnswerKey = 256

// later puts a request behind all others.
func (r *requests) later(q *request) {
	if i := slices.Index(r.queue, q); i >= 0 {
		r.queue = append(slices.Delete(r.queue, i, i+1), q)
	}
}

// records returns what is to be written with the commit.
func (r *requests) records() ([]*kgo.Record, error) {
	var list []*kgo.Record
	for key, v := range r.changed {
		record, err := state.Record(r.topic, key, v)
		if err != nil {
			return nil, &finalError{err}
		}
		list = append(list, record)
	}
	return list, nil
}

// written notes that the records were committed.
func (r *requests) written() { clear(r.changed) }

// naming is a DDL event as far as names go.
type naming struct {
	op       event.Op
	ns, to   event.Namespace
	uuid     event.UUID
	replaces event.UUID
}

func namingOf(e *event.Event) naming {
	n := naming{op: e.Op, ns: e.NS, uuid: e.UUID}
	if e.Op == event.OpRename {
		if to, ok := e.DDL.Lookup("to").StringValueOK(); ok {
			// A rename that names no target was refused when it was decoded.
			n.to, _ = event.ParseNamespace(to)
		}
		if _, data, ok := e.DDL.Lookup("dropTarget").BinaryOK(); ok && len(data) == len(n.replaces) {
			copy(n.replaces[:], data)
		}
	}
	return n
}

// concerns reports whether the event is about a collection: every kind of DDL.
func (n *naming) concerns(ns event.Namespace, uuid event.UUID) bool {
	return n.ns == ns || n.to == ns || !uuid.IsZero() && (n.uuid == uuid || n.replaces == uuid)
}

// moves reports whether the event ends or moves a collection, or makes one of
// its name: from there on the name means another collection.
func (n *naming) moves(ns event.Namespace, uuid event.UUID) bool {
	switch n.op {
	case event.OpCreate, event.OpDrop, event.OpRename:
		return n.concerns(ns, uuid)
	default:
		return false
	}
}

// ends reports whether the event is the end of a collection: the one of that
// UUID, or where the event tells none the one of that name, if it is known.
func (n *naming) ends(at *located, uuid event.UUID) bool {
	switch {
	case n.replaces == uuid:
		return true
	case n.op == event.OpDrop && !n.uuid.IsZero():
		return n.uuid == uuid
	case n.op == event.OpDrop:
		return at != nil && at.NS == n.ns
	default:
		return false
	}
}

// observe carries the requests past a DDL event that is being published. A
// reload that is under way begins again under a new name: only there it is known
// which destinations take the collection, and it ends with the collection.
func (r *requests) observe(n *naming) {
	for _, q := range slices.Clone(r.queue) {
		at, uuid := q.at, q.UUID
		if q.Reload != nil {
			uuid = q.Reload.UUID
		}
		if at != nil && n.moves(at.NS, at.UUID) {
			q.at = nil
		}
		switch {
		case !uuid.IsZero() && n.ends(at, uuid):
			r.reject(q, "the collection was dropped or replaced")
		case n.op == event.OpRename && n.ns == q.Now && (uuid.IsZero() || n.uuid.IsZero() || n.uuid == uuid):
			q.Now, q.Reload = n.to, nil
			r.change(q)
		}
	}
}
