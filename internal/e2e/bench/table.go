package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
)

// target is the ratio to its ceiling that every service shall reach.
const target = 0.5

// print writes the table as Markdown.
func (b *bench) print(w io.Writer) error {
	var s strings.Builder
	if !b.servers.Real() {
		fmt.Fprintf(&s, "STAND-INS: %s and %s. These figures say nothing about real servers.\n\n", b.servers.Kafka, b.servers.MongoDB)
	}
	fmt.Fprintf(&s, "%s and %s, %d cores, documents of %d bytes\n\n", b.servers.Kafka, b.servers.MongoDB, runtime.NumCPU(), b.cfg.size)
	s.WriteString("| what | events | events/s | ceiling, events/s | ratio | target |\n|---|---:|---:|---:|---:|---:|\n")
	for _, r := range b.rows {
		fmt.Fprintf(&s, "| %s | %d | %.0f | %.0f | %.2f | %.1f |\n", r.what, r.events, r.rate, r.ceiling, r.rate/r.ceiling, target)
	}
	_, err := io.WriteString(w, s.String())
	return err
}
