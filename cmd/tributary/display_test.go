package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/state"
)

func seconds(n float64) *float64 { return &n }

// loading are the services of a load that is under way.
func loading() []state.Status {
	return []state.Status{
		{Service: "capture", Instance: "here", State: state.StateRunning},
		{Service: "snapshot", Instance: "here", State: state.StateRunning, Progress: &state.Progress{
			Phase: state.LoadReading, Run: "r", Percent: 45.29, Documents: state.Share{Done: 1200, Total: 2700}, Bytes: state.Share{Done: 1 << 20, Total: 5 << 19},
			Chunks: state.Share{Done: 54, Total: 120}, Collections: state.Share{Done: 3, Total: 10},
			Rate: state.Rate{Documents: 100.4, Bytes: 2048}, AverageRate: state.Rate{Documents: 90, Bytes: 1000}, ETASeconds: seconds(133),
			Active: []state.CollectionProgress{
				{NS: "shop.orders", Percent: 34, Documents: state.Share{Done: 340, Total: 1000}, Bytes: state.Share{Done: 3400, Total: 10_000}, Chunks: state.Share{Done: 1, Total: 3}, Rate: state.Rate{Documents: 50, Bytes: 500}},
				{NS: "shop.evil\x1b[2J", Percent: 0.05, Documents: state.Share{Done: 1, Total: 2000}, Chunks: state.Share{Total: 1}},
			},
			MoreActive: 7,
		}},
		{Service: "apply", Instance: "here/eu", Destination: "eu", State: state.StateRetrying, Cause: "connection refused", Progress: &state.Progress{
			Phase: state.LoadIndexes, Run: "r", Percent: 100, Documents: state.Share{Done: 2700, Total: 2700}, Bytes: state.Share{Done: 3, Total: 3},
		}, Builds: []state.IndexBuild{{NS: "shop.orders", Step: "Index Build: scanning collection", Done: 5, Total: 20}}},
		{Service: "apply", Instance: "here/us", Destination: "us", Progress: &state.Progress{Phase: state.LoadPlanning}},
	}
}

func TestBlock(t *testing.T) {
	want := []string{
		"source       reading      [##########..............]   45.2%  1.0 MiB/2.5 MiB  1200/2700 docs  3/10 collections  100 docs/s 2.0 KiB/s  2m13s left",
		"  shop.orders                                          34.0%  3.3 KiB/9.8 KiB  340/1000 docs  50 docs/s 500 B/s",
		"  shop.evil?[2J                                         0.0%  0 B  1/2000 docs",
		"  and 7 more collections",
		"eu           indexes      [########################]  100.0%  3 B/3 B  2700/2700 docs  0 collections",
		"  indexes of shop.orders: Index Build: scanning collection 5/20",
		"  retrying: connection refused",
		"us           planning     [........................]    0.0%  0 B  0 docs  0 collections",
	}
	if diff := cmp.Diff(want, block(loading(), palette{})); diff != "" {
		t.Errorf("block (-want +got):\n%s", diff)
	}
	plain := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "")
	for i, line := range block(loading(), palette{done: "\x1b[32m", plain: "\x1b[0m"}) {
		if got := plain.Replace(line); got != want[i] || strings.HasPrefix(line, "source") && got == line {
			t.Errorf("coloured line %q", line)
		}
	}
}

// paper is a terminal of some lines that understands what a screen sends.
type paper struct {
	lines []string
	row   int
}

func (p *paper) Write(b []byte) (int, error) {
	for text := string(b); text != ""; {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			n := strings.IndexAny(text, "ABCDHJKm")
			if n < 0 {
				return 0, fmt.Errorf("unknown sequence %q", text)
			}
			switch text[n] {
			case 'A':
				up, err := strconv.Atoi(text[2:n])
				if err != nil || up > p.row {
					return 0, fmt.Errorf("up by %q from row %d", text[2:n], p.row)
				}
				p.row -= up
			case 'J':
				p.lines = p.lines[:p.row]
			}
			text = text[n+1:]
		default:
			for len(p.lines) <= p.row {
				p.lines = append(p.lines, "")
			}
			switch text[0] {
			case '\r':
			case '\n':
				p.row++
			default:
				p.lines[p.row] += text[:1]
			}
			text = text[1:]
		}
	}
	return len(b), nil
}

func (p *paper) String() string { return strings.TrimRight(strings.Join(p.lines, "\n"), "\n") }

