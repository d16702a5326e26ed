package event

import (
	"cmp"
	"slices"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// array appends an array with a node's changes.
func (o *orderedApplier) array(array, node []byte, depth int) error {
	body, err := rawbson.Body(array)
	if err != nil {
		return err
	}
	base := len(o.changes)
	length, err := o.pushNode(node, depth)
	if err != nil {
		return err
	}
	places, err := o.positions(base)
	if err != nil {
		return err
	}
	w := o.beginArray()
	for len(body) > 0 && (length < 0 || w.next < length) {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			return err
		}
		body = rest
		if len(places) == 0 || places[0].position != w.next {
			if err := w.keep(&e); err != nil {
				return err
			}
			continue
		}
		if err := o.element(&w, &e, o.changes[places[0].change], depth); err != nil {
			return err
		}
		places = places[1:]
	}
	for _, p := range places {
		if err := o.extend(&w, p.position, o.changes[p.change], depth); err != nil {
			return err
		}
	}
	for w.next < length {
		if err := w.keep(nil); err != nil {
			return err
		}
	}
	w.end()
	o.changes = o.changes[:base]
	return nil
}

// place is where in an array a change of the stack belongs.
type place struct{ position, change int }

// positions returns the changes above base by ascending position. The order of
// the source matters where two of its paths name one position ("2" and "02"):
// of two that are set the later one stays. Otherwise padding makes the same of
// each order.
func (o *orderedApplier) positions(base int) ([]place, error) {
	places := make([]place, 0, len(o.changes)-base)
	for i := base; i < len(o.changes); i++ {
		c := &o.changes[i]
		n, ok := parsePosition(c.name)
		if c.kind == kindField || !ok {
			if c.op == opUnset {
				continue
			}
			if err := o.misfit(c.name, "want a document, the document holds an array"); err != nil {
				return nil, err
			}
			continue
		}
		places = append(places, place{position: n, change: i})
	}
	byPosition := func(x, y place) int { return cmp.Compare(x.position, y.position) }
	if !slices.IsSortedFunc(places, byPosition) {
		slices.SortStableFunc(places, byPosition)
	}
	last := places[:0]
	for i, p := range places {
		if i == 0 || p.position != last[len(last)-1].position {
			last = append(last, p)
			continue
		}
		before, now := &o.changes[last[len(last)-1].change], &o.changes[p.change]
		if before.op != opSet || now.op != opSet {
			return nil, &pathError{path: []string{string(now.name)}, what: "two changes of one position", err: ErrDeltaAmbiguous}
		}
		last[len(last)-1] = p
	}
	return last, nil
}

// element appends the array's element e with a change made to it.
func (o *orderedApplier) element(w *arrayWriter, e *rawbson.Element, c change, depth int) error {
	switch c.op {
	case opSet:
		return w.put(c.elem.Type, c.elem.Value)
	case opUnset:
		return w.put(bson.TypeNull, nil)
	}
	if err := o.inside(e, w.name(), c.elem.Value, depth); err != nil {
		return under(w.name(), err)
	}
	w.next++
	return nil
}

// extend makes a change past the end of an array.
func (o *orderedApplier) extend(w *arrayWriter, position int, c change, depth int) error {
	if c.op == opUnset {
		return nil
	}
	if c.op == opInside {
		sets, err := nodeSets(c.elem.Value, 0)
		if err != nil || !sets {
			return err
		}
		if o.rule == ruleUncertain {
			return &pathError{path: []string{string(c.name)}, what: "the array is shorter", err: ErrDeltaAmbiguous}
		}
	}
	for w.next < position {
		if err := w.keep(nil); err != nil {
			return err
		}
	}
	if c.op == opSet {
		return w.put(c.elem.Type, c.elem.Value)
	}
	o.dst = rawbson.AppendHeader(o.dst, bson.TypeEmbeddedDocument, w.name())
	if err := o.document(emptyDocument(), c.elem.Value, depth+1); err != nil {
		return under(w.name(), err)
	}
	w.next++
	return nil
}
