package apply

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// generator makes random documents and random updates of them.
type generator struct{ *rand.Rand }

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

// name is a field's name; below the top level it may be one that paths cannot
// say.
func (g generator) name(depth int) string {
	if depth > 0 && g.IntN(25) == 0 {
		return g.pick("", "a.b", "c.", ".d", "$e", "$set", "0.1")
	}
	return g.pick("a", "b", "c", "d", "e", "0", "1", "02", "ü", "s1", "u", "long name with blanks")
}

// document makes a document without duplicate names.
func (g generator) document(depth int) bson.D {
	d := bson.D{}
	taken := map[string]bool{"_id": true}
	for range g.IntN(7 - min(depth, 5)) {
		name := g.name(depth)
		if taken[name] {
			continue
		}
		taken[name] = true
		d = append(d, bson.E{Key: name, Value: g.value(depth + 1)})
	}
	return d
}

func (g generator) array(depth int) bson.A {
	a := bson.A{}
	same := g.IntN(3) // arrays of one kind are what most operators want
	for range g.IntN(6) {
		switch {
		case same == 0:
			a = append(a, g.number())
		case same == 1 && depth < 4:
			a = append(a, g.document(depth+1))
		default:
			a = append(a, g.value(depth+1))
		}
	}
	return a
}

func (g generator) number() any {
	switch g.IntN(6) {
	case 0:
		return int64(g.IntN(9))
	case 1:
		return float64(g.IntN(9)) / 2
	case 2:
		return bson.NewDecimal128(0x3040000000000000, uint64(g.IntN(9)))
	case 3:
		return []any{math.NaN(), math.Inf(1), math.Copysign(0, -1), int64(math.MaxInt64), int32(math.MinInt32)}[g.IntN(5)]
	}
	return int32(g.IntN(9))
}

// value makes a value of any type that a server stores.
func (g generator) value(depth int) any {
	switch n := g.IntN(24); {
	case n < 4 && depth < 5:
		return g.document(depth)
	case n < 9 && depth < 5:
		return g.array(depth)
	case n < 13:
		return g.number()
	case n < 16:
		return strings.Repeat(g.pick("x", "ab", "é", ""), g.IntN(5))
	}
	return g.rare()
}

func (g generator) rare() any {
	switch g.IntN(15) {
	case 0:
		return g.IntN(2) == 0
	case 1:
		return nil
	case 2:
		return bson.DateTime(g.IntN(1 << 40))
	case 3:
		return bson.Timestamp{T: uint32(g.IntN(3)), I: uint32(g.IntN(2))}
	case 4:
		return bson.Timestamp{}
	case 5:
		return bson.Binary{Subtype: byte(g.IntN(7)), Data: []byte(strings.Repeat("q", g.IntN(3)*8))}
	case 6:
		return bson.Regex{Pattern: "^a", Options: "i"}
	case 7:
		return bson.MinKey{}
	case 8:
		return bson.MaxKey{}
	case 9:
		return bson.Undefined{}
	case 10:
		return bson.Symbol("sym")
	case 11:
		return bson.JavaScript("f()")
	case 12:
		return bson.CodeWithScope{Code: "g()", Scope: bson.D{{Key: "x", Value: 1}}}
	case 13:
		return bson.DBPointer{DB: "db.c", Pointer: bson.ObjectID{1}}
	}
	return bson.ObjectID{byte(g.IntN(3))}
}

// place is a path of a document and what is there.
type heldPath struct {
	path  string
	value bson.RawValue
}

// pathsOf lists the paths that a document holds and that paths can say.
func pathsOf(doc bson.Raw, prefix string, list []heldPath) []heldPath {
	elements, err := doc.Elements()
	if err != nil {
		return list
	}
	for _, e := range elements {
		name := e.Key()
		if !sayable([]byte(name)) || prefix == "" && name == "_id" {
			continue
		}
		v := e.Value()
		list = append(list, heldPath{prefix + name, v})
		switch v.Type {
		case bson.TypeEmbeddedDocument, bson.TypeArray:
			list = pathsOf(v.Value, prefix+name+".", list)
		default:
		}
	}
	return list
}

