package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func customer(r *rand.Rand, number uint64) bson.D {
	return bson.D{
		{Key: "email", Value: fmt.Sprintf("%s.%d@example.com", word(r), number)},
		{Key: "name", Value: bson.D{{Key: "first", Value: word(r)}, {Key: "last", Value: word(r)}}},
		{Key: "address", Value: bson.D{
			{Key: "street", Value: fmt.Sprintf("%s %d", word(r), r.IntN(200))},
			{Key: "city", Value: city(r)},
			{Key: "position", Value: bson.A{r.Float64() * 180, r.Float64() * 90}},
		}},
		{Key: "created", Value: date(r)},
		{Key: "tags", Value: bson.A{word(r), word(r)}},
		{Key: "score", Value: r.Float64()},
		{Key: "visits", Value: int64(r.IntN(1 << 40))},
		{Key: "active", Value: r.IntN(2) == 0},
		{Key: "note", Value: nil},
	}
}

func product(r *rand.Rand, number uint64) bson.D {
	return bson.D{
		{Key: "name", Value: fmt.Sprintf("%s %s %d", word(r), word(r), number)},
		{Key: "description", Value: text(r, 20)},
		{Key: "price", Value: float64(r.IntN(100_000)) / 100},
		{Key: "stock", Value: int32(r.IntN(1000))},
		{Key: "attributes", Value: bson.D{{Key: "colour", Value: word(r)}, {Key: "weight", Value: r.Float64() * 10}}},
		{Key: "tags", Value: bson.A{word(r), word(r), word(r)}},
		{Key: "image", Value: bson.Binary{Data: blob(r, 64)}},
	}
}

func order(r *rand.Rand, number uint64) bson.D {
	items := bson.A{}
	for range 1 + r.IntN(4) {
		items = append(items, bson.D{
			{Key: "sku", Value: fmt.Sprintf("sku-%06d", r.IntN(1000))},
			{Key: "quantity", Value: int32(1 + r.IntN(5))},
			{Key: "price", Value: float64(r.IntN(10_000)) / 100},
		})
	}
	return bson.D{
		{Key: "customer", Value: objectID(1)(uint64(r.IntN(1000)))},
		{Key: "placed", Value: date(r)},
		{Key: "status", Value: status(r)},
		{Key: "items", Value: items},
		{Key: "total", Value: float64(r.IntN(100_000)) / 100},
		{Key: "address", Value: bson.D{{Key: "city", Value: city(r)}, {Key: "note", Value: text(r, 5)}}},
		{Key: "tags", Value: bson.A{}},
		{Key: "reference", Value: fmt.Sprintf("R%09d", number)},
	}
}

func pageview(r *rand.Rand, _ uint64) bson.D {
	return bson.D{
		{Key: "url", Value: "/" + word(r) + "/" + word(r)},
		{Key: "at", Value: date(r)},
		{Key: "milliseconds", Value: r.Float64() * 1000},
		{Key: "bot", Value: r.IntN(10) == 0},
		{Key: "tags", Value: bson.A{word(r)}},
	}
}

func day(r *rand.Rand, _ uint64) bson.D {
	return bson.D{
		{Key: "views", Value: int64(0)},
		{Key: "hours", Value: bson.D{{Key: "h00", Value: int32(0)}, {Key: "h12", Value: int32(0)}}},
		{Key: "best", Value: r.Float64()},
	}
}

// everything holds every BSON type that a server stores, deprecated ones and
// unusual names among them.
func everything(r *rand.Rand, number uint64) bson.D {
	return bson.D{
		{Key: "double", Value: r.Float64()},
		{Key: "nan", Value: math.NaN()},
		{Key: "negative zero", Value: math.Copysign(0, -1)},
		{Key: "string", Value: text(r, r.IntN(40))},
		{Key: "address", Value: bson.D{{Key: "city", Value: city(r)}, {Key: "a.b", Value: 1}, {Key: "", Value: "empty name"}}},
		{Key: "tags", Value: bson.A{bson.A{1, "x"}, bson.D{}, nil}},
		{Key: "binary", Value: bson.Binary{Subtype: 0x80, Data: blob(r, r.IntN(100))}},
		{Key: "undefined", Value: bson.Undefined{}},
		{Key: "id", Value: objectID(9)(number)},
		{Key: "bool", Value: true},
		{Key: "date", Value: date(r)},
		{Key: "null", Value: nil},
		{Key: "regex", Value: bson.Regex{Pattern: "^a.*", Options: "i"}},
		{Key: "code", Value: bson.JavaScript("function() { return 1 }")},
		{Key: "symbol", Value: bson.Symbol("symbol")},
		{Key: "int", Value: int32(r.Uint32())},
		{Key: "timestamp", Value: bson.Timestamp{T: r.Uint32(), I: 1}},
		{Key: "long", Value: int64(r.Uint64())},
		{Key: "decimal", Value: bson.NewDecimal128(0x303E000000000000, r.Uint64()>>14)},
		{Key: "minkey", Value: bson.MinKey{}},
		{Key: "maxkey", Value: bson.MaxKey{}},
		{Key: "views", Value: int64(number)},
	}
}

func date(r *rand.Rand) bson.DateTime {
	return bson.NewDateTimeFromTime(epoch().Add(time.Duration(r.IntN(1e9)) * time.Millisecond))
}

func status(r *rand.Rand) string {
	return []string{"open", "paid", "packed", "sent", "returned"}[r.IntN(5)]
}

func city(r *rand.Rand) string {
	return []string{"Berlin", "Łódź", "東京", "Nairobi", "São Paulo", "Oslo"}[r.IntN(6)]
}

// word is a made-up word of two to four syllables.
func word(r *rand.Rand) string {
	var b strings.Builder
	for range 2 + r.IntN(3) {
		b.WriteByte("bdfgklmnprst"[r.IntN(12)])
		b.WriteByte("aeiou"[r.IntN(5)])
	}
	return b.String()
}

func text(r *rand.Rand, words int) string {
	list := make([]string, words)
	for i := range list {
		list[i] = word(r)
	}
	return strings.Join(list, " ")
}

func blob(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
