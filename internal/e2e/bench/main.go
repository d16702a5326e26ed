// Command bench measures Tributary end to end on the real engines: throughput of
// changes with each service alone and with all of them at work, the processor
// time and memory of each process, the lag at half of that rate, what
// compression costs and saves, and a whole full load. It stops by itself after a
// few minutes.
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
	// loads are full loads to measure, in gigabytes; onlyLoads leaves the rest
	// out.
	loads     []float64
	onlyLoads bool
}

// totalTimeout bounds everything; loadTimeout is added for each gigabyte.
const totalTimeout, loadTimeout = 15 * time.Minute, 5 * time.Minute

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var cfg config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.documents, "documents", 200_000, "`number` of documents of 1 KiB that are inserted and then updated")
	flags.DurationVar(&cfg.lagTime, "lag", 30*time.Second, "how long the lag is measured")
	flags.BoolVar(&cfg.compression, "compression", true, "compare the compressions as well")
	loads := flags.String("loads", "1", "comma-separated `sizes` of full loads, in GB of documents of 1 KiB: 1,4,16 shows how they grow")
	flags.BoolVar(&cfg.onlyLoads, "only-loads", false, "measure full loads alone")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.loads, err = sizes(*loads); err != nil {
		return err
	}
	timeout := totalTimeout
	for _, size := range cfg.loads {
		timeout += time.Duration(size * float64(loadTimeout))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
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