// update is one statement of an update command.
func (g generator) update(doc bson.Raw) bson.D {
	paths := pathsOf(doc, "", nil)
	q := bson.D{{Key: "_id", Value: doc.Lookup("_id")}}
	if g.IntN(5) == 0 {
		return bson.D{{Key: "q", Value: q}, {Key: "u", Value: g.pipeline(paths)}}
	}
	if g.IntN(8) == 0 {
		if u, filters, extra, ok := g.positional(paths); ok {
			return bson.D{{Key: "q", Value: append(q, extra...)}, {Key: "u", Value: u}, {Key: "arrayFilters", Value: filters}}
		}
	}
	return bson.D{{Key: "q", Value: q}, {Key: "u", Value: g.operators(paths)}}
}

// somePath is mostly one that the document holds, or one beside or below it.
func (g generator) somePath(paths []heldPath) (path string, held bson.RawValue) {
	if len(paths) == 0 || g.IntN(6) == 0 {
		path = g.pick("a", "b", "c", "d", "e", "0", "new", "ü")
		for g.IntN(3) == 0 {
			path += "." + g.pick("a", "0", "1", "2", "b", "02")
		}
		return path, bson.RawValue{}
	}
	p := paths[g.IntN(len(paths))]
	switch {
	case p.value.Type == bson.TypeArray && g.IntN(3) == 0:
		return fmt.Sprint(p.path, ".", g.IntN(8)), bson.RawValue{}
	case p.value.Type == bson.TypeEmbeddedDocument && g.IntN(3) == 0:
		return p.path + "." + g.pick("a", "z", "y", "0", "x"), bson.RawValue{}
	}
	return p.path, p.value
}

// operators makes an update of one to three paths, none of which contains
// another.
func (g generator) operators(paths []heldPath) bson.D {
	var u bson.D
	var used []string
	for range 1 + g.IntN(4) {
		path, held := g.somePath(paths)
		if slices.ContainsFunc(used, func(other string) bool {
			return strings.HasPrefix(path+".", other+".") || strings.HasPrefix(other+".", path+".")
		}) {
			continue
		}
		used = append(used, path)
		op, value := g.operator(path, held, &used)
		i := slices.IndexFunc(u, func(e bson.E) bool { return e.Key == op })
		if i < 0 {
			u = append(u, bson.E{Key: op, Value: bson.D{}})
			i = len(u) - 1
		}
		fields, _ := u[i].Value.(bson.D)
		u[i].Value = append(fields, bson.E{Key: path, Value: value})
	}
	return u
}

func (g generator) operator(path string, held bson.RawValue, used *[]string) (op string, value any) {
	n := g.IntN(10)
	switch {
	case n < 2:
		return "$set", g.value(2)
	case n == 2:
		return "$unset", ""
	case n == 3:
		to := g.pick("r1", "r2", "a", "b.r3", "c.d")
		if !slices.Contains(*used, to) && !strings.HasPrefix(path+".", to+".") && !strings.HasPrefix(to+".", path+".") {
			*used = append(*used, to)
			return "$rename", to
		}
	case held.Type == bson.TypeArray:
		return g.arrayOperator(held)
	case held.IsNumber():
		switch g.IntN(5) {
		case 0:
			return "$inc", g.number()
		case 1:
			return "$mul", g.number()
		case 2:
			return "$min", g.number()
		case 3:
			return "$max", g.number()
		}
		return "$bit", bson.D{{Key: g.pick("and", "or", "xor"), Value: int32(g.IntN(9))}}
	}
	switch g.IntN(6) {
	case 0:
		return "$currentDate", bson.D{{Key: "$type", Value: g.pick("date", "timestamp")}}
	case 1:
		return g.pick("$min", "$max"), g.value(3)
	case 2:
		return g.arrayOperator(held)
	case 3:
		return g.pick("$inc", "$mul"), g.number()
	}
	return "$set", g.value(2)
}

