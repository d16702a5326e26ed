package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/state"
)

// shownRequests bounds the list of requests for people.
const shownRequests = 10

// requestStatus is a pending request, without its _ids.
type requestStatus struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind"`
	Namespace   string    `json:"namespace"`
	Destination string    `json:"destination,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Asked       time.Time `json:"asked"`
	// Wanted counts the documents of a refresh that are still to come; Documents
	// those of a reload that are published.
	Wanted    int   `json:"wanted,omitempty"`
	Documents int64 `json:"documents,omitempty"`
}

// pendingRequests lists what was asked for, the oldest first.
func pendingRequests(view *state.View) []requestStatus {
	var list []requestStatus
	for _, q := range view.Requests() {
		r := requestStatus{
			ID: q.ID, Kind: q.Kind, Namespace: q.Now.String(), Destination: q.Destination, Reason: q.Reason, Asked: q.Asked, Wanted: len(q.IDs),
		}
		if q.Kind == state.RequestSelect {
			r.Namespace = "" // it is about many
		}
		if q.Reload != nil {
			r.Documents = q.Reload.Documents
		}
		list = append(list, r)
	}
	slices.SortStableFunc(list, func(a, b requestStatus) int { return a.Asked.Compare(b.Asked) })
	return list
}

// writeRequests lists the oldest pending requests and says how many there are,
// and what was refused last.
func (s *pipelineStatus) writeRequests(b *strings.Builder, now time.Time) {
	if n := len(s.Requests); n > 0 {
		fmt.Fprintf(b, "\n%d pending requests\n", n)
		rows := [][]string{{"KIND", "NAMESPACE", "FOR", "DESTINATION", "PROGRESS", "REASON"}}
		for _, r := range s.Requests[:min(n, shownRequests)] {
			progress := fmt.Sprintf("%d documents to come", r.Wanted)
			switch r.Kind {
			case state.RequestReload:
				progress = fmt.Sprintf("%d documents published", r.Documents)
			case state.RequestSelect:
				progress = "waits for a capture with the same select"
			}
			rows = append(rows, []string{r.Kind, dash(r.Namespace), ago(now, r.Asked), dash(r.Destination), progress, dash(r.Reason)})
		}
		writeTable(b, rows)
		if n > shownRequests {
			fmt.Fprintf(b, "and %d more\n", n-shownRequests)
		}
	}
	if n := len(s.Refused); n > 0 {
		last := slices.MaxFunc(s.Refused, func(a, b state.Answer) int { return a.Ended.Compare(b.Ended) })
		fmt.Fprintf(b, "%d requests could not be served, the last %s ago: %s of %s.%s: %s\n", n, ago(now, last.Ended), last.Kind, last.DB, last.Coll, last.Cause)
	}
}

// writeLimits lists what is limited.
func (s *pipelineStatus) writeLimits(b *strings.Builder) {
	limited := slices.DeleteFunc(slices.Clone(s.names), func(name string) bool {
		l := s.Limits[name]
		return l.Unlimited() && l.Configured == nil
	})
	if len(limited) > 0 {
		b.WriteString("\n")
		writeTable(b, limitRows(s.Limits, limited))
	}
}
