package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// plainInterval is how often the state is printed where there is no terminal.
const plainInterval = 2 * time.Second

// screen shows what happens: on a terminal a block of lines that is redrawn in
// place under the news, elsewhere plain lines.
type screen struct {
	out     *os.File
	live    bool
	started time.Time

	mu sync.Mutex
	// drawn is how many lines of the block stand on the terminal.
	drawn   int
	printed time.Time
	err     error
}

func newScreen(out *os.File, live bool) *screen {
	return &screen{out: out, live: live, started: time.Now()}
}

// say prints a line of news.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.write(fmt.Sprintf("%6.1fs  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...)))
}

// print prints text as it is.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.write(text)
}

// show redraws the block, or prints it on one line now and then.
func (s *screen) show(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		if time.Since(s.printed) >= plainInterval {
			s.printed = time.Now()
			s.write(fmt.Sprintf("%6.1fs    %s\n", time.Since(s.started).Seconds(), strings.Join(lines, " | ")))
		}
		return
	}
	s.erase()
	width, _, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	var b strings.Builder
	for _, line := range lines {
		runes := []rune("  " + line)
		b.WriteString(string(runes[:min(len(runes), width-1)]))
		b.WriteByte('\n')
	}
	s.write(b.String())
	s.drawn = len(lines)
}

// erase removes the block from the terminal.
func (s *screen) erase() {
	if s.drawn > 0 {
		// Up to the block's first line, then clear to the end of the screen.
		s.write(fmt.Sprintf("\x1b[%dA\x1b[J", s.drawn))
		s.drawn = 0
	}
}

// write keeps the first error: without a screen there is nothing to show, but
// the outcome still counts.
func (s *screen) write(text string) {
	if s.err == nil {
		_, s.err = s.out.WriteString(text)
	}
}
