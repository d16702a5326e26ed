package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// The kinds of requests.
const (
	// RequestRefresh asks for the present images of some documents.
	RequestRefresh = "refresh"
	// RequestReload asks for a whole collection: options, indexes, documents.
	RequestReload = "reload"
	// RequestSelect asks for a reload of every collection that a changed
	// selection has added.
	RequestSelect = "select"
)

// The limits of one request.
const (
	// MaxRequestIDs is how many documents one refresh may name, MaxRequestBytes
	// how many bytes their _ids may take together.
	MaxRequestIDs   = 1000
	MaxRequestBytes = 1 << 20
	// maxRequestName bounds a request's ID, which becomes part of a key.
	maxRequestName = 200
)

const (
	keyControl    = "control"
	prefixRequest = "request/"
	prefixAnswer  = "answer/"
)

// KeyControl is the key of ControlOffset.
func KeyControl() string { return keyControl }

// KeyRequest is the key of a PendingRequest.
func KeyRequest(id string) string { return prefixRequest + id }

// KeyAnswer is the key of an Answer.
func KeyAnswer(id string) string { return prefixAnswer + id }

// IsRequest reports whether key is a PendingRequest's.
func IsRequest(key string) bool { return strings.HasPrefix(key, prefixRequest) }

// IsAnswer reports whether key is an Answer's.
func IsAnswer(key string) bool { return strings.HasPrefix(key, prefixAnswer) }

// Request asks capture for whole documents. It travels as a command on the
// control topic; whoever needs it sends it again until it is satisfied.
type Request struct {
	// Kind is RequestRefresh or RequestReload.
	Kind string `json:"kind"`
	// ID names the request for good: asking again with the same ID while it is
	// pending is the same request.
	ID string `json:"id"`
	// Destination and Group say who asked. Both are empty where every
	// destination is meant.
	Destination string `json:"destination,omitempty"`
	Group       string `json:"group,omitempty"`
	// DB and Coll are the collection's name at the time of asking.
	DB   string `json:"db"`
	Coll string `json:"coll"`
	// UUID names the collection through renames; zero where none is known: then
	// capture follows the renames that it publishes.
	UUID event.UUID `json:"uuid"`
	// IDs are the documents of a refresh, each a raw document {_id: …}: at most
	// MaxRequestIDs and MaxRequestBytes.
	IDs [][]byte `json:"ids,omitempty"`
	// Select is that of a RequestSelect, which names no collection.
	Select *SelectChange `json:"select,omitempty"`
	// Reason says in a few words why, for the log and the status.
	Reason string    `json:"reason,omitempty"`
	Asked  time.Time `json:"asked"`
}

// Namespace returns the collection's name at the time of asking.
func (r *Request) Namespace() event.Namespace { return event.Namespace{DB: r.DB, Coll: r.Coll} }

// Validate reports what keeps the request from being served by anybody.
func (r *Request) Validate() error {
	switch {
	case r.ID == "" || len(r.ID) > maxRequestName:
		return fmt.Errorf("check request: its id has %d bytes: give it 1 to %d", len(r.ID), maxRequestName)
	case r.Kind == RequestSelect:
		return r.validateSelect()
	case r.Kind != RequestRefresh && r.Kind != RequestReload:
		return fmt.Errorf("check request id=%s: kind %q is not known", r.ID, r.Kind)
	case r.DB == "" || r.Coll == "":
		return fmt.Errorf("check request id=%s: it names no collection", r.ID)
	case r.Kind == RequestReload && len(r.IDs) > 0:
		return fmt.Errorf("check request id=%s: a reload takes no _ids", r.ID)
	case r.Kind == RequestRefresh && (len(r.IDs) == 0 || len(r.IDs) > MaxRequestIDs):
		return fmt.Errorf("check request id=%s: a refresh of %d documents: ask for 1 to %d at a time", r.ID, len(r.IDs), MaxRequestIDs)
	}
	size := 0
	for i, id := range r.IDs {
		size += len(id)
		if err := validateID(id); err != nil {
			return fmt.Errorf("check request id=%s: document %d: %w", r.ID, i, err)
		}
	}
	if size > MaxRequestBytes {
		return fmt.Errorf("check request id=%s: its _ids take %d bytes: ask for at most %d at a time", r.ID, size, MaxRequestBytes)
	}
	return nil
}

