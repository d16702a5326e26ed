package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// table is what ran where.
type table struct {
	title string
	cells map[string]map[column]string
	// pending are the reasons of the cases that do not work yet.
	pending map[string]string
}

func newTable(title string) *table {
	return &table{title: title, cells: map[string]map[column]string{}, pending: map[string]string{}}
}

func (t *table) set(name string, c column, text string) {
	if t.cells[name] == nil {
		t.cells[name] = map[column]string{}
	}
	t.cells[name][c] = text
}

func (t *table) failed(name string, c column) bool { return t.cells[name][c] == "FAILED" }

// report prints the table, and what was left out and why.
func (s *suite) report() {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "Conformance, %s\n", s.table.title)
	header := []string{"operation"}
	all := []column{{modeOplog, exactlyOnce}, {modeOplog, atLeastOnce}, {modeStream, exactlyOnce}, {modeStream, atLeastOnce}}
	for _, c := range all {
		header = append(header, c.String())
	}
	row := func(cells []string) {
		fmt.Fprintf(&b, "%-30s %-20s %-20s %-28s %s\n", cells[0], cells[1], cells[2], cells[3], cells[4])
	}
	row(header)
	passed := 0
	for _, name := range slices.Sorted(maps.Keys(s.table.cells)) {
		cells := []string{name}
		for _, c := range all {
			text := s.table.cells[name][c]
			switch text {
			case "ok":
				passed++
			case "":
				text = "-"
			}
			cells = append(cells, text)
		}
		row(cells)
	}
	fmt.Fprintf(&b, "%d cases, %d times equal\n", len(s.table.cells), passed)
	for _, c := range all {
		if reason := s.skipped[c]; reason != "" {
			fmt.Fprintf(&b, "NOT RUN: %s: %s\n", c, reason)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.table.pending)) {
		fmt.Fprintf(&b, "PENDING: %s: %s\n", name, s.table.pending[name])
	}
	fmt.Fprintf(&b, "NOT RUN, since the server is too old: %s\n", strings.Join(newerServers(), ", "))
	var left []string
	for _, o := range operations() {
		if !s.pair.Exact && !o.standin && wanted(o.name) {
			left = append(left, o.name)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(&b, "NOT RUN, since the stand-in cannot do them: %s\n", strings.Join(left, ", "))
	}
	s.t.Log("\n" + b.String())
	if err := appendReport(b.String()); err != nil {
		s.t.Error(err)
	}
}

// appendReport adds text to the file that TRIBUTARY_REPORT names, since go test
// shows nothing of a test that passes.
func appendReport(text string) error {
	path := os.Getenv("TRIBUTARY_REPORT")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open report: %w", err)
	}
	_, err = f.WriteString(text + "\n")
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
