package rules

import (
	"slices"

	"github.com/tributarydb/tributary/internal/event"
)

// Sources returns the source namespaces that the rules write to a target,
// renamed ones first: none where they write nothing there, and two where a
// renamed database and one that keeps its name meet.
func (d Destination) Sources(target event.Namespace) []event.Namespace {
	var list []event.Namespace
	add := func(db string) {
		ns := event.Namespace{DB: db, Coll: target.Coll}
		if to, ok := d.Target(ns); ok && to == target {
			list = append(list, ns)
		}
	}
	if d.Rename != nil {
		var renamed []string
		for from, to := range d.Rename.databases {
			if to == target.DB && from != to {
				renamed = append(renamed, from)
			}
		}
		slices.Sort(renamed)
		for _, from := range renamed {
			add(from)
		}
	}
	add(target.DB)
	return list
}
