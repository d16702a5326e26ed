package event

import (
	"fmt"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const rootNode = 0

// pathTree gathers paths into the tree of an ordered delta. Nodes refer to
// each other by place, 0 being none, so that a tree is one allocation.
type pathTree struct {
	nodes []pathNode
	// index finds children once the tree is too large to search.
	index map[childKey]int
	// paths gives the parts of those paths for which a source says them.
	paths map[string][]byte
	// size bounds the encoded size from above, for one allocation.
	size int
}

type pathNode struct {
	name        string
	op          byte
	kind        byte
	typ         bson.Type
	value       []byte
	length      int32
	depth       int
	first, last int
	next        int
}

type childKey struct {
	parent int
	name   string
}

// smallTree is up to how many nodes children are searched one by one.
const smallTree = 16

func newPathTree() *pathTree {
	t := &pathTree{nodes: make([]pathNode, 1, smallTree)}
	t.nodes[rootNode] = pathNode{op: opInside, length: -1}
	return t
}

// child returns the place of a child, or 0.
func (t *pathTree) child(parent int, name string) int {
	// Paths come grouped, so that it is mostly the last.
	if last := t.nodes[parent].last; last != 0 && t.nodes[last].name == name {
		return last
	}
	if len(t.nodes) > smallTree {
		t.buildIndex()
		return t.index[childKey{parent, name}]
	}
	for i := t.nodes[parent].first; i != 0; i = t.nodes[i].next {
		if t.nodes[i].name == name {
			return i
		}
	}
	return 0
}

func (t *pathTree) buildIndex() {
	if t.index != nil {
		return
	}
	t.index = make(map[childKey]int, 2*len(t.nodes))
	for parent := range t.nodes {
		for i := t.nodes[parent].first; i != 0; i = t.nodes[i].next {
			t.index[childKey{parent, t.nodes[i].name}] = i
		}
	}
}

// add appends a child and returns its place.
func (t *pathTree) add(parent int, n pathNode) (int, error) {
	n.depth = t.nodes[parent].depth + 1
	if n.depth > rawbson.MaxDepth {
		return 0, fmt.Errorf("%w: nested deeper than %d", ErrDeltaInvalid, rawbson.MaxDepth)
	}
	const nodeOverhead = 16
	t.size += len(n.name) + len(n.value) + nodeOverhead
	at := len(t.nodes)
	t.nodes = append(t.nodes, n)
	p := &t.nodes[parent]
	if p.first == 0 {
		p.first = at
	} else {
		t.nodes[p.last].next = at
	}
	p.last = at
	if t.index != nil {
		t.index[childKey{parent, n.name}] = at
	}
	return at, nil
}

// enter returns the place of a node that leads on, made if it is not there.
func (t *pathTree) enter(parent int, name string, kind byte) (int, error) {
	if i := t.child(parent, name); i != 0 {
		if t.nodes[i].op != opInside || !t.sameKind(i, kind) {
			return 0, contradiction(name)
		}
		return i, nil
	}
	return t.add(parent, pathNode{name: name, op: opInside, kind: kind, length: -1})
}

// addLeaf adds the end of a path: a set, an unset, or an array's new length.
func (t *pathTree) addLeaf(parent int, leaf pathNode) error {
	if leaf.op != opInside {
		leaf.length = -1
	}
	i := t.child(parent, leaf.name)
	if i == 0 {
		_, err := t.add(parent, leaf)
		return err
	}
	n := &t.nodes[i]
	if leaf.op != opInside || n.op != opInside || n.length >= 0 || !t.sameKind(i, leaf.kind) {
		return contradiction(leaf.name)
	}
	n.length = leaf.length
	return nil
}

// sameKind reconciles the kind of a node with what another path says of it:
// one path may be given in parts, which are certain, and another not.
func (t *pathTree) sameKind(i int, kind byte) bool {
	n := &t.nodes[i]
	if n.kind == kindEither {
		n.kind = kind
	}
	return n.kind == kind || kind == kindEither
}

func contradiction(name string) error {
	return &pathError{path: []string{name}, what: "two changes meet in one path", err: ErrDeltaAmbiguous}
}