func (g generator) arrayOperator(held bson.RawValue) (op string, value any) {
	var values []bson.RawValue
	if list, ok := held.ArrayOK(); ok {
		values, _ = list.Values()
	}
	some := func() any {
		if len(values) > 0 && g.IntN(2) == 0 {
			return values[g.IntN(len(values))]
		}
		return g.value(3)
	}
	switch g.IntN(9) {
	case 0:
		return "$pop", []int32{-1, 1}[g.IntN(2)]
	case 1:
		return "$pullAll", bson.A{some(), some()}
	case 2:
		return "$pull", []any{bson.D{{Key: "$gt", Value: g.number()}}, bson.D{{Key: "a", Value: g.number()}}, bson.D{{Key: "$exists", Value: true}}, some()}[g.IntN(4)]
	case 3:
		return "$addToSet", bson.D{{Key: "$each", Value: bson.A{some(), some()}}}
	case 4:
		return "$addToSet", some()
	case 5:
		return "$push", some()
	}
	push := bson.D{{Key: "$each", Value: bson.A{some(), some(), some()}[:g.IntN(4)]}}
	if g.IntN(2) == 0 {
		push = append(push, bson.E{Key: "$position", Value: g.IntN(9) - 4})
	}
	if g.IntN(2) == 0 {
		push = append(push, bson.E{Key: "$slice", Value: g.IntN(9) - 4})
	}
	if g.IntN(2) == 0 {
		push = append(push, bson.E{Key: "$sort", Value: []any{1, -1, bson.D{{Key: "a", Value: 1}, {Key: "b", Value: -1}}}[g.IntN(3)]})
	}
	return "$push", push
}

// positional makes an update through $, $[] or array filters.
func (g generator) positional(paths []heldPath) (u bson.D, filters bson.A, extra bson.D, ok bool) {
	arrays := slices.DeleteFunc(slices.Clone(paths), func(p heldPath) bool { return p.value.Type != bson.TypeArray })
	if len(arrays) == 0 {
		return nil, nil, nil, false
	}
	p := arrays[g.IntN(len(arrays))]
	op, value := "$set", g.value(3)
	if g.IntN(3) == 0 {
		op, value = "$inc", g.number()
	}
	below := g.pick("", ".a", ".n.m", ".0")
	switch g.IntN(3) {
	case 0:
		extra = bson.D{{Key: p.path, Value: bson.D{{Key: "$exists", Value: true}}}, {Key: p.path, Value: bson.D{{Key: "$gte", Value: 1}}}}
		return bson.D{{Key: op, Value: bson.D{{Key: p.path + ".$" + below, Value: value}}}}, bson.A{}, extra, true
	case 1:
		return bson.D{{Key: op, Value: bson.D{{Key: p.path + ".$[]" + below, Value: value}}}}, bson.A{}, nil, true
	}
	filters = bson.A{bson.D{{Key: "x", Value: bson.D{{Key: "$gte", Value: g.IntN(5)}}}}}
	if below != "" {
		filters = bson.A{bson.D{{Key: "x" + below, Value: bson.D{{Key: "$exists", Value: g.IntN(2) == 0}}}}}
	}
	return bson.D{{Key: op, Value: bson.D{{Key: p.path + ".$[x]" + below, Value: value}}}}, filters, nil, true
}

func (g generator) pipeline(paths []heldPath) bson.A {
	var stages bson.A
	for range 1 + g.IntN(2) {
		path, _ := g.somePath(paths)
		other, _ := g.somePath(paths)
		stage := bson.D{{Key: "$set", Value: bson.D{{Key: path, Value: g.expression(other)}}}}
		switch g.IntN(6) {
		case 0:
			stage = bson.D{{Key: "$unset", Value: bson.A{path}}}
		case 1:
			stage = bson.D{{Key: "$replaceWith", Value: bson.D{{Key: "$mergeObjects", Value: bson.A{
				bson.D{{Key: g.pick("a", "m", "z"), Value: g.expression(other)}}, "$$ROOT", bson.D{{Key: "w", Value: bson.D{{Key: "$literal", Value: g.value(3)}}}},
			}}}}}
		case 2:
			stage = bson.D{{Key: "$project", Value: bson.D{{Key: path, Value: 0}}}}
		case 3:
			stage = bson.D{{Key: "$replaceWith", Value: bson.D{{Key: "_id", Value: "$_id"}, {Key: "whole", Value: "$$ROOT.a"}, {Key: "b", Value: "$b"}}}}
		}
		stages = append(stages, stage)
	}
	return stages
}

