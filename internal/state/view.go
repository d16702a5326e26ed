package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// View is what the state topic says at one moment. It is not safe for
// concurrent use.
type View struct {
	identity *Identity
	position *CapturePosition
	runs     map[string]Manifest
	chunks   map[string]ChunkProgress
	groups   map[string]GroupRegistration
	statuses map[string]Status
	catalog  map[string]CatalogItem
	requests map[string]PendingRequest
	answers  map[string]Answer
	control  int64
	// throttles are by key.
	throttles map[string]Throttle
}

// NewView returns the view of an empty topic.
func NewView() *View {
	return &View{
		runs:     map[string]Manifest{},
		chunks:   map[string]ChunkProgress{},
		groups:   map[string]GroupRegistration{},
		statuses: map[string]Status{},
		catalog:  map[string]CatalogItem{},
		requests: map[string]PendingRequest{},
		answers:  map[string]Answer{},

		throttles: map[string]Throttle{},
	}
}

// Apply takes over one record of the topic; a nil value removes the key. Keys
// of a kind that is not known are passed over: a later version wrote them. The
// value is not kept.
func (v *View) Apply(key string, value []byte) error {
	var err error
	switch {
	case key == keyIdentity:
		v.identity, err = decodeOne[Identity](value)
	case key == keyPosition:
		v.position, err = decodeOne[CapturePosition](value)
	case IsRun(key):
		err = applyTo(v.runs, key, value)
	case IsChunk(key):
		err = applyTo(v.chunks, key, value)
	case IsGroup(key):
		err = applyTo(v.groups, key, value)
	case IsCatalog(key):
		err = applyTo(v.catalog, key, value)
	case IsStatus(key):
		err = applyTo(v.statuses, key, value)
	case strings.HasPrefix(key, prefixThrottle):
		err = applyTo(v.throttles, key, value)
	default:
		err = v.applyRequests(key, value)
	}
	if err != nil {
		return fmt.Errorf("decode state record key=%s: %w", key, err)
	}
	return nil
}

func decodeOne[T any](value []byte) (*T, error) {
	if value == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, err
	}
	return v, nil
}

func applyTo[T any](m map[string]T, key string, value []byte) error {
	v, err := decodeOne[T](value)
	switch {
	case err != nil:
		return err
	case v == nil:
		delete(m, key)
	default:
		m[key] = *v
	}
	return nil
}

// Identity returns the source that the pipeline is bound to; ok is false as
// long as it is bound to none.
func (v *View) Identity() (id Identity, ok bool) {
	if v.identity == nil {
		return Identity{}, false
	}
	return *v.identity, true
}

// Position returns capture's position; ok is false before its first
// transaction.
func (v *View) Position() (p CapturePosition, ok bool) {
	if v.position == nil {
		return CapturePosition{}, false
	}
	return *v.position, true
}

// Manifest returns the manifest of a run.
func (v *View) Manifest(run string) (m Manifest, ok bool) {
	m, ok = v.runs[KeyRun(run)]
	return m, ok
}

// LatestRun returns the run that started last.
func (v *View) LatestRun() (m Manifest, ok bool) {
	for _, run := range v.runs {
		if !ok || run.Started.After(m.Started) || (run.Started.Equal(m.Started) && run.Run > m.Run) {
			m, ok = run, true
		}
	}
	return m, ok
}

// Chunk returns how far a chunk of a run has come; ok is false before its first
// transaction.
func (v *View) Chunk(run string, chunk int32) (p ChunkProgress, ok bool) {
	p, ok = v.chunks[KeyChunk(run, chunk)]
	return p, ok
}

// Chunks returns the progress of every chunk of a run that has begun, in no
// particular order.
func (v *View) Chunks(run string) []ChunkProgress {
	var out []ChunkProgress
	for _, p := range v.chunks {
		if p.Run == run {
			out = append(out, p)
		}
	}
	return out
}

// Groups returns the registered apply groups, ordered by key.
func (v *View) Groups() []GroupRegistration { return inOrder(v.groups) }

// Statuses returns the last status of every service instance, ordered by key.
func (v *View) Statuses() []Status { return inOrder(v.statuses) }

func inOrder[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[key])
	}
	return out
}
