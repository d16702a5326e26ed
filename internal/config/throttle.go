package config

import "github.com/tributarydb/tributary/internal/throttle"

// ReadThrottle limits what snapshot reads from the source, per second, all
// processes together; 0 is unlimited.
type ReadThrottle struct {
	// Queries are find and getMore commands.
	Queries   int   `yaml:"queries"`
	Documents int   `yaml:"documents"`
	Bytes     Bytes `yaml:"bytes"`
}

// Limits are the limits of the throttle.
func (t ReadThrottle) Limits() throttle.Limits {
	return throttle.Limits{Queries: int64(t.Queries), Documents: int64(t.Documents), Bytes: int64(t.Bytes)}
}

func (t ReadThrottle) validate(r *report, path string) {
	limit(r, path+".queries", int64(t.Queries))
	limit(r, path+".documents", int64(t.Documents))
	limit(r, path+".bytes", int64(t.Bytes))
}

// WriteThrottle limits what apply writes to a destination: loads and changes
// apart.
type WriteThrottle struct {
	Load    LoadThrottle    `yaml:"load"`
	Changes ChangesThrottle `yaml:"changes"`
}

// LoadThrottle limits the writes of a full load, per second, all processes of
// the destination together; 0 is unlimited.
type LoadThrottle struct {
	Documents int   `yaml:"documents"`
	Bytes     Bytes `yaml:"bytes"`
}

// Limits are the limits of the throttle.
func (t LoadThrottle) Limits() throttle.Limits {
	return throttle.Limits{Documents: int64(t.Documents), Bytes: int64(t.Bytes)}
}

// ChangesThrottle limits the writes of changes in the same way.
type ChangesThrottle struct {
	Operations int   `yaml:"operations"`
	Bytes      Bytes `yaml:"bytes"`
}

// Limits are the limits of the throttle; an operation counts as a document.
func (t ChangesThrottle) Limits() throttle.Limits {
	return throttle.Limits{Documents: int64(t.Operations), Bytes: int64(t.Bytes)}
}

func (t WriteThrottle) validate(r *report, path string) {
	limit(r, path+".load.documents", int64(t.Load.Documents))
	limit(r, path+".load.bytes", int64(t.Load.Bytes))
	limit(r, path+".changes.operations", int64(t.Changes.Operations))
	limit(r, path+".changes.bytes", int64(t.Changes.Bytes))
}

func limit(r *report, path string, n int64) {
	if n < 0 && !r.faultAt(path) {
		r.add(path, "is negative", "give what may pass in a second, or 0 for no limit")
	}
}

// ParseBytes reads a size as the file has it: a number or one with a unit, as
// 64MiB.
func ParseBytes(text string) (Bytes, error) { return parseBytes(text) }
