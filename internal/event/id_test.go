package event_test

import (
	"bytes"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// value encodes v, which may be nil, a bson type or a Go number.
func value(tb testing.TB, v any) bson.RawValue {
	tb.Helper()
	raw, err := bson.Marshal(bson.D{{Key: "", Value: v}})
	if err != nil {
		tb.Fatalf("marshal %v: %v", v, err)
	}
	elems, err := bson.Raw(raw).Elements()
	if err != nil {
		tb.Fatal(err)
	}
	return elems[0].Value()
}

func idKey(tb testing.TB, v bson.RawValue) string {
	tb.Helper()
	key, err := event.AppendIDKey(nil, v)
	if err != nil {
		tb.Fatalf("key of %v: %v", v, err)
	}
	return string(key)
}

func decimal(tb testing.TB, s string) bson.Decimal128 {
	tb.Helper()
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		tb.Fatalf("parse decimal %s: %v", s, err)
	}
	return d
}

func TestIDKeyText(t *testing.T) {
	oid, _ := bson.ObjectIDFromHex("5f0c1d2e3a4b5c6d7e8f9001")
	for _, tc := range []struct {
		name string
		in   any
		want string
	}{
		{"ObjectId", oid, `{"$oid":"5f0c1d2e3a4b5c6d7e8f9001"}`},
		{"string", "shop", `"shop"`},
		{"escapes", "a\"b\\c\x00\x1f/é\xff", `"a\"b\\c\u0000\u001f/é` + "\xff" + `"`},
		{"empty string", "", `""`},
		{"symbol is a string", bson.Symbol("shop"), `"shop"`},
		{"int32", int32(-7), `{"$numberInt":"-7"}`},
		{"int64 within 32 bits", int64(7), `{"$numberInt":"7"}`},
		{"int64", int64(1) << 40, `{"$numberLong":"1099511627776"}`},
		{"double that is an integer", 3.0, `{"$numberInt":"3"}`},
		{"double", 0.1, `{"$numberDouble":"0.1"}`},
		{"negative zero", math.Copysign(0, -1), `{"$numberInt":"0"}`},
		{"NaN", math.NaN(), `{"$numberDouble":"NaN"}`},
		{"infinity", math.Inf(-1), `{"$numberDouble":"-Infinity"}`},
		{"double of 2^63", math.Ldexp(1, 63), `{"$numberDouble":"9.223372036854776e+18"}`},
		{"double of -2^63", -math.Ldexp(1, 63), `{"$numberLong":"-9223372036854775808"}`},
		{"decimal with zeros", decimal(t, "1.00"), `{"$numberInt":"1"}`},
		{"decimal that a double holds", decimal(t, "0.5"), `{"$numberDouble":"0.5"}`},
		{"decimal that no double holds", decimal(t, "0.10"), `{"$numberDecimal":"1E-1"}`},
		{"decimal zero", decimal(t, "-0E+30"), `{"$numberInt":"0"}`},
		{"decimal NaN", decimal(t, "NaN"), `{"$numberDouble":"NaN"}`},
		{"decimal infinity", decimal(t, "Infinity"), `{"$numberDouble":"Infinity"}`},
		{"decimal of 34 digits", decimal(t, "9223372036854775807"), `{"$numberLong":"9223372036854775807"}`},
		{"large decimal", decimal(t, "1E+6000"), `{"$numberDecimal":"1E6000"}`},
		{"tiny decimal", decimal(t, "-1.20E-6000"), `{"$numberDecimal":"-12E-6001"}`},
		{"decimal with too many digits", bson.NewDecimal128(0x3041ffffffffffff, math.MaxUint64), `{"$numberInt":"0"}`},
		{"true", true, "true"},
		{"null", nil, "null"},
		{"undefined", bson.Undefined{}, `{"$undefined":true}`},
		{"MinKey", bson.MinKey{}, `{"$minKey":1}`},
		{"MaxKey", bson.MaxKey{}, `{"$maxKey":1}`},
		{"date", bson.DateTime(-5), `{"$date":{"$numberLong":"-5"}}`},
		{"timestamp", bson.Timestamp{T: 4294967295, I: 2}, `{"$timestamp":{"t":4294967295,"i":2}}`},
		{"binary", bson.Binary{Subtype: 0x80, Data: []byte{1, 2}}, `{"$binary":{"base64":"AQI=","subType":"80"}}`},
		{"regex", bson.Regex{Pattern: `a"`, Options: "i"}, `{"$regularExpression":{"pattern":"a\"","options":"i"}}`},
		{"code", bson.JavaScript("f()"), `{"$code":"f()"}`},
		{
			"code with scope",
			bson.CodeWithScope{Code: "f()", Scope: bson.D{{Key: "x", Value: 1.0}}},
			`{"$code":"f()","$scope":{"x":{"$numberInt":"1"}}}`,
		},
		{"pointer", bson.DBPointer{DB: "a.b", Pointer: oid}, `{"$dbPointer":{"$ref":"a.b","$id":{"$oid":"5f0c1d2e3a4b5c6d7e8f9001"}}}`},
		{
			"document",
			bson.D{{Key: "b", Value: 1.0}, {Key: "a", Value: bson.A{int64(2), nil}}},
			`{"b":{"$numberInt":"1"},"a":[{"$numberInt":"2"},null]}`,
		},
		{"document like a type", bson.D{{Key: "$numberInt", Value: "1"}}, `{"\u0024numberInt":"1"}`},
		{"empty document", bson.D{}, `{}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := idKey(t, value(t, tc.in)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestIDKeyLeavesPrefixAlone(t *testing.T) {
	got, err := event.AppendIDKey([]byte("shop.orders|"), value(t, "x"))
	if err != nil || string(got) != `shop.orders|"x"` {
		t.Errorf("got %s, %v", got, err)
	}
	broken := bson.RawValue{Type: bson.TypeString, Value: []byte{9, 0, 0, 0, 'x', 0}}
	if got, err = event.AppendIDKey([]byte("p|"), broken); err == nil || string(got) != "p|" {
		t.Errorf("malformed: got %q, %v", got, err)
	}
}

// TestIDKeyModel compares the equality of keys with that of a model of the
// server's comparison, over all pairs of a set chosen to collide.
func TestIDKeyModel(t *testing.T) {
	values := idCandidates(t)
	keys := make([]string, len(values))
	for i, v := range values {
		keys[i] = idKey(t, v)
	}
	for i := range values {
		for j := range i {
			want := serverEqual(t, values[i], values[j])
			if got := keys[i] == keys[j]; got != want {
				t.Errorf("%v (%s) and %v (%s): keys %s and %s equal=%t, server says %t",
					values[i], values[i].Type, values[j], values[j].Type, keys[i], keys[j], got, want)
			}
		}
	}
}

// idCandidates holds scalars around every border, and documents of them.
func idCandidates(t *testing.T) []bson.RawValue {
	t.Helper()
	oid := bson.ObjectID{1, 2, 3}
	scalars := []any{
		nil,
		bson.Undefined{},
		true, false, "1", bson.Symbol("1"), "", bson.JavaScript("1"), oid,
		bson.MinKey{},
		bson.MaxKey{},
		bson.DateTime(1),
		bson.Timestamp{T: 0, I: 1},
		bson.Timestamp{T: 1},
		math.NaN(), math.Inf(1), math.Inf(-1),
		math.Float64frombits(0x7ff8000000000001), math.Float64frombits(0xfff8000000000000), math.Copysign(0, -1), 0.1, 0.5, 1e300, 5e-324,
		bson.Binary{Data: []byte("1")},
		bson.Binary{Subtype: 5, Data: []byte("1")},
		bson.Binary{Subtype: 2, Data: []byte("1")},
		bson.Binary{Data: []byte{1, 0, 0, 0, '1'}},
		bson.Regex{Pattern: "1"},
		bson.Regex{Pattern: "1", Options: "i"},
		bson.CodeWithScope{Code: "1", Scope: bson.D{}},
		bson.DBPointer{DB: "1", Pointer: oid},
	}
	for _, n := range []int64{0, 1, -1, 2147483647, 2147483648, -2147483648, -2147483649, 1<<53 - 1, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MinInt64} {
		scalars = append(scalars, n, float64(n), decimal(t, strconv.FormatInt(n, 10)), decimal(t, strconv.FormatInt(n, 10)+".0"))
		if n == int64(int32(n)) {
			scalars = append(scalars, int32(n))
		}
	}
	for _, s := range []string{
		"0.1", "0.5", "0.50", "5E-1", "1E+2", "100", "1E+300", "1.000E300", "NaN", "-NaN", "Infinity", "-Infinity", "-0", "0E-6176", "1E+6111", "10E+6110",
		"9223372036854775808", "-9223372036854775809", "0.1000000000000000055511151231257827", "1E-6176", "1.7976931348623157E308", "4.9E-324",
	} {
		scalars = append(scalars, decimal(t, s))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		f := math.Ldexp(float64(random.IntN(1<<20)), random.IntN(80)-40)
		scalars = append(scalars, f, decimal(t, new(big.Float).SetFloat64(f).Text('g', 34)))
	}
	var values []bson.RawValue
	for _, s := range scalars {
		values = append(values, value(t, s))
	}
	for range 300 {
		a, b := scalars[random.IntN(len(scalars))], scalars[random.IntN(len(scalars))]
		name := []string{"a", "b", "$numberInt", "a.b", ""}[random.IntN(5)]
		values = append(values, value(t, bson.D{{Key: name, Value: a}}), value(t, bson.D{{Key: "a", Value: bson.A{a, b}}}), value(t, bson.D{{Key: name, Value: a}, {Key: "b", Value: b}}))
	}
	return values
}

// serverEqual is the model: classes of types, numbers by exact value, binaries
// by subtype and bytes, documents by names and values in order.
func serverEqual(t *testing.T, a, b bson.RawValue) bool {
	t.Helper()
	if class(a.Type) != class(b.Type) {
		return false
	}
	switch class(a.Type) {
	case bson.TypeDouble:
		return number(t, a) == number(t, b)
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		x, _ := bson.Raw(a.Value).Elements()
		y, _ := bson.Raw(b.Value).Elements()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i].Key() != y[i].Key() || !serverEqual(t, x[i].Value(), y[i].Value()) {
				return false
			}
		}
		return true
	default:
		return bytes.Equal(a.Value, b.Value)
	}
}

func class(t bson.Type) bson.Type {
	switch t {
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDecimal128:
		return bson.TypeDouble
	case bson.TypeSymbol:
		return bson.TypeString
	default:
		return t
	}
}

// number returns an exact text of a number: a fraction, or NaN and infinities.
func number(t *testing.T, v bson.RawValue) string {
	t.Helper()
	switch v.Type {
	case bson.TypeInt32:
		return big.NewRat(int64(v.Int32()), 1).String()
	case bson.TypeInt64:
		return big.NewRat(v.Int64(), 1).String()
	case bson.TypeDouble:
		f := v.Double()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
		return new(big.Rat).SetFloat64(f).String()
	}
	text := v.Decimal128().String()
	switch text {
	case "NaN":
		return "NaN"
	case "Infinity", "-Infinity":
		return strings.Replace("+"+text, "+-", "-", 1)[:4]
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("parse %s", text)
	}
	return r.String()
}

func TestIDKeyOfEveryFixtureID(t *testing.T) {
	s := fixture.Load(t, "diff-v2/id_types")
	for namespace, documents := range s.After.Documents {
		seen := make(map[string]bson.RawValue)
		for _, doc := range documents {
			id := doc.Lookup("_id")
			key := idKey(t, id)
			if other, ok := seen[key]; ok {
				t.Errorf("%s: %v and %v, two documents, have one key %s", namespace, id, other, key)
			}
			seen[key] = id
		}
	}
}

func TestIDKeyMalformed(t *testing.T) {
	deep := []byte{5, 0, 0, 0, 0}
	for range 300 {
		next := append([]byte{0, 0, 0, 0, 3, 'a', 0}, deep...)
		next = append(next, 0)
		next[0], next[1] = byte(len(next)), byte(len(next)>>8)
		deep = next
	}
	for _, tc := range []struct {
		name string
		in   bson.RawValue
	}{
		{"no type", bson.RawValue{}},
		{"short int", bson.RawValue{Type: bson.TypeInt32, Value: []byte{1}}},
		{"long int", bson.RawValue{Type: bson.TypeInt32, Value: []byte{1, 2, 3, 4, 5}}},
		{"negative length", bson.RawValue{Type: bson.TypeString, Value: []byte{255, 255, 255, 255, 0}}},
		{"string without end", bson.RawValue{Type: bson.TypeString, Value: []byte{2, 0, 0, 0, 'a', 'b'}}},
		{"nested too deep", bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: deep}},
		{"code passes the end", bson.RawValue{Type: bson.TypeCodeWithScope, Value: append([]byte{14, 0, 0, 0, 99}, make([]byte, 9)...)}},
	} {
		if _, err := event.AppendIDKey(nil, tc.in); err == nil {
			t.Errorf("%s: no error", tc.name)
		}
	}
}

func TestIDFirst(t *testing.T) {
	for _, tc := range [][2]string{
		{`{"_id":1,"a":2}`, `{"_id":1,"a":2}`},
		{`{"a":2,"_id":1}`, `{"_id":1,"a":2}`},
		{`{"a":2,"_id":{"x":"y"},"b":3,"_id":4}`, `{"_id":{"x":"y"},"a":2,"b":3,"_id":4}`},
		{`{"a":{"_id":1}}`, `{"a":{"_id":1}}`},
		{`{}`, `{}`},
	} {
		in := raw(t, tc[0])
		got, err := event.IDFirst(in)
		if err != nil || !bytes.Equal(got, raw(t, tc[1])) {
			t.Errorf("%s: got %s, %v", tc[0], got, err)
		}
		if !bytes.Equal(in, raw(t, tc[0])) {
			t.Errorf("%s: changed", tc[0])
		}
	}
	for _, in := range []bson.Raw{nil, {6, 0, 0, 0, 1, 0}, {9, 0, 0, 0, 16, 'a', 0, 1, 0}} {
		if got, err := event.IDFirst(in); err == nil {
			t.Errorf("%x: got %x", []byte(in), []byte(got))
		}
	}
}

func FuzzAppendIDKey(f *testing.F) {
	for _, v := range []any{"a", int32(1), 0.5, bson.D{{Key: "$a", Value: bson.A{nil}}}, bson.CodeWithScope{Code: "1", Scope: bson.D{}}, bson.Regex{Pattern: "x"}, bson.DBPointer{DB: "x"}} {
		raw := value(f, v)
		f.Add(byte(raw.Type), raw.Value)
	}
	f.Fuzz(func(t *testing.T, typ byte, data []byte) {
		in := bson.RawValue{Type: bson.Type(typ), Value: data}
		first, err := event.AppendIDKey(nil, in)
		if err != nil {
			return
		}
		again, err := event.AppendIDKey([]byte("x"), in)
		if err != nil || cmp.Diff(string(first), string(again[1:])) != "" {
			t.Errorf("%q, then %q, %v", first, again, err)
		}
	})
}

func BenchmarkAppendIDKey(b *testing.B) {
	for _, bc := range []struct {
		name string
		v    any
	}{
		{"ObjectId", bson.ObjectID{1, 2}},
		{"string", "customer-0000000123"},
		{"int32", int32(1234567)},
		{"double", 0.25},
		{"document", bson.D{{Key: "tenant", Value: "t1"}, {Key: "n", Value: int64(12)}}},
		{"decimal", decimal(b, "12.50")},
	} {
		b.Run(bc.name, func(b *testing.B) {
			in := value(b, bc.v)
			dst := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := event.AppendIDKey(dst, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
