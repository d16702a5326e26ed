// Command bench measures Tributary end to end on the real engines: throughput of
// changes with each service alone and with all of them at work, the processor
// time and memory of each process, the lag at half of that rate, and what
// compression costs and saves. It stops by itself after a few minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	documents   int
	lagTime     time.Duration
	compression bool
}

// totalTimeout bounds everything.
const totalTimeout = 15 * time.Minute

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var cfg config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.documents, "documents", 200_000, "`number` of documents of 1 KiB that are inserted and then updated")
	flags.DurationVar(&cfg.lagTime, "lag", 30*time.Second, "how long the lag is measured")
	flags.BoolVar(&cfg.compression, "compression", true, "compare the compressions as well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, totalTimeout, fmt.Errorf("not done after %s", totalTimeout))
	defer cancel()
	dir, err := os.MkdirTemp("", "tributary-bench-")
	if err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := stack.StartServers(ctx, dir, stack.Real, destination)
	if missing, ok := errors.AsType[*engine.MissingError](err); ok {
		_, err := fmt.Fprintf(out, "end to end: NOT MEASURED: %v\n", missing)
		return err
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	b, err := newBench(ctx, cfg, dir, servers, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	return b.run(ctx)
}
