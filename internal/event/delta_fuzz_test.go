package event_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/fixture"
	"github.com/tributarydb/tributary/internal/rawbson"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// seedDeltas are deltas of every form, from the server and made by hand.
func seedDeltas(f *testing.F) [][]byte {
	seeds := [][]byte{
		raw(f, `{"d":{"a":false},"u":{"b":3},"i":{"n":1},"sc":{"a":true,"l":2,"u0":1,"s1":{"u":{"x":1}}}}`),
		raw(f, `{"o":1,"n":{"nfa":{"l":2,"ne0":{"sfb":1},"sp1":2},"sfc":2,"ufd":true}}`),
		raw(f, `{"o":2,"n":{"nfa":{"sfb":1}}}`),
	}
	for _, entry := range fixture.Load(f, "diff-v2/random_pipelines").Oplog[:40] {
		if diff, err := entry.LookupErr("o", "diff"); err == nil {
			seeds = append(seeds, diff.Document())
		}
	}
	return seeds
}

// FuzzApply checks that no input panics, that a valid delta on a valid document
// makes a valid document or a known error, and that lenient mode does what
// strict mode does where that succeeds.
func FuzzApply(f *testing.F) {
	for _, seed := range seedDeltas(f) {
		f.Add([]byte(raw(f, `{"_id":1,"a":[1,{"b":1}],"b":2,"c":[1,{"x":0},3],"d":1}`)), seed)
	}
	f.Fuzz(func(t *testing.T, doc, delta []byte) {
		if len(doc)+len(delta) > 1<<16 {
			return
		}
		got, err := event.Delta(delta).Apply(doc, event.Strict)
		loose, looseErr := event.Delta(delta).Apply(doc, event.Lenient)
		if err == nil && (looseErr != nil || !bytes.Equal(got, loose)) {
			t.Errorf("strict made %x, lenient %x, %v", []byte(got), []byte(loose), looseErr)
		}
		valid, invalid := event.DeltaFromRaw(delta)
		if invalid != nil || valid == nil || rawbson.Validate(doc) != nil {
			return
		}
		if looseErr != nil && !errors.Is(looseErr, event.ErrDeltaTooLarge) && !errors.Is(looseErr, event.ErrDeltaAmbiguous) {
			t.Errorf("lenient: %v", looseErr)
		}
		if looseErr == nil && len(loose) < 1<<20 {
			if err := rawbson.Validate(loose); err != nil {
				t.Errorf("%x: %v", []byte(loose), err)
			}
		}
	})
}

// FuzzDeltaFromRaw checks that what passes is valid BSON that reads the same.
func FuzzDeltaFromRaw(f *testing.F) {
	for _, seed := range seedDeltas(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := event.DeltaFromRaw(data)
		if err != nil || d == nil {
			return
		}
		if err := rawbson.Validate(data); err != nil {
			t.Errorf("passed, but: %v", err)
		}
	})
}

// FuzzDeltaFromPaths checks that paths never panic and make valid deltas.
func FuzzDeltaFromPaths(f *testing.F) {
	f.Add([]byte(raw(f, `{"updatedFields":{"a.0.b":1},"removedFields":["c"],"truncatedArrays":[{"field":"x","newSize":1}],"disambiguatedPaths":{"a.0.b":["a","0","b"]}}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, dots := range []event.DotRule{event.DotsSeparate, event.DotsUncertain} {
			if d, err := event.DeltaFromUpdateDescription(data, dots); err == nil {
				fromRaw(t, d.Raw())
			}
		}
		if d, err := event.DeltaFromModifiers(data, nil); err == nil {
			fromRaw(t, d.Raw())
		}
	})
}

func BenchmarkApply(b *testing.B) {
	var fields strings.Builder
	for i := range 40 {
		fields.WriteString(`,"field_` + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + `":"value of some length"`)
	}
	doc := raw(b, `{"_id":1,"status":"new","items":[{"sku":"a","n":1},{"sku":"b","n":2}]`+fields.String()+`,"tail":1}`)
	for _, bc := range []struct {
		name  string
		delta event.Delta
	}{
		{"diff one field", fromRaw(b, raw(b, `{"u":{"status":"paid"}}`))},
		{"diff array and insert", fromRaw(b, raw(b, `{"d":{"tail":false},"u":{"status":"paid"},"i":{"new":1},"sitems":{"a":true,"s1":{"u":{"n":3}},"u2":{"sku":"c"}}}`))},
		{"ordered one field", modifiers(b, `{"$set":{"status":"paid"}}`)},
		{"ordered array", modifiers(b, `{"$set":{"items.1.n":3,"new":1,"status":"paid"},"$unset":{"tail":true}}`)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if _, err := bc.delta.Apply(doc, event.Strict); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeltaFromModifiers(b *testing.B) {
	set := bson.Raw(raw(b, `{"items.1.n":3,"new":1,"status":"paid"}`))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.DeltaFromModifiers(set, nil); err != nil {
			b.Fatal(err)
		}
	}
}
