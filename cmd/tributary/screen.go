package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen is a terminal with a block of lines at its end that is redrawn in place,
// under what is written to it. It is safe for concurrent use.
type screen struct {
	out io.Writer
	// size is the terminal's in characters.
	size func() (width, height int)

	mu sync.Mutex
	// block is what stands there now, lines as they were given.
	block []string
	drawn int
	// open says that what was written last does not end a line.
	open bool
}

// newScreen returns the screen behind a file, nil where that is no terminal
// whose cursor can be moved.
func newScreen(out *os.File, env func(string) (string, bool)) *screen {
	fd := int(out.Fd())
	if kind, _ := env("TERM"); kind == "dumb" || !term.IsTerminal(fd) {
		return nil
	}
	return &screen{out: out, size: func() (int, int) {
		width, height, err := term.GetSize(fd)
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	}}
}

// Write prints above the block.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	n, err := s.out.Write(p)
	s.open = len(p) > 0 && p[len(p)-1] != '\n'
	s.draw()
	return n, err
}

// show replaces the block.
func (s *screen) show(block []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.block = block
	s.draw()
}

// leave leaves the block where it is, with the cursor on a line of its own below
// it: what comes next does not touch it.
func (s *screen) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.block, s.drawn = nil, 0
}

// erase removes the block from the terminal.
func (s *screen) erase() {
	if s.drawn > 0 {
		// To the first column, since the terminal echoes keys; up to the block's
		// first line; clear to the end of the screen.
		s.print(fmt.Sprintf("\r\x1b[%dA\x1b[J", s.drawn))
		s.drawn = 0
	}
}

// draw puts the block at the end. Lines are cut, not wrapped, and no more are
// drawn than can be erased.
func (s *screen) draw() {
	if len(s.block) == 0 || s.open {
		return
	}
	width, height := s.size()
	lines := s.block[:min(len(s.block), max(height-1, 1))]
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(cut(line, width-1))
		b.WriteByte('\n')
	}
	s.print(b.String())
	s.drawn = len(lines)
}

// print has nobody to tell of a terminal that is gone.
func (s *screen) print(text string) { _, _ = io.WriteString(s.out, text) }

// cut shortens a line to a number of characters, sequences that set colours not
// counted; a line that is cut ends with the terminal's own colour.
func cut(line string, width int) string {
	var b strings.Builder
	shown, escape, coloured := 0, false, false
	for _, r := range line {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape, coloured = true, true
		case shown >= max(width, 1):
			if coloured {
				b.WriteString("\x1b[0m")
			}
			return b.String()
		default:
			shown++
		}
		b.WriteRune(r)
	}
	return b.String()
}
