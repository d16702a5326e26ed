package wire

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Limits of what an interner keeps; what is beyond them is made anew each time.
const (
	maxInterned      = 4096
	maxInternedBytes = 1024
)

// interner keeps one value for each encoded form, so that decoding names costs
// no allocation and no event holds its whole record alive by a name. Reads take
// no lock; the few writes copy the map.
type interner[V any] struct {
	known atomic.Pointer[map[string]V]
	mu    sync.Mutex
}

// get returns the value of the encoded form, made by build when it is new.
func (in *interner[V]) get(encoded []byte, build func() V) V {
	if known := in.known.Load(); known != nil {
		if v, ok := (*known)[string(encoded)]; ok {
			return v
		}
	}
	v := build()
	if len(encoded) <= maxInternedBytes {
		in.add(string(encoded), v)
	}
	return v
}

func (in *interner[V]) add(encoded string, v V) {
	in.mu.Lock()
	defer in.mu.Unlock()
	next := map[string]V{}
	if known := in.known.Load(); known != nil {
		if len(*known) >= maxInterned {
			return
		}
		next = maps.Clone(*known)
	}
	next[encoded] = v
	in.known.Store(&next)
}
