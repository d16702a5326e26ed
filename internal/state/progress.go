package state

import "time"

// The phases of a load, in their order. Snapshot passes planning, reading,
// catching up and done; apply planning, loading, indexes, catching up and done.
// A group that loads no documents passes over what it does not do.
const (
	// LoadPlanning is before there is a run, and until its collections are
	// prepared.
	LoadPlanning = "planning"
	// LoadReading is snapshot's: chunks are read from the source.
	LoadReading = "reading"
	// LoadLoading is apply's: documents are written to the destination.
	LoadLoading = "loading"
	LoadIndexes = "indexes"
	// LoadCatchingUp waits for the changes that came during the load.
	LoadCatchingUp = "catching_up"
	LoadDone       = "done"
)

// MaxActive is how many collections a Progress names, MaxListed how many index
// builds and deferred indexes a Status does: the record stays small whatever the
// pipeline holds.
const (
	MaxActive = 20
	MaxListed = 20
)

// Progress says how far a load has come: on snapshot's side all processes of the
// pipeline together, on apply's all processes of the group.
type Progress struct {
	// Phase is one of the Load constants.
	Phase string `json:"phase"`
	// Run is the run's id, Started when it began; empty while planning.
	Run     string    `json:"run,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// Percent is how much is done of the bytes, or of the documents where the
	// source does not tell sizes. It never decreases during a run, and is 100
	// only when every chunk is done.
	Percent float64 `json:"percent"`
	// Totals are the source's estimates, put right as chunks end.
	Documents   Share `json:"documents"`
	Bytes       Share `json:"bytes"`
	Chunks      Share `json:"chunks"`
	Collections Share `json:"collections"`
	// Rate is the present one, AverageRate since the reporting process began to
	// look: what was done before counts for neither.
	Rate        Rate `json:"rate"`
	AverageRate Rate `json:"average_rate"`
	// ETASeconds is how long the reading or the loading will go on at the rate
	// of the last minute; nil where that cannot be said.
	ETASeconds *float64 `json:"eta_seconds"`
	// Active are collections under way, at most MaxActive, by name; those with
	// most to do are named. MoreActive counts the others.
	Active     []CollectionProgress `json:"active,omitempty"`
	MoreActive int                  `json:"more_active,omitempty"`
}

// Ended returns what a process that has ended leaves behind: without what holds
// only while it works.
func (p *Progress) Ended() *Progress {
	ended := *p
	ended.Rate, ended.ETASeconds, ended.Active, ended.MoreActive = Rate{}, nil, nil, 0
	return &ended
}

// Share is a part of a whole.
type Share struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Rate is per second.
type Rate struct {
	Documents float64 `json:"documents"`
	Bytes     float64 `json:"bytes"`
}

// CollectionProgress is one collection's part of a Progress.
type CollectionProgress struct {
	// NS is the name at the source.
	NS         string   `json:"ns"`
	Percent    float64  `json:"percent"`
	Documents  Share    `json:"documents"`
	Bytes      Share    `json:"bytes"`
	Chunks     Share    `json:"chunks"`
	Rate       Rate     `json:"rate"`
	ETASeconds *float64 `json:"eta_seconds"`
}

// IndexBuild is an index build under way at a destination, by whomever.
type IndexBuild struct {
	// NS is the name at the destination.
	NS string `json:"ns"`
	// Step is what the server says that it does, Done and Total are counted in
	// the step's own unit.
	Step  string `json:"step"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// DeferredIndexes are those that wait for `tributary finalize`.
type DeferredIndexes struct {
	Count int64 `json:"count"`
	// Unique and TTL wait because of the destination's rules; Failed could not
	// be built.
	Unique int64 `json:"unique"`
	TTL    int64 `json:"ttl"`
	Failed int64 `json:"failed"`
	// Names are "db.coll index", at most MaxListed, those that failed first.
	Names []string `json:"names,omitempty"`
}

// OpenTransactions are the source's transactions of which capture has read a
// part and not the end. The oldest one holds the place back from which a restart
// reads.
type OpenTransactions struct {
	Count int64 `json:"count"`
	// HeldBytes is the memory that their operations take.
	HeldBytes int64 `json:"held_bytes"`
	// Oldest is the time of the oldest one's first entry, by the source's clock,
	// and AgeSeconds how far that lies behind what was read.
	Oldest     time.Time `json:"oldest,omitzero"`
	AgeSeconds float64   `json:"age_seconds"`
	// Session is the oldest one's session id in hex, empty for a server's own,
	// and Number its number there; Prepared says that it waits for its
	// coordinator's decision.
	Session  string `json:"session,omitempty"`
	Number   int64  `json:"number,omitempty"`
	Prepared bool   `json:"prepared,omitempty"`
}
