package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
)

// version is set by the build: -ldflags "-X main.version=…". The linker can set
// nothing but a variable; nothing else writes it.
var version = "dev"

const (
	// exitAborted is the code after a second signal.
	exitAborted = 130
	// sameSignal is how soon after the first a signal is the same one: some
	// supervisors send it to the process and to its group.
	sameSignal = 500 * time.Millisecond
)

func main() {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" // seconds are too coarse
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	a := &app{stdout: os.Stdout, stderr: os.Stderr, env: config.Environment, version: version}
	if a.screen = newScreen(os.Stderr, a.env); a.screen != nil {
		a.stderr = a.screen
	}
	os.Exit(attend(signals, a, os.Args[1:]))
}

// attend runs a command until it ends. The first signal asks it to stop: it
// drains, commits and returns 0. The second one gives up waiting.
func attend(signals <-chan os.Signal, a *app, args []string) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan int, 1)
	go func() { ended <- a.main(ctx, args) }() // ends with the command, or with the process
	var first time.Time
	for {
		select {
		case code := <-ended:
			return code
		case s := <-signals:
			if !first.IsZero() {
				if time.Since(first) < sameSignal {
					continue
				}
				a.say("tributary: %s again: aborted; what was not committed will be done again", s)
				return exitAborted
			}
			first = time.Now()
			a.say("tributary: %s: stopping (again to abort)", s)
			stop()
		}
	}
}
