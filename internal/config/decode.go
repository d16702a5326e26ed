package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// maxAliases bounds how often one document may use anchors, so that a small
// file cannot unfold into a large one.
const maxAliases = 100

// decoder fills structs from YAML nodes. Unlike a decoder that stops at the
// first fault it goes on and reports them all.
type decoder struct {
	report  *report
	refs    references
	anchors map[string]ast.Node
	aliases int
}

// resolve follows anchors and aliases and drops tags.
func (d *decoder) resolve(path string, node ast.Node) ast.Node {
	for {
		switch n := node.(type) {
		case *ast.AnchorNode:
			d.anchors[n.Name.GetToken().Value] = n.Value
			node = n.Value
		case *ast.AliasNode:
			name := n.Value.GetToken().Value
			target, ok := d.anchors[name]
			if d.aliases++; !ok || d.aliases > maxAliases {
				d.report.add(path, fmt.Sprintf("alias *%s has no anchor before it", name), "")
				return nil
			}
			node = target
		case *ast.TagNode:
			d.report.add(path, fmt.Sprintf("the tag %s is not allowed", n.Start.Value), "write the value without a tag")
			return nil
		default:
			return node
		}
	}
}

// entries returns the pairs of a mapping, or reports that node is none.
func (d *decoder) entries(path string, node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	d.report.add(path, "want a mapping of keys to values, found "+kindOf(node), "")
	return nil, false
}

// structure decodes a mapping into a struct; keys without a field are faults.
func (d *decoder) structure(path string, node ast.Node, to reflect.Value) {
	entries, ok := d.entries(path, node)
	if !ok {
		return
	}
	fields := fieldsOf(to)
	for _, e := range entries {
		key := e.Key.GetToken().Value
		at := join(path, key)
		d.report.lines[at] = e.Key.GetToken().Position.Line
		field, ok := fields[key]
		if !ok {
			d.report.add(at, "unknown key", hintFor(path, key, fields))
			continue
		}
		d.value(at, e.Value, field)
	}
}

// fieldsOf maps the keys of a struct to its fields.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("yaml")] = v.Field(i)
	}
	return fields
}

func (d *decoder) value(path string, node ast.Node, to reflect.Value) {
	if node = d.resolve(path, node); node == nil {
		return
	}
	composite := to.Kind() == reflect.Struct || to.Kind() == reflect.Slice || to.Kind() == reflect.Map
	if node.Type() == ast.NullType {
		if !composite { // a section without content has its defaults
			d.report.add(path, "has no value", "give one or remove the key")
		}
		return
	}
	switch to.Kind() {
	case reflect.Struct:
		d.structure(path, node, to)
	case reflect.Slice:
		d.list(path, node, to)
	case reflect.Map:
		d.mapping(path, node, to)
	default:
		if text, raw, ok := d.scalar(path, node); ok {
			d.set(path, text, raw, to)
		}
	}
}

func (d *decoder) list(path string, node ast.Node, to reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.report.add(path, "want a list, found "+kindOf(node), "write it as [a, b] or as lines that start with -")
		return
	}
	to.Set(reflect.MakeSlice(to.Type(), len(sequence.Values), len(sequence.Values)))
	for i, element := range sequence.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.report.lines[at] = element.GetToken().Position.Line
		if withDefaults, ok := to.Index(i).Addr().Interface().(interface{ setDefaults() }); ok {
			withDefaults.setDefaults()
		}
		d.value(at, element, to.Index(i))
	}
}

// mapping decodes into a map of strings.
func (d *decoder) mapping(path string, node ast.Node, to reflect.Value) {
	entries, ok := d.entries(path, node)
	if !ok {
		return
	}
	to.Set(reflect.MakeMap(to.Type()))
	for _, e := range entries {
		key := e.Key.GetToken().Value
		at := join(path, key)
		d.report.lines[at] = e.Key.GetToken().Position.Line
		value := reflect.New(to.Type().Elem()).Elem()
		d.value(at, e.Value, value)
		to.SetMapIndex(reflect.ValueOf(key), value)
	}
}

// scalar returns the text of a scalar with its references resolved, and as it
// stands in the file, which may be shown in a message.
func (d *decoder) scalar(path string, node ast.Node) (text, raw string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		raw = n.Value
	case *ast.LiteralNode:
		raw = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		raw = n.GetToken().Value
	default:
		d.report.add(path, "want a single value, found "+kindOf(node), "")
		return "", "", false
	}
	text, err := d.refs.resolve(raw)
	if err != nil {
		d.report.add(path, err.Error(), "")
		return "", "", false
	}
	return text, raw, true
}

// set parses a scalar into a field. Messages show the text of the file, never
// what a reference stood for.
func (d *decoder) set(path, text, raw string, to reflect.Value) {
	switch to.Interface().(type) {
	case time.Duration:
		v, err := parseDuration(text)
		if err != nil {
			d.report.add(path, fmt.Sprintf("%q is no duration", raw), "write it as 100ms, 30s, 10m, 12h or 7d")
		}
		to.SetInt(int64(v))
	case Bytes:
		v, err := parseBytes(text)
		if err != nil {
			d.report.add(path, fmt.Sprintf("%q is no size", raw), "write it as 64MiB, 512KiB, 1GiB or a number of bytes")
		}
		to.SetInt(int64(v))
	case string:
		to.SetString(text)
	case bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			d.report.add(path, fmt.Sprintf("%q is neither true nor false", raw), "")
		}
		to.SetBool(v)
	default:
		v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 32)
		if err != nil {
			d.report.add(path, fmt.Sprintf("%q is no whole number", raw), "")
		}
		to.SetInt(v)
	}
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
