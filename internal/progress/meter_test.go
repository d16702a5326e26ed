package progress

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
)

func TestMeter(t *testing.T) {
	type step struct {
		second    float64
		documents int64
	}
	const unknown = -1
	every := func(from, to int, perSecond, begin int64) []step {
		var list []step
		for s := from; s <= to; s++ {
			list = append(list, step{float64(s), begin + int64(s-from)*perSecond})
		}
		return list
	}
	for _, test := range []struct {
		name                  string
		steps                 []step
		present, average, eta float64
	}{
		{"nothing yet", nil, 0, 0, unknown},
		{"what was done before", []step{{0, 5000}}, 0, 0, unknown},
		{"too early to say", every(0, 9, 10, 5000), 10, 10, unknown},
		{"steady", every(0, 10, 10, 5000), 10, 10, 490},
		{"as few news as a look now and then", []step{{0, 0}, {5, 50}, {10, 100}, {15, 150}}, 10, 10, 985},
		{"quicker of late", append(every(0, 100, 10, 0), every(101, 200, 50, 1050)...), 50, 30, 78},
		{"held back", append(every(0, 10, 100, 0), every(11, 120, 0, 1000)...), 0, 1000. / 120, unknown},
		{"several looks in a second", []step{{0, 0}, {0.2, 1}, {0.4, 2}, {20, 200}, {20.1, 201}, {20.2, 202}}, 10, 10, 979.8},
		{"news that contradict each other", []step{{0, 100}, {10, 200}, {20, 150}, {30, 400}}, 10, 10, 960},
		{"more than there is", every(0, 10, 2000, 0), 2000, 2000, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Meter
			last := int64(0)
			for _, s := range test.steps {
				last = max(last, s.documents)
				m.Observe(time.Unix(1000, 0).Add(time.Duration(s.second*float64(time.Second))), Amount{s.documents, 10 * s.documents})
			}
			near := func(what string, got, want float64) {
				if math.Abs(got-want) > 0.02*math.Abs(want) {
					t.Errorf("%s %v, want %v", what, got, want)
				}
			}
			near("present rate", m.Present().Documents, test.present)
			near("present bytes", m.Present().Bytes, 10*test.present)
			near("average", m.Average().Documents, test.average)
			total := max(last, 10_000)
			for of, eta := range map[string]*float64{
				"bytes":     m.ETA(state.Share{}, state.Share{Done: 10 * last, Total: 10 * total}),
				"documents": m.ETA(state.Share{Done: last, Total: total}, state.Share{}),
			} {
				switch {
				case eta == nil && test.eta != unknown:
					t.Errorf("no time left by %s, want %v", of, test.eta)
				case eta != nil && test.eta == unknown:
					t.Errorf("time left by %s %v, want none", of, *eta)
				case eta != nil && test.name != "steady" && test.name != "quicker of late":
					near("time left by "+of, *eta, test.eta)
				case eta != nil:
					near("time left by "+of, *eta, float64(total-last)/test.present)
				}
			}
			if len(m.samples) > 70 {
				t.Errorf("%d samples are kept", len(m.samples))
			}
		})
	}
}

// A load of thousands of collections is told in few words; those with most to
// do are named.
func TestReckon(t *testing.T) {
	m := &state.Manifest{Run: "r", Started: time.Unix(5, 0).UTC()}
	f := Figures{Documents: state.Share{Done: 100, Total: 1000}, Bytes: state.Share{Done: 1000, Total: 10_000}, Chunks: state.Share{Done: 1, Total: 2000}, Collections: state.Share{Total: 2000}}
	for i := range 2000 {
		f.Active = append(f.Active, Figure{
			NS: event.Namespace{DB: "d", Coll: fmt.Sprintf("%04d", i)}, Documents: state.Share{Done: 1, Total: 2 + int64(i)}, Chunks: state.Share{Total: 1},
		})
	}
	var r Reckoner
	first := r.Reckon(time.Unix(100, 0), state.LoadReading, m, f)
	if len(first.Active) != state.MaxActive || first.MoreActive != 1980 || first.Active[0].NS != "d.1980" || first.Active[19].NS != "d.1999" || first.ETASeconds != nil {
		t.Errorf("progress %+v", first)
	}
	f.Documents.Done, f.Bytes.Done, f.Active = 300, 3000, f.Active[1999:]
	f.Active[0].Documents.Done = 201
	got := r.Reckon(time.Unix(120, 0), state.LoadReading, m, f)
	eta, own := 70.0, 180.0
	want := &state.Progress{
		Phase: state.LoadReading, Run: "r", Started: m.Started, Percent: 30, Documents: f.Documents, Bytes: f.Bytes, Chunks: f.Chunks, Collections: f.Collections,
		Rate: state.Rate{Documents: 10, Bytes: 100}, AverageRate: state.Rate{Documents: 10, Bytes: 100}, ETASeconds: &eta,
		Active: []state.CollectionProgress{{
			NS: "d.1999", Percent: 100. * 201 / 2001, Documents: state.Share{Done: 201, Total: 2001}, Chunks: state.Share{Total: 1}, Rate: state.Rate{Documents: 10}, ETASeconds: &own,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	// What is known of the reading may lag behind: the bar stays.
	f.Bytes.Done = 2000
	if got := r.Reckon(time.Unix(121, 0), state.LoadLoading, m, f); got.Percent != 30 {
		t.Errorf("%v percent", got.Percent)
	}
	if got := r.Reckon(time.Unix(122, 0), state.LoadIndexes, m, f); got.Rate != (state.Rate{}) || got.ETASeconds != nil || got.Active != nil {
		t.Errorf("rates although nothing is loaded any more: %+v", got)
	}
	r.Floor("r", 20)
	r.Floor("r", 35)
	if got := r.Reckon(time.Unix(122, 0), state.LoadLoading, m, f); got.Percent != 35 {
		t.Errorf("%v percent although 35 were said before", got.Percent)
	}
	if got := r.Reckon(time.Unix(123, 0), state.LoadReading, &state.Manifest{Run: "s"}, Figures{Chunks: state.Share{Total: 1}}); got.Percent != 0 || got.Run != "s" {
		t.Errorf("another run: %+v", got)
	}
}
