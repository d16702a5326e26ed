package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
)

// Rename says what a namespace is called in a destination. It does not change
// after it was compiled; nil keeps every name.
type Rename struct {
	databases map[string]string
}

// CompileRename compiles a map of database names, source to destination. A
// database that is not in it keeps its name. Every fault is in the joined
// error, each as a *RenameError, in the order of the source names.
func CompileRename(databases map[string]string) (*Rename, error) {
	sources := make([]string, 0, len(databases))
	for from := range databases {
		sources = append(sources, from)
	}
	slices.Sort(sources)
	var faults []error
	targets := map[string]string{}
	for _, from := range sources {
		to := databases[from]
		if err := renamable(from, to); err != nil {
			faults = append(faults, &RenameError{From: from, Err: err})
			continue
		}
		if other, ok := targets[to]; ok {
			faults = append(faults, &RenameError{From: from, Err: fmt.Errorf("database %s would take the collections of both %s and %s: give each a name of its own", to, other, from)})
			continue
		}
		targets[to] = from
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &Rename{databases: databases}, nil
}

// RenameError is a renaming that cannot be done.
type RenameError struct {
	From string
	Err  error
}

// Error names the source database and the fault.
func (e *RenameError) Error() string { return fmt.Sprintf("rename database %q: %v", e.From, e.Err) }

// Unwrap returns the fault.
func (e *RenameError) Unwrap() error { return e.Err }

// renamable checks one pair (MongoDB: "Naming Restrictions").
func renamable(from, to string) error {
	for _, name := range []string{from, to} {
		switch {
		case name == "":
			return errors.New("a database name is empty")
		case len(name) > 63:
			return fmt.Errorf("database name %q has %d bytes: MongoDB allows 63", name, len(name))
		case strings.ContainsAny(name, "/\\. \"$*<>:|?\x00"):
			return fmt.Errorf("database name %q has a character that MongoDB does not allow in one", name)
		case Internal(name, "x"):
			return fmt.Errorf("database %s belongs to the server or to Tributary", name)
		}
	}
	return nil
}

// Namespace returns the target of a source namespace.
func (r *Rename) Namespace(ns event.Namespace) event.Namespace {
	if r == nil {
		return ns
	}
	if to, ok := r.databases[ns.DB]; ok {
		ns.DB = to
	}
	return ns
}

// Destination holds the rules of one destination. Two sources may meet in one
// target only where neither is renamed away: see Meets.
type Destination struct {
	// Selection is the pipeline's and the destination's together.
	Selection *Selection
	Rename    *Rename
	// Indexes says what of unique and TTL indexes is kept from the start.
	Indexes IndexPolicy
}

// Target returns the target of a source namespace and whether the destination
// takes it at all.
func (d Destination) Target(ns event.Namespace) (event.Namespace, bool) {
	if !d.Selection.Match(ns.DB, ns.Coll) {
		return event.Namespace{}, false
	}
	return d.Rename.Namespace(ns), true
}

// Collision is a target that two source namespaces share.
type Collision struct {
	Target, First, Second event.Namespace
}

// Error names the three and the remedy.
func (c *Collision) Error() string {
	return fmt.Sprintf("map namespaces: %s and %s would both be written to %s: hint: rename one of the databases to another name, or exclude one", c.First, c.Second, c.Target)
}

// CheckTargets returns a *Collision if two of the source namespaces meet in one
// target, as a renamed database and an unrenamed one of that name do. Names
// that differ in letter case alone meet as well: MongoDB refuses two such
// databases.
func (d Destination) CheckTargets(sources []event.Namespace) error {
	taken := make(map[event.Namespace]event.Namespace, len(sources))
	spelling := make(map[string]event.Namespace, len(sources))
	for _, ns := range sources {
		target, ok := d.Target(ns)
		if !ok {
			continue
		}
		if first, ok := taken[target]; ok && first != ns {
			return &Collision{Target: target, First: first, Second: ns}
		}
		taken[target] = ns
		folded := strings.ToLower(target.DB)
		if first, ok := spelling[folded]; ok && d.Rename.Namespace(first).DB != target.DB {
			return &Collision{Target: target, First: first, Second: ns}
		}
		spelling[folded] = ns
	}
	return nil
}