func TestScreen(t *testing.T) {
	p := &paper{}
	width, height := 10, 4
	s := &screen{out: p, size: func() (int, int) { return width, height }}
	say := func(text string) {
		t.Helper()
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	stands := func(want string) {
		t.Helper()
		if p.String() != want {
			t.Errorf("on the terminal stands\n%s\nwant\n%s", p, want)
		}
	}
	say("begin\n")
	s.show([]string{"a", "b"})
	stands("begin\na\nb")
	say("news\n")
	stands("begin\nnews\na\nb")
	s.show([]string{"longer than the terminal", "b", "c", "d", "e"})
	stands("begin\nnews\nlonger th\nb\nc")
	say("half a ")
	stands("begin\nnews\nhalf a ")
	s.show([]string{"x"})
	say("line\n")
	stands("begin\nnews\nhalf a line\nx")
	// The terminal echoes ^C where the cursor is.
	if _, err := p.Write([]byte("^C")); err != nil {
		t.Fatal(err)
	}
	say("stopping\n")
	stands("begin\nnews\nhalf a line\nstopping\nx")
	s.show([]string{"the end"})
	s.leave()
	say("after\n")
	stands("begin\nnews\nhalf a line\nstopping\nthe end\nafter")
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		line  string
		width int
		want  string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"äöüß", 3, "äöü"},
		{"\x1b[32mab\x1b[0mcd", 3, "\x1b[32mab\x1b[0mc\x1b[0m"},
		{"\x1b[32mabcd", 2, "\x1b[32mab\x1b[0m"},
		{"ab", 0, "a"},
	} {
		if got := cut(test.line, test.width); got != test.want {
			t.Errorf("cut %q to %d: %q, want %q", test.line, test.width, got, test.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		percentText(99.99):              "99.9%",
		byteText(1023):                  "1023 B",
		byteText(3 << 40):               "3.0 TiB",
		leftText(nil):                   "",
		leftText(seconds(0)):            "0s",
		leftText(seconds(3*86400 + 60)): "3d1m0s",
		leftText(seconds(1e300)):        "1000d0s",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Where there is no terminal, each phase is logged once and every half minute.
func TestProgressIsLogged(t *testing.T) {
	var log bytes.Buffer
	statuses := loading()[1:2]
	d := &display{log: zerolog.New(&log), statuses: func() []state.Status { return statuses }, said: map[string]saying{}}
	phase := func(name string) {
		p := *statuses[0].Progress
		p.Phase = name
		statuses[0].Progress = &p
	}
	lines := func(from, to int) (phases []string) {
		t.Helper()
		for s := from; s < to; s++ {
			d.step(time.Unix(int64(s), 0))
		}
		for line := range strings.Lines(log.String()) {
			var fields map[string]string
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatal(err)
			}
			phases = append(phases, fields["phase"]+" "+fields["percent"]+" "+fields["left"])
		}
		log.Reset()
		return phases
	}
	for _, test := range []struct {
		phase    string
		from, to int
		want     []string
	}{
		{state.LoadReading, 0, 70, []string{"reading 45.2% 2m13s", "reading 45.2% 2m13s", "reading 45.2% 2m13s"}},
		{state.LoadDone, 70, 200, []string{"done 45.2% 2m13s"}},
	} {
		phase(test.phase)
		if diff := cmp.Diff(test.want, lines(test.from, test.to)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.phase, diff)
		}
	}
}

// The status shows a load as long as it is under way anywhere, and what waits.
func TestStatusOfALoad(t *testing.T) {
	now := time.Unix(10_000, 0)
	status := pipelineStatus{Pipeline: "shop", Services: []serviceStatus{}}
	for _, s := range loading() {
		s.Updated, s.Since, s.LagSeconds = now, now, -1
		status.Services = append(status.Services, serviceStatus{Status: s})
	}
	status.Services[0].Open = &state.OpenTransactions{Count: 2, Oldest: time.Unix(9000, 0), AgeSeconds: 900, Session: "abcd", Number: 5, Prepared: true}
	status.Services[3].Deferred = &state.DeferredIndexes{Count: 9, Unique: 5, TTL: 3, Failed: 1, Names: []string{"d.a i_1", "d.b i_1", "d.c i_1", "d.d i_1", "d.e i_1", "d.f i_1"}}
	old := status.Services[1]
	old.Instance, old.Updated, old.Progress = "gone", now.Add(-time.Hour), &state.Progress{Phase: state.LoadPlanning}
	status.Services = append(status.Services[:1:1], append([]serviceStatus{old}, status.Services[1:]...)...)
	text := status.text(now)
	for _, want := range []string{
		"\nLOAD                       PHASE      DONE     DOCUMENTS   BYTES             CHUNKS   COLLECTIONS   NOW                    AVERAGE              LEFT\n" +
			"source                     reading    45.2%    1200/2700   1.0 MiB/2.5 MiB   54/120   3/10          100 docs/s 2.0 KiB/s   90 docs/s 1000 B/s   2m13s\n",
		"\n  and 7 more collections ",
		"\neu                         indexes    100.0%   2700/2700   3 B/3 B ",
		"\neu builds indexes of shop.orders: Index Build: scanning collection 5/20\n",
		"\n9 indexes of us wait for `tributary finalize` (5 unique, 3 TTL, 1 that could not be built): d.a i_1, d.b i_1, d.c i_1, d.d i_1, d.e i_1 and 4 more\n",
		"\n2 transactions are open at the source, the oldest one since 1970-01-01T02:30:00Z (15m0s): session abcd, transaction 5, prepared; a restart reads from there\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for i := range status.Services {
		if p := status.Services[i].Progress; p != nil {
			status.Services[i].Progress = &state.Progress{Phase: state.LoadDone, Percent: 100}
		}
	}
	if text := status.text(now); strings.Contains(text, "LOAD ") {
		t.Errorf("a load that is over is shown:\n%s", text)
	}
}
