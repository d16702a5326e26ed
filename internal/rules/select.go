package rules

import (
	"errors"
	"fmt"
	"strings"
)

// wildcard is the pattern part that stands for every name.
const wildcard = "*"

// Selection says which namespaces belong to a pipeline or a destination.
// It does not change after it was compiled and is safe for concurrent use; nil
// selects every namespace that can be selected at all.
type Selection struct {
	include, exclude patterns
	// everything is set where no include pattern was given.
	everything bool
	// also must match too, if set.
	also *Selection
}

// patterns are compiled so that a match costs four look-ups at most, however
// many there are.
type patterns struct {
	exact       map[[2]string]struct{}
	databases   map[string]struct{} // db.*
	collections map[string]struct{} // *.coll
	all         bool                // *.*
}

// CompileSelection compiles patterns over "db.collection": fixed names or "*"
// for a whole part. An empty include selects everything; exclude wins. Every
// faulty pattern is in the joined error, each as a *PatternError.
func CompileSelection(include, exclude []string) (*Selection, error) {
	s := &Selection{everything: len(include) == 0}
	var faults []error
	add := func(list string, to *patterns, from []string) {
		for i, text := range from {
			if err := to.add(text); err != nil {
				faults = append(faults, &PatternError{List: list, Index: i, Pattern: text, Err: err})
			}
		}
	}
	add("include", &s.include, include)
	add("exclude", &s.exclude, exclude)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return s, nil
}

// PatternError is a pattern that cannot be compiled.
type PatternError struct {
	// List is "include" or "exclude", Index the place in it from 0.
	List    string
	Index   int
	Pattern string
	Err     error
}

// Error names the pattern and its fault.
func (e *PatternError) Error() string {
	return fmt.Sprintf("%s[%d] %q: %v", e.List, e.Index, e.Pattern, e.Err)
}

// Unwrap returns the fault.
func (e *PatternError) Unwrap() error { return e.Err }

// And returns a selection of what both match. Neither changes.
func (s *Selection) And(other *Selection) *Selection {
	if s == nil {
		return other
	}
	if other == nil {
		return s
	}
	both := *s
	both.also = s.also.And(other)
	return &both
}

// Match reports whether the namespace is selected. Namespaces that belong to
// the server, to Tributary or to an operation under way never are.
func (s *Selection) Match(db, coll string) bool {
	if Internal(db, coll) {
		return false
	}
	return s.match(db, coll)
}

func (s *Selection) match(db, coll string) bool {
	if s == nil {
		return true
	}
	if !s.everything && !s.include.match(db, coll) || s.exclude.match(db, coll) {
		return false
	}
	return s.also.match(db, coll)
}

// Internal reports whether a namespace can never be selected: admin, local,
// config, Tributary's own database, system collections, and the temporary
// collections of renames across databases and of convertToCapped.
func Internal(db, coll string) bool {
	switch db {
	case "admin", "local", "config", "tributary":
		return true
	}
	return coll == "" || strings.HasPrefix(coll, "system.") || temporary(coll)
}

// temporary recognises tmp<letters and digits>.renameCollection and
// tmp<letters and digits>.convertToCapped.<name>.
func temporary(coll string) bool {
	rest, ok := strings.CutPrefix(coll, "tmp")
	if !ok {
		return false
	}
	unique, what, ok := strings.Cut(rest, ".")
	if !ok || strings.ContainsFunc(unique, notAlphanumeric) {
		return false
	}
	return what == "renameCollection" || strings.HasPrefix(what, "convertToCapped.")
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

func (p *patterns) add(text string) error {
	db, coll, ok := strings.Cut(text, ".")
	switch {
	case !ok || db == "" || coll == "":
		return errors.New("want database.collection, where either part may be *")
	case db != wildcard && strings.Contains(db, wildcard), coll != wildcard && strings.Contains(coll, wildcard):
		return errors.New("* stands for a whole part: write database.*, *.collection or *.*")
	case db != wildcard && Internal(db, "x"):
		return fmt.Errorf("database %s can never be selected", db)
	case coll != wildcard && Internal("x", coll):
		return fmt.Errorf("collection %s can never be selected", coll)
	}
	switch {
	case db == wildcard && coll == wildcard:
		p.all = true
	case coll == wildcard:
		p.databases = with(p.databases, db)
	case db == wildcard:
		p.collections = with(p.collections, coll)
	default:
		p.exact = with(p.exact, [2]string{db, coll})
	}
	return nil
}

func (p *patterns) match(db, coll string) bool {
	if p.all {
		return true
	}
	if _, ok := p.databases[db]; ok {
		return true
	}
	if _, ok := p.collections[coll]; ok {
		return true
	}
	_, ok := p.exact[[2]string{db, coll}]
	return ok
}

func with[K comparable](set map[K]struct{}, key K) map[K]struct{} {
	if set == nil {
		set = map[K]struct{}{}
	}
	set[key] = struct{}{}
	return set
}
