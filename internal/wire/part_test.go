package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/schemas"
)

func TestGoldenPart(t *testing.T) {
	c := testCodec(t)
	parts, err := c.Split(bytes.Repeat([]byte("abcdefgh"), 20), 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3", len(parts))
	}
	golden(t, "record_part.golden", parts[1])
	native, rest, err := goavroCodec(t, schemas.RecordPart).NativeFromSingle(parts[1])
	if err != nil || len(rest) > 0 {
		t.Fatalf("goavro: %v, %d bytes left", err, len(rest))
	}
	want := map[string]any{"index": int32(1), "count": int32(3), "bytes": bytes.Repeat([]byte("efghabcd"), 8)[:60]}
	if d := cmp.Diff(want, native); d != "" {
		t.Errorf("part 1 (-want +got):\n%s", d)
	}
}

func TestPartsAreAssembled(t *testing.T) {
	c := testCodec(t)
	for _, size := range []int{0, 1, 40, 41, 99, 100, 101, 1_000, 4_321} {
		record := make([]byte, size)
		for i := range record {
			record[i] = byte(i * 7)
		}
		parts, err := c.Split(record, 100)
		if err != nil {
			t.Fatal(err)
		}
		a := c.NewAssembler(size)
		for i, p := range parts {
			if len(p) > 100 {
				t.Errorf("size %d: part of %d bytes", size, len(p))
			}
			whole, err := a.Add(p)
			if err != nil {
				t.Fatal(err)
			}
			last := i == len(parts)-1
			if (whole != nil) != last && size > 0 {
				t.Fatalf("size %d: part %d of %d returned a record: %t", size, i, len(parts), whole != nil)
			}
			if a.Open() == last {
				t.Errorf("size %d: open after part %d of %d: %t", size, i, len(parts), a.Open())
			}
			if last && !bytes.Equal(whole, record) {
				t.Errorf("size %d: assembled record differs", size)
			}
		}
	}
}

func TestAssemblerRefuses(t *testing.T) {
	c := testCodec(t)
	parts, err := c.Split(make([]byte, 300), 140)
	if err != nil {
		t.Fatal(err)
	}
	others, err := c.Split(make([]byte, 500), 140)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := c.AppendEvent(nil, &event.Event{Op: event.OpWatermark})
	if err != nil {
		t.Fatal(err)
	}
	for name, records := range map[string][][]byte{
		"begins in the middle": {parts[1]},
		"a part is missing":    {parts[0], parts[2]},
		"a part comes twice":   {parts[0], parts[0]},
		"another record":       {parts[0], plain},
		"another count":        {parts[0], others[1]},
		"too large":            {parts[0], parts[1], parts[2], others[0], others[1], others[2], others[3]},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.NewAssembler(300)
			var err error
			for _, r := range records {
				if _, err = a.Add(r); err != nil {
					break
				}
			}
			if !errors.Is(err, ErrParts) {
				t.Fatalf("got %v, want ErrParts", err)
			}
			if a.Open() || a.Held() != 0 {
				t.Errorf("the assembler still holds parts")
			}
		})
	}
	if _, err := c.Split(make([]byte, 300), partOverhead); err == nil {
		t.Error("parts without room are made")
	}
	if _, err := c.NewAssembler(300).Add(parts[0][:headerBytes+1]); err == nil {
		t.Error("a part that was cut is taken")
	}
}

func FuzzAssembler(f *testing.F) {
	c := testCodec(f)
	parts, err := c.Split(make([]byte, 300), 140)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range parts {
		f.Add(p, parts[1])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		a := c.NewAssembler(1 << 10)
		for _, r := range [][]byte{first, second} {
			whole, err := a.Add(r)
			if err == nil && a.Held() > 1<<10 {
				t.Fatalf("holds %d bytes", a.Held())
			}
			if c.isPart(r) && len(whole) > 1<<10 {
				t.Fatalf("assembled %d bytes", len(whole))
			}
		}
	})
}
