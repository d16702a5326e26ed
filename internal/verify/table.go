package verify

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes a result for a person: one line for each collection, the
// listed differences, and the verdict last.
func WriteTable(w io.Writer, r *Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p := printer{w: tw}
	p.printf("SOURCE\tDESTINATION\tDOCUMENTS\tBYTES\tDIFFERENCES\n")
	for _, c := range r.Collections {
		documents := fmt.Sprint(c.SourceDocuments)
		switch {
		case c.View:
			documents = "view"
		case c.SourceDocuments != c.TargetDocuments:
			documents = fmt.Sprintf("%d / %d", c.SourceDocuments, c.TargetDocuments)
		}
		p.printf("%s\t%s\t%s\t%d\t%d\n", c.Source, c.Target, documents, c.Bytes, c.Differences)
	}
	rest := printer{w: w, err: errors.Join(p.err, tw.Flush())}
	rest.differences(r)
	rest.printf("%s\n", r.summary())
	if rest.err != nil {
		return fmt.Errorf("write result: %w", rest.err)
	}
	return nil
}

// printer writes until the first error, which it keeps.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// differences lists differences by kind and says how many are left out.
func (p *printer) differences(r *Result) {
	for _, kind := range kinds() {
		if r.Counts[kind] == 0 {
			continue
		}
		p.printf("\n%s: %d\n", kind, r.Counts[kind])
		var listed int64
		for _, d := range r.Differences {
			if d.Kind == kind {
				listed++
				p.printf("  %s%s%s\n", d.Target, separated(string(d.ID)), separated(d.Detail))
			}
		}
		if rest := r.Counts[kind] - listed; rest > 0 {
			p.printf("  and %d more\n", rest)
		}
	}
}

func separated(s string) string {
	if s == "" {
		return ""
	}
	return "  " + s
}

// summary is the verdict in a sentence.
func (r *Result) summary() string {
	var documents int64
	for _, c := range r.Collections {
		documents += c.SourceDocuments
	}
	switch r.Verdict {
	case Equal:
		s := fmt.Sprintf("\nequal: %d documents in %d collections, in %.1f s", documents, len(r.Collections), r.Seconds)
		if n := r.Counts[KindDeferred]; n > 0 {
			s += fmt.Sprintf("; %d indexes wait for finalize", n)
		}
		return s
	case Different:
		return fmt.Sprintf("\ndifferent: %d differences", r.Total())
	case Unknown:
	}
	return fmt.Sprintf("\ncould not tell: %s", r.Cause)
}
