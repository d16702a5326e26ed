package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/state"
)

// shownIndexes is how many index builds and deferred indexes the text names of
// a destination; JSON has more of them.
const shownIndexes = 5

// latest returns the newest statuses of snapshot and of apply at each
// destination, in the order of the services. Each process knows of all; those
// that were heard lately know best.
func (s *pipelineStatus) latest() []serviceStatus {
	var list []serviceStatus
	at := map[string]int{}
	for _, v := range s.Services {
		if v.Service == "capture" {
			continue
		}
		key := v.Service + "\x00" + v.Destination
		i, ok := at[key]
		switch {
		case !ok:
			at[key] = len(list)
			list = append(list, v)
		case (v.Progress != nil) == (list[i].Progress != nil) && v.Updated.After(list[i].Updated), v.Progress != nil && list[i].Progress == nil:
			list[i] = v
		}
	}
	// What is read comes before what is loaded.
	var ordered []serviceStatus
	for _, service := range []string{"snapshot", "apply"} {
		for _, v := range list {
			if v.Service == service {
				ordered = append(ordered, v)
			}
		}
	}
	return ordered
}

// writeLoad shows how far the load has come on each side, while it is under way
// anywhere.
func (s *pipelineStatus) writeLoad(b *strings.Builder) {
	rows, under := [][]string{{"LOAD", "PHASE", "DONE", "DOCUMENTS", "BYTES", "CHUNKS", "COLLECTIONS", "NOW", "AVERAGE", "LEFT"}}, false
	for _, v := range s.latest() {
		p := v.Progress
		if p == nil {
			continue
		}
		if v.Silent {
			p = p.Ended() // as far as it came
		}
		under = under || p.Phase != state.LoadDone
		rows = append(rows, []string{
			loadLabel(v.Status), p.Phase, percentText(p.Percent), shareText(p.Documents), byteShareText(p.Bytes), shareText(p.Chunks), shareText(p.Collections),
			dash(rateText(p.Rate)), dash(rateText(p.AverageRate)), dash(leftText(p.ETASeconds)),
		})
		for _, c := range p.Active {
			rows = append(rows, []string{
				"  " + printable(c.NS), "", percentText(c.Percent), shareText(c.Documents), byteShareText(c.Bytes), shareText(c.Chunks), "",
				dash(rateText(c.Rate)), "", dash(leftText(c.ETASeconds)),
			})
		}
		if p.MoreActive > 0 {
			rows = append(rows, []string{fmt.Sprintf("  and %d more collections", p.MoreActive), "", "", "", "", "", "", "", "", ""})
		}
	}
	if under {
		b.WriteString("\n")
		writeTable(b, rows)
	}
}

// writeIndexes shows index builds, and indexes that wait for the operator.
func (s *pipelineStatus) writeIndexes(b *strings.Builder) {
	for _, v := range s.latest() {
		for _, build := range v.Builds[:min(len(v.Builds), shownIndexes)] {
			fmt.Fprintf(b, "%s builds indexes of %s: %s %s\n", loadLabel(v.Status), printable(build.NS), printable(build.Step), shareText(state.Share{Done: build.Done, Total: build.Total}))
		}
		if d := v.Deferred; d != nil {
			names := d.Names[:min(len(d.Names), shownIndexes)]
			more := ""
			if int64(len(names)) < d.Count {
				more = fmt.Sprintf(" and %d more", d.Count-int64(len(names)))
			}
			fmt.Fprintf(b, "%d indexes of %s wait for `tributary finalize` (%d unique, %d TTL, %d that could not be built): %s%s\n",
				d.Count, loadLabel(v.Status), d.Unique, d.TTL, d.Failed, printable(strings.Join(names, ", ")), more)
		}
	}
}

// writeOpen shows what holds capture's position back.
func (s *pipelineStatus) writeOpen(b *strings.Builder) {
	for _, v := range s.Services {
		o := v.Open
		if o == nil || v.Silent {
			continue
		}
		who := "the server's own"
		if o.Session != "" {
			who = fmt.Sprintf("session %s, transaction %d", o.Session, o.Number)
		}
		if o.Prepared {
			who += ", prepared"
		}
		fmt.Fprintf(b, "%d transactions are open at the source, the oldest one since %s (%s): %s; a restart reads from there\n",
			o.Count, o.Oldest.UTC().Format(time.RFC3339), (time.Duration(o.AgeSeconds) * time.Second).String(), who)
	}
}
