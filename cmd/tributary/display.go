package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
)

const (
	// displayInterval is how often the block on a terminal is redrawn,
	// displayLog how often a line is logged elsewhere.
	displayInterval = time.Second
	displayLog      = 30 * time.Second
	// barWidth is the length of a bar in characters.
	barWidth = 24
	// shownActive is how many collections a side of the block names.
	shownActive = 6
)

// display shows how far the load has come while services run: a copy that ends by
// itself has a block on the terminal, everything else a line in the log now and
// then.
type display struct {
	// screen is nil where there is no block.
	screen   *screen
	paint    palette
	log      zerolog.Logger
	statuses func() []state.Status
	// said is, by label, the phase that was logged last, and when.
	said map[string]saying
}

// palette holds the sequences that begin a colour and end it; empty for none.
type palette struct{ done, plain string }

type saying struct {
	phase string
	at    time.Time
}

// newDisplay makes the display of a process.
func (p *process) newDisplay(statuses func() []state.Status) *display {
	d := &display{log: p.log, statuses: statuses, said: map[string]saying{}}
	if p.cfg.OneOff() {
		d.screen = p.app.screen
	}
	if plain, _ := p.app.env("NO_COLOR"); plain == "" {
		d.paint = palette{done: "\x1b[32m", plain: "\x1b[0m"}
	}
	return d
}

// run shows until ctx ends, and then once more: what the copy came to. It
// returns nil.
func (d *display) run(ctx context.Context) error {
	tick := time.NewTicker(displayInterval)
	defer tick.Stop()
	for {
		d.step(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.step(time.Now())
			if d.screen != nil {
				d.screen.leave()
			}
			return nil
		}
	}
}

func (d *display) step(now time.Time) {
	statuses := d.statuses()
	if d.screen != nil {
		d.screen.show(block(statuses, d.paint))
		return
	}
	for i := range statuses {
		d.tell(now, &statuses[i])
	}
}

// tell logs a progress: each new phase, and now and then while one lasts.
func (d *display) tell(now time.Time, s *state.Status) {
	p := s.Progress
	if p == nil {
		return
	}
	label := loadLabel(*s)
	last, known := d.said[label]
	still := p.Phase == state.LoadDone || p.Phase == state.LoadPlanning
	if known && last.phase == p.Phase && (still || now.Sub(last.at) < displayLog) {
		return
	}
	d.said[label] = saying{p.Phase, now}
	event := d.log.Info().Str(logfield.Service, s.Service).Str(logfield.Phase, p.Phase)
	if s.Destination != "" {
		event = event.Str(logfield.Destination, s.Destination)
	}
	if p.Run != "" {
		event = event.Str(logfield.Run, p.Run)
	}
	event.Str(logfield.Percent, percentText(p.Percent)).
		Str(logfield.Documents, shareText(p.Documents)).Str(logfield.Bytes, byteShareText(p.Bytes)).
		Str(logfield.Chunks, shareText(p.Chunks)).Str(logfield.Rate, rateText(p.Rate)).Str(logfield.Left, leftText(p.ETASeconds)).
		Msg("progress of the load")
}

// block is what a terminal shows: for each side a line with a bar, and below it
// the collections that are under way.
func block(statuses []state.Status, paint palette) []string {
	var lines []string
	for i := range statuses {
		s := &statuses[i]
		if s.Progress == nil {
			continue
		}
		p := s.Progress
		lines = append(lines, joined(
			fmt.Sprintf("%-12s %-11s", cut(printable(loadLabel(*s)), 12), p.Phase), bar(p.Percent, paint), fmt.Sprintf("%6s", percentText(p.Percent)),
			byteShareText(p.Bytes), shareText(p.Documents)+" docs", shareText(p.Collections)+" collections", rateText(p.Rate), left(p.ETASeconds)))
		for _, c := range p.Active[:min(len(p.Active), shownActive)] {
			lines = append(lines, joined(
				fmt.Sprintf("  %-50s", printable(c.NS)), fmt.Sprintf("%6s", percentText(c.Percent)), byteShareText(c.Bytes), shareText(c.Documents)+" docs", rateText(c.Rate), left(c.ETASeconds)))
		}
		if more := p.MoreActive + max(len(p.Active)-shownActive, 0); more > 0 {
			lines = append(lines, fmt.Sprintf("  and %d more collections", more))
		}
		for _, b := range s.Builds[:min(len(s.Builds), shownActive)] {
			lines = append(lines, fmt.Sprintf("  indexes of %s: %s %s", printable(b.NS), printable(b.Step), shareText(state.Share{Done: b.Done, Total: b.Total})))
		}
		if s.State == state.StateRetrying {
			lines = append(lines, "  retrying: "+printable(s.Cause))
		}
	}
	return lines
}

// left says how long it will go on, or nothing.
func left(eta *float64) string {
	if text := leftText(eta); text != "" {
		return text + " left"
	}
	return ""
}

// bar draws a part of 100.
func bar(percent float64, paint palette) string {
	full := min(max(int(percent/100*barWidth), 0), barWidth)
	done, rest := strings.Repeat("#", full), strings.Repeat(".", barWidth-full)
	return "[" + paint.done + done + paint.plain + rest + "]"
}

// joined puts what is not empty side by side.
func joined(parts ...string) string {
	var list []string
	for _, part := range parts {
		if part != "" {
			list = append(list, part)
		}
	}
	return strings.Join(list, "  ")
}