// validateID wants {_id: value} and nothing else.
func validateID(doc bson.Raw) error {
	if err := rawbson.Validate(doc); err != nil {
		return fmt.Errorf("read _id: %w", err)
	}
	body, err := rawbson.Body(doc)
	if err != nil {
		return fmt.Errorf("read _id: %w", err)
	}
	e, rest, err := rawbson.Next(body)
	if err != nil || string(e.Name) != "_id" || len(rest) > 0 {
		return errors.New("want a document of _id alone")
	}
	return nil
}

// RequestRecord makes the record that puts a request on a pipeline's control
// topic. The caller produces it, plainly or in a transaction; until the request
// is satisfied it may do so again at any time.
func RequestRecord(pipeline string, r *Request) (*kgo.Record, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode request id=%s: %w", r.ID, err)
	}
	return &kgo.Record{Topic: route.TopicsOf(pipeline).Control, Partition: 0, Key: []byte(pipeline), Value: value}, nil
}

// DecodeCommand returns the kind of a record of the control topic and, where
// the kind is one of a request, the request. Other kinds are commands to
// others. The request is returned as far as it could be read beside an error
// that says what is wrong with it. The value is not kept.
func DecodeCommand(value []byte) (kind string, r *Request, err error) {
	var head struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return "", nil, fmt.Errorf("decode command: %w", err)
	}
	if head.Kind != RequestRefresh && head.Kind != RequestReload && head.Kind != RequestSelect {
		return head.Kind, nil, nil
	}
	r = &Request{Kind: head.Kind, ID: head.ID}
	if err := json.Unmarshal(value, r); err != nil {
		return head.Kind, r, fmt.Errorf("decode request id=%s: %w", head.ID, err)
	}
	return head.Kind, r, r.Validate()
}

// ControlOffset says how far capture has taken requests over.
type ControlOffset struct {
	// Offset is that of the control topic's next record.
	Offset int64 `json:"offset"`
}

// PendingRequest is a request that capture has taken over and not satisfied.
// Its key is removed in the Kafka transaction that publishes its last result.
type PendingRequest struct {
	Request
	// Now is the collection's present name, carried through the renames that
	// were published since the request was taken over.
	Now event.Namespace `json:"now"`
	// Reload says how far a reload has come; nil before its first event and for
	// refreshes.
	Reload *ReloadProgress `json:"reload,omitempty"`
}

// ReloadProgress says how far a reload has come, written in the transaction that
// carries the images.
type ReloadProgress struct {
	// UUID is that of the collection whose reload event was published.
	UUID event.UUID `json:"uuid"`
	// Next is the {_id: value} document behind which reading goes on; empty at
	// the start.
	Next []byte `json:"next,omitempty"`
	// Left are documents before Next whose images are still to be published,
	// each {_id: value}: they changed while they were read.
	Left [][]byte `json:"left,omitempty"`
	// Exhausted says that nothing follows behind Next.
	Exhausted bool `json:"exhausted,omitempty"`
	// ReadThrough is the newest operation time of the reads published so far.
	ReadThrough bson.Timestamp `json:"read_through,omitzero"`
	Documents   int64          `json:"documents"`
	Bytes       int64          `json:"bytes"`
}

// Answer is the end of a request that could not be served. Capture keeps the
// newest ones.
type Answer struct {
	ID    string    `json:"id"`
	Kind  string    `json:"kind"`
	DB    string    `json:"db"`
	Coll  string    `json:"coll"`
	Cause string    `json:"cause"`
	Ended time.Time `json:"ended"`
}

// Requests returns the pending requests, ordered by key.
func (v *View) Requests() []PendingRequest { return inOrder(v.requests) }

// Request returns a pending request; ok is false where none is pending under
// that id.
func (v *View) Request(id string) (r PendingRequest, ok bool) {
	r, ok = v.requests[KeyRequest(id)]
	return r, ok
}

// Answers returns the newest refusals, ordered by key.
func (v *View) Answers() []Answer { return inOrder(v.answers) }

// ControlOffset returns the offset of the next record of the control topic that
// capture has not taken over; 0 where it has taken none. A request behind which
// it stands and that is not pending is over.
func (v *View) ControlOffset() int64 { return v.control }

// applyRequests takes over a record of this file's keys.
func (v *View) applyRequests(key string, value []byte) error {
	switch {
	case key == keyControl:
		offset, err := decodeOne[ControlOffset](value)
		if err != nil {
			return err
		}
		v.control = 0
		if offset != nil {
			v.control = offset.Offset
		}
		return nil
	case IsRequest(key):
		return applyTo(v.requests, key, value)
	case IsAnswer(key):
		return applyTo(v.answers, key, value)
	}
	return nil
}
