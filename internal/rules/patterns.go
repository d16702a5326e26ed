package rules

import "slices"

// Patterns are a selection as it is written.
type Patterns struct {
	Include []string `json:"include,omitempty" bson:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty" bson:"exclude,omitempty"`
}

// Equal reports whether two say the same in another order or with repetitions.
func (p Patterns) Equal(other Patterns) bool {
	same := func(a, b []string) bool {
		sorted := func(list []string) []string {
			list = slices.Clone(list)
			slices.Sort(list)
			return slices.Compact(list)
		}
		return slices.Equal(sorted(a), sorted(b))
	}
	return same(p.Include, other.Include) && same(p.Exclude, other.Exclude)
}

// Layers are selections that must match all, the pipeline's first.
type Layers []Patterns

// Compile returns what all layers match.
func (l Layers) Compile() (*Selection, error) {
	var all *Selection
	for _, p := range l {
		s, err := CompileSelection(p.Include, p.Exclude)
		if err != nil {
			return nil, err
		}
		all = all.And(s)
	}
	return all, nil
}

// And returns layers that match what both match. Neither changes.
func (l Layers) And(other Layers) Layers {
	both := slices.Clone(l)
	for _, p := range other {
		if !slices.ContainsFunc(both, p.Equal) {
			both = append(both, p)
		}
	}
	return both
}

// Equal reports whether two have equal patterns, layer by layer.
func (l Layers) Equal(other Layers) bool { return slices.EqualFunc(l, other, Patterns.Equal) }