func (g generator) expression(path string) any {
	switch g.IntN(4) {
	case 0:
		return "$" + path
	case 1:
		return bson.D{{Key: "$ifNull", Value: bson.A{"$" + path, time.UnixMilli(int64(g.IntN(1000)))}}}
	case 2:
		return bson.D{{Key: "$concatArrays", Value: bson.A{bson.A{1, 2}, bson.D{{Key: "$cond", Value: bson.A{bson.D{{Key: "$isArray", Value: "$" + path}}, "$" + path, bson.A{}}}}}}}
	}
	return bson.D{{Key: "$literal", Value: g.value(2)}}
}

// diffOf is the diff by which newer servers would log the change of one document
// or array into another; ok is false when there is none. Fields that stand where
// they stood, in order, are changed in place, all others go to the end.
func diffOf(before, after bson.Raw) (diff bson.Raw, changed bool) {
	old, _ := before.Elements()
	now, _ := after.Elements()
	names := map[string]bool{}
	for _, e := range now {
		names[e.Key()] = true
	}
	var removed, updated, added, inside []byte
	p := 0
	for _, e := range old {
		if p >= len(now) || now[p].Key() != e.Key() {
			if !names[e.Key()] {
				removed = rawbson.AppendValue(removed, bson.TypeBoolean, e.Key(), []byte{0})
			}
			continue
		}
		v, w := e.Value(), now[p].Value()
		p++
		if sameBytes(v, w) {
			continue
		}
		if sub, ok := diffInside(v, w); ok {
			inside = rawbson.AppendValue(inside, bson.TypeEmbeddedDocument, "s"+e.Key(), sub)
			continue
		}
		updated = rawbson.AppendValue(updated, w.Type, e.Key(), w.Value)
	}
	for _, e := range now[p:] {
		v := e.Value()
		added = rawbson.AppendValue(added, v.Type, e.Key(), v.Value)
	}
	dst, at := rawbson.Begin(nil)
	for _, part := range []struct {
		name string
		body []byte
	}{{"d", removed}, {"u", updated}, {"i", added}} {
		if part.body != nil {
			dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, part.name)
			var inner int
			dst, inner = rawbson.Begin(dst)
			dst = rawbson.End(append(dst, part.body...), inner)
		}
	}
	dst = append(dst, inside...)
	return rawbson.End(dst, at), removed != nil || updated != nil || added != nil || inside != nil
}

// diffInside is the sub-diff of two values that are both documents or both
// arrays.
func diffInside(v, w bson.RawValue) (bson.Raw, bool) {
	switch {
	case v.Type == bson.TypeEmbeddedDocument && w.Type == v.Type:
		return diffOf(v.Value, w.Value)
	case v.Type == bson.TypeArray && w.Type == v.Type:
		return diffArrays(v.Array(), w.Array())
	}
	return nil, false
}

func diffArrays(before, after bson.RawArray) (bson.Raw, bool) {
	old, _ := before.Values()
	now, _ := after.Values()
	dst, at := rawbson.Begin(nil)
	dst = appendTrue(dst, "a")
	if len(now) < len(old) {
		dst = rawbson.AppendInt32(dst, "l", int32(len(now)))
	}
	for i, w := range now {
		if i < len(old) {
			if sameBytes(old[i], w) {
				continue
			}
			if sub, ok := diffInside(old[i], w); ok {
				dst = rawbson.AppendValue(dst, bson.TypeEmbeddedDocument, fmt.Sprint("s", i), sub)
				continue
			}
		}
		dst = rawbson.AppendValue(dst, w.Type, fmt.Sprint("u", i), w.Value)
	}
	return rawbson.End(dst, at), true
}

// asDiff is the update event of a change, by a diff; ok is false where the _id
// changed its spelling or its place, which only an image can say.
func asDiff(ns event.Namespace, before, after bson.Raw) (event.Event, bool, error) {
	if !sameBytes(before.Lookup("_id"), after.Lookup("_id")) {
		return event.Event{}, false, nil
	}
	diff, changed := diffOf(before, after)
	if !changed {
		return event.Event{}, false, nil
	}
	delta, err := event.DeltaFromDiff(diff)
	key, at := rawbson.Begin(nil)
	id := before.Lookup("_id")
	key = rawbson.End(rawbson.AppendValue(key, id.Type, "_id", id.Value), at)
	return event.Event{Op: event.OpUpdate, NS: ns, DocumentKey: key, Delta: delta}, true, err
}
