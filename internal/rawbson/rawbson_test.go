package rawbson_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// everyType holds one element of each type that BSON has.
func everyType(tb testing.TB) bson.Raw {
	tb.Helper()
	doc, err := bson.Marshal(bson.D{
		{Key: "double", Value: 1.5},
		{Key: "string", Value: "x\x00y"},
		{Key: "document", Value: bson.D{{Key: "a", Value: int32(1)}}},
		{Key: "array", Value: bson.A{true, nil}},
		{Key: "binary", Value: bson.Binary{Subtype: 2, Data: []byte{1}}},
		{Key: "undefined", Value: bson.Undefined{}},
		{Key: "id", Value: bson.ObjectID{1}},
		{Key: "bool", Value: true},
		{Key: "date", Value: bson.DateTime(5)},
		{Key: "null", Value: nil},
		{Key: "regex", Value: bson.Regex{Pattern: "a", Options: "i"}},
		{Key: "pointer", Value: bson.DBPointer{DB: "a"}},
		{Key: "code", Value: bson.JavaScript("f")},
		{Key: "symbol", Value: bson.Symbol("s")},
		{Key: "scope", Value: bson.CodeWithScope{Code: "f", Scope: bson.D{{Key: "x", Value: "y"}}}},
		{Key: "int32", Value: int32(-3)},
		{Key: "timestamp", Value: bson.Timestamp{T: 9, I: 4}},
		{Key: "int64", Value: int64(-4)},
		{Key: "decimal", Value: bson.Decimal128{}},
		{Key: "min", Value: bson.MinKey{}},
		{Key: "max", Value: bson.MaxKey{}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return doc
}

func TestWalkAgreesWithTheDriver(t *testing.T) {
	doc := everyType(t)
	want, err := doc.Elements()
	if err != nil {
		t.Fatal(err)
	}
	body, err := rawbson.Body(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		e, rest, err := rawbson.Next(body)
		if err != nil {
			t.Fatalf("%s: %v", w.Key(), err)
		}
		if string(e.Name) != w.Key() || !e.RawValue().Equal(w.Value()) || !bytes.Equal(e.Raw, w) {
			t.Errorf("got %s %v, want %v", e.Name, e.RawValue(), w)
		}
		found, ok, err := rawbson.Lookup(doc, w.Key())
		if err != nil || !ok || !bytes.Equal(found.Raw, w) {
			t.Errorf("look up %s: %t, %v", w.Key(), ok, err)
		}
		body = rest
	}
	if len(body) != 0 {
		t.Errorf("%d bytes left", len(body))
	}
	if err := rawbson.Validate(doc); err != nil {
		t.Error(err)
	}
	if _, ok, err := rawbson.Lookup(doc, "none"); ok || err != nil {
		t.Errorf("look up none: %t, %v", ok, err)
	}
}

func TestAccessors(t *testing.T) {
	doc := everyType(t)
	get := func(name string) *rawbson.Element {
		e, ok, err := rawbson.Lookup(doc, name)
		if err != nil || !ok {
			t.Fatalf("look up %s: %t, %v", name, ok, err)
		}
		return &e
	}
	if n, ok := get("int32").Int32(); !ok || n != -3 {
		t.Errorf("int32: %d, %t", n, ok)
	}
	if n, ok := get("int64").Int64(); !ok || n != -4 {
		t.Errorf("int64: %d, %t", n, ok)
	}
	if n, ok := get("int32").Int64(); !ok || n != -3 {
		t.Errorf("int32 as int64: %d, %t", n, ok)
	}
	if ts, ok := get("timestamp").Timestamp(); !ok || ts != (bson.Timestamp{T: 9, I: 4}) {
		t.Errorf("timestamp: %v, %t", ts, ok)
	}
	if s, ok := get("string").Text(); !ok || string(s) != "x\x00y" {
		t.Errorf("string: %q, %t", s, ok)
	}
	if !get("bool").True() || get("int32").True() {
		t.Error("booleans")
	}
	null := get("null")
	_, isInt := null.Int64()
	_, isTime := null.Timestamp()
	_, isText := null.Text()
	if isInt || isTime || isText {
		t.Error("null is something")
	}
	code, scope, err := rawbson.CodeWithScope(get("scope").Value)
	if err != nil || string(code) != "f" || bson.Raw(scope).Lookup("x").StringValue() != "y" {
		t.Errorf("code %q, scope %v, %v", code, scope, err)
	}
}

func TestWrite(t *testing.T) {
	dst, outer := rawbson.Begin([]byte("before"))
	dst = rawbson.AppendString(dst, "s", "x")
	dst = rawbson.AppendInt32(dst, "n", -1)
	dst = rawbson.AppendHeader(dst, bson.TypeEmbeddedDocument, []byte("d"))
	dst, inner := rawbson.Begin(dst)
	dst = rawbson.AppendValue(dst, bson.TypeNull, "z", nil)
	dst = rawbson.End(rawbson.End(dst, inner), outer)
	want, err := bson.Marshal(bson.D{{Key: "s", Value: "x"}, {Key: "n", Value: int32(-1)}, {Key: "d", Value: bson.D{{Key: "z", Value: nil}}}})
	if err != nil || string(dst) != "before"+string(want) {
		t.Errorf("got %x, want %x, %v", dst[6:], want, err)
	}
}

func TestMalformed(t *testing.T) {
	doc := everyType(t)
	for n := range doc {
		if err := rawbson.Validate(doc[:n]); !errors.Is(err, rawbson.ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	deep := []byte{5, 0, 0, 0, 0}
	for range rawbson.MaxDepth + 1 {
		next, at := rawbson.Begin(nil)
		deep = rawbson.End(rawbson.AppendValue(next, bson.TypeArray, "0", deep), at)
	}
	if err := rawbson.Validate(deep); !errors.Is(err, rawbson.ErrMalformed) {
		t.Errorf("deep: %v", err)
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(everyType(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if rawbson.Validate(data) != nil {
			return
		}
		// What passes, the driver can walk as well.
		if _, err := bson.Raw(data).Elements(); err != nil {
			t.Error(err)
		}
	})
}
