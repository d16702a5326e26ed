package oplog_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// model is a destination in memory: documents by namespace, in natural order,
// found by the key of their _id. It knows data events alone.
type model struct {
	mode        event.ApplyMode
	collections map[string]*collection
}

type collection struct {
	keys      []string
	documents map[string]bson.Raw
}

// newModel holds what a fixture's state held.
func newModel(t *testing.T, state fixture.State, mode event.ApplyMode) *model {
	t.Helper()
	m := &model{mode: mode, collections: make(map[string]*collection)}
	for namespace, documents := range state.Documents {
		c := m.collection(namespace)
		for _, doc := range documents {
			c.put(key(t, doc), doc)
		}
	}
	return m
}

func key(t *testing.T, doc bson.Raw) string {
	t.Helper()
	k, err := event.AppendIDKey(nil, doc.Lookup("_id"))
	if err != nil {
		t.Fatal(err)
	}
	return string(k)
}

func (m *model) collection(namespace string) *collection {
	c, ok := m.collections[namespace]
	if !ok {
		c = &collection{documents: make(map[string]bson.Raw)}
		m.collections[namespace] = c
	}
	return c
}

func (c *collection) put(key string, doc bson.Raw) {
	if _, ok := c.documents[key]; !ok {
		c.keys = append(c.keys, key)
	}
	c.documents[key] = doc
}

// sameBytes compares byte for byte.
func sameBytes(got, want bson.Raw) bool { return bytes.Equal(got, want) }

// sameFields compares without regard to the order of fields.
func sameFields(got, want bson.Raw) bool { return bytes.Equal(sorted(got), sorted(want)) }

func sorted(doc bson.Raw) []byte {
	elems, err := doc.Elements()
	if err != nil {
		return nil
	}
	var parts [][]byte
	for _, e := range elems {
		part := slices.Clone([]byte(e))
		if v := e.Value(); v.Type == bson.TypeEmbeddedDocument || v.Type == bson.TypeArray {
			part = append(part[:len(part)-len(v.Value)], sorted(v.Value)...)
		}
		parts = append(parts, part)
	}
	slices.SortFunc(parts, bytes.Compare)
	return append(bytes.Join(parts, nil), 0)
}

var errMissing = errors.New("no such document")

// apply makes one data event. In lenient mode a document that is missing is
// none of its business.
func (m *model) apply(t *testing.T, e *event.Event) error {
	t.Helper()
	if e.Op == event.OpCreate {
		return nil
	}
	c, k := m.collection(e.NS.String()), key(t, e.DocumentKey)
	held, ok := c.documents[k]
	switch e.Op {
	case event.OpInsert, event.OpReplace:
		if m.mode == event.Strict && ok != (e.Op == event.OpReplace) {
			return fmt.Errorf("%s: held = %t", e, ok)
		}
		c.put(k, e.Document)
	case event.OpUpdate:
		if !ok {
			if m.mode == event.Lenient {
				return nil
			}
			return fmt.Errorf("%s: %w", e, errMissing)
		}
		doc, err := e.Delta.Apply(held, m.mode)
		if err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
		c.documents[k] = doc
	case event.OpDelete:
		delete(c.documents, k)
		c.keys = slices.DeleteFunc(c.keys, func(other string) bool { return other == k })
	default:
		return fmt.Errorf("%s is no data", e)
	}
	return nil
}

// compare reports every difference to a state. Documents are compared as same
// says; their natural order counts in strict mode.
func (m *model) compare(t *testing.T, want fixture.State, same func(got, want bson.Raw) bool) {
	t.Helper()
	for namespace, documents := range want.Documents {
		c := m.collection(namespace)
		if len(c.keys) != len(documents) {
			t.Errorf("%s: %d documents, want %d", namespace, len(c.keys), len(documents))
		}
		order := make([]string, 0, len(documents))
		for _, doc := range documents {
			k := key(t, doc)
			order = append(order, k)
			if got := c.documents[k]; !same(got, doc) {
				t.Errorf("%s: got  %s\nwant %s", namespace, got, doc)
			}
		}
		if m.mode == event.Strict && !slices.Equal(order, c.keys) {
			t.Errorf("%s: natural order is %v, want %v", namespace, c.keys, order)
		}
	}
	for namespace, c := range m.collections {
		if _, ok := want.Documents[namespace]; !ok && len(c.keys) > 0 {
			t.Errorf("%s: %d documents, want none", namespace, len(c.keys))
		}
	}
}
