package verify

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Verdict is the outcome in one word.
type Verdict string

// The verdicts.
const (
	// Equal says that nothing differs but what is deferred.
	Equal Verdict = "equal"
	// Different says that something does.
	Different Verdict = "different"
	// Unknown says that it could not be told; Result.Cause says why.
	Unknown Verdict = "unknown"
)

// ExitCode is the process exit code of a verdict: 0 equal, 1 different, 2 could
// not tell.
func (v Verdict) ExitCode() int {
	switch v {
	case Equal:
		return 0
	case Different:
		return 1
	case Unknown:
		return 2
	}
	return 2
}

// Kind sorts differences.
type Kind string

// The kinds of differences.
const (
	// KindMissing is a document that the source alone holds.
	KindMissing Kind = "missing"
	// KindExtra is a document that the destination alone holds.
	KindExtra Kind = "extra"
	// KindDifferent is a document whose bytes differ.
	KindDifferent Kind = "different"
	// KindOptions is a collection or view with other options.
	KindOptions Kind = "options"
	// KindIndexes is an index that is missing, extra or defined otherwise.
	KindIndexes Kind = "indexes"
	// KindCollectionMissing is a collection that the source alone has.
	KindCollectionMissing Kind = "collection_missing"
	// KindCollectionExtra is a collection that the destination alone has.
	KindCollectionExtra Kind = "collection_extra"
	// KindDeferred is an index that the destination has built without its
	// unique or expiring property, or not yet, and keeps on record for the
	// operator. It does not make a pair different.
	KindDeferred Kind = "deferred"
)

// kinds are all of them, in the order of tables.
func kinds() []Kind {
	return []Kind{
		KindMissing, KindExtra, KindDifferent, KindOptions, KindIndexes,
		KindCollectionMissing, KindCollectionExtra, KindDeferred,
	}
}

// Difference is one of them. It holds no part of a document but the _id.
type Difference struct {
	Kind Kind `json:"kind"`
	// Source and Target are namespaces; Source is empty where the source has
	// none.
	Source string `json:"source,omitempty"`
	Target string `json:"target"`
	// ID is {"_id": …} in canonical Extended JSON, for documents.
	ID json.RawMessage `json:"id,omitempty"`
	// Detail names what differs: option names, an index and its fields.
	Detail string `json:"detail,omitempty"`
}

// Collection is one compared pair.
type Collection struct {
	Source string `json:"source"`
	Target string `json:"target"`
	View   bool   `json:"view,omitempty"`
	// SourceDocuments and TargetDocuments are counted by aggregation.
	SourceDocuments int64 `json:"source_documents"`
	TargetDocuments int64 `json:"target_documents"`
	// Bytes is the size of the source's documents, uncompressed.
	Bytes int64 `json:"bytes"`
	// Differences counts those of this pair, deferred ones left out.
	Differences int64 `json:"differences"`
}

// ClusterTime is a cluster time in JSON.
type ClusterTime struct {
	T uint32 `json:"t"`
	I uint32 `json:"i"`
}

// Result is what a verification found.
type Result struct {
	Verdict     Verdict `json:"verdict"`
	Cause       string  `json:"cause,omitempty"`
	Pipeline    string  `json:"pipeline"`
	Destination string  `json:"destination"`
	// Through is the source's cluster time that the destination had passed.
	Through     ClusterTime    `json:"through"`
	Collections []Collection   `json:"collections"`
	Counts      map[Kind]int64 `json:"counts"`
	// Differences lists up to Config.Listed of each kind.
	Differences []Difference `json:"differences"`
	Seconds     float64      `json:"seconds"`
}

// Total is the number of differences, deferred ones left out.
func (r *Result) Total() int64 {
	var n int64
	for kind, count := range r.Counts {
		if kind != KindDeferred {
			n += count
		}
	}
	return n
}

// collector gathers differences from several goroutines.
type collector struct {
	limit int

	mu     sync.Mutex
	counts map[Kind]int64
	listed []Difference
	perKey map[string]int64
}

func newCollector(limit int) *collector {
	return &collector{limit: limit, counts: map[Kind]int64{}, perKey: map[string]int64{}}
}

// add counts d and lists it while there is room for its kind.
func (c *collector) add(d Difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[d.Kind]++
	if d.Kind != KindDeferred {
		c.perKey[d.Target]++
	}
	if c.counts[d.Kind] <= int64(c.limit) {
		c.listed = append(c.listed, d)
	}
}

// addDocument is add for a document of a pair.
func (c *collector) addDocument(kind Kind, p *pair, id bson.RawValue) error {
	text, err := bson.MarshalExtJSON(bson.D{{Key: "_id", Value: id}}, true, false)
	if err != nil {
		return fmt.Errorf("write _id of ns=%s as extended JSON: %w", p.source.NS, err)
	}
	c.add(Difference{Kind: kind, Source: p.source.NS.String(), Target: p.target.String(), ID: text})
	return nil
}

// fill completes a result with what was gathered, in a stable order.
func (c *collector) fill(r *Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.listed, func(a, b Difference) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds(), a.Kind), slices.Index(kinds(), b.Kind)),
			cmp.Compare(a.Target, b.Target),
			cmp.Compare(a.Detail, b.Detail),
			cmp.Compare(string(a.ID), string(b.ID)),
		)
	})
	r.Counts = c.counts
	r.Differences = c.listed
	for i := range r.Collections {
		r.Collections[i].Differences = c.perKey[r.Collections[i].Target]
	}
}
