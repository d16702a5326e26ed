package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the file.
type Fault struct {
	// Line counts from 1; 0 where the fault has no place.
	Line int
	// Path names the place, as destinations[1].uri; empty for the file.
	Path    string
	Message string
	// Hint says what to do; may be empty.
	Hint string
}

// String is one line.
func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(": hint: " + f.Hint)
	}
	return b.String()
}

// FaultsError is everything that is wrong with a file.
type FaultsError struct {
	// File is its path.
	File   string
	Faults []Fault
}

// Error has a line for every fault, in the order of the file.
func (e *FaultsError) Error() string {
	if len(e.Faults) == 1 {
		return fmt.Sprintf("read configuration %s: %s", e.File, e.Faults[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "read configuration %s: %d faults", e.File, len(e.Faults))
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// report collects faults and remembers where things are in the file.
type report struct {
	faults []Fault
	lines  map[string]int
}

// add reports a fault at a path; what is not in the file gets the line of the
// nearest part of its path that is.
func (r *report) add(path, message, hint string) {
	r.faults = append(r.faults, Fault{Line: r.line(path), Path: path, Message: message, Hint: hint})
}

func (r *report) line(path string) int {
	for path != "" {
		if line, ok := r.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// faultAt reports whether something is already wrong at a path, above it or
// below it, so that one mistake gives one message.
func (r *report) faultAt(path string) bool {
	return slices.ContainsFunc(r.faults, func(f Fault) bool { return within(f.Path, path) || within(path, f.Path) })
}

// within reports whether path is outer or a part of it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (r *report) err(file string) error {
	if len(r.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return &FaultsError{File: file, Faults: r.faults}
}
