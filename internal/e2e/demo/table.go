package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/verify"
)

// table is the closing table.
func (d *demo) table() string {
	var b strings.Builder
	row := func(name, eu, us string) { fmt.Fprintf(&b, "  %-28s %16s %16s\n", name, eu, us) }
	each := func(of func(name string, r *verify.Result) string) (string, string) {
		return of(renaming, d.report.results[renaming]), of(plain, d.report.results[plain])
	}
	b.WriteByte('\n')
	row("destination", renaming, plain)
	line := func(name string, of func(name string, r *verify.Result) string) {
		eu, us := each(of)
		row(name, eu, us)
	}
	line("collections", func(_ string, r *verify.Result) string { return fmt.Sprint(len(r.Collections)) })
	line("documents compared", func(_ string, r *verify.Result) string { return fmt.Sprint(documents(r)) })
	line("megabytes compared", func(_ string, r *verify.Result) string { return fmt.Sprintf("%.1f", megabytes(r)) })
	line("longest lag while following", func(name string, _ *verify.Result) string {
		return fmt.Sprintf("%.1f s", d.board.maxLag("apply-"+name))
	})
	line("indexes await finalize", func(_ string, r *verify.Result) string { return fmt.Sprint(r.Counts[verify.KindDeferred]) })
	line("differences", func(_ string, r *verify.Result) string { return fmt.Sprint(r.Total()) })
	line("verdict", func(_ string, r *verify.Result) string { return string(r.Verdict) })
	e := d.report.events
	fmt.Fprintf(&b, "\n  %d change events (and %d definitions) in %.0f s of writing: %.0f a second; %d published twice\n",
		e.Data, e.Definitions, d.report.writing.Seconds(), float64(e.Data)/d.report.writing.Seconds(), e.Repeated)
	fmt.Fprintf(&b, "  engines: %s and %s; services killed on the way: %d; all of it took %.0f s\n\n",
		d.servers.Kafka, d.servers.MongoDB, d.report.kills, time.Since(d.screen.started).Seconds())
	for _, name := range []string{renaming, plain} {
		b.WriteString(differences(name, d.report.results[name]))
	}
	return b.String()
}

func documents(r *verify.Result) int64 {
	var n int64
	for _, c := range r.Collections {
		n += c.SourceDocuments
	}
	return n
}

func megabytes(r *verify.Result) float64 {
	var n int64
	for _, c := range r.Collections {
		n += c.Bytes
	}
	return float64(n) / 1e6
}

// differences is the full story of a destination that is not equal.
func differences(name string, r *verify.Result) string {
	if r.Verdict == verify.Equal {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n", name)
	if err := verify.WriteTable(&b, r); err != nil {
		fmt.Fprintf(&b, "%v\n", err)
	}
	return b.String()
}

// addresses tell where everything is, for KEEP=1.
func (d *demo) addresses() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  everything is left running; Ctrl-C ends it and removes %s\n\n", d.dir)
	row := func(name, value string) { fmt.Fprintf(&b, "  %-14s %s\n", name, value) }
	row("source", d.servers.Source)
	for _, name := range []string{renaming, plain} {
		row(name, d.servers.Destinations[name])
	}
	row("kafka", strings.Join(d.servers.Brokers, ","))
	row("configuration", d.fleet.Config())
	for _, m := range d.fleet.Members {
		if m.Running() {
			row(m.Name, "http://"+m.Address+"/status, log "+m.Log())
		}
	}
	fmt.Fprintf(&b, "\n  %s status -config %s\n", d.cfg.binary, d.fleet.Config())
	return b.String()
}
