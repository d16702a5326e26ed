// Command bench measures the services as they run in production, as processes
// of their own, against ceilings that are measured in the same run on the same
// servers:
//
//   - capture from a prepared oplog into Kafka, against a bare tailing cursor
//     and a bare producer;
//   - apply from a prepared topic, against a bare consumer and bare unordered
//     bulk writes, one for each partition at a time.
//
// It takes real servers where it finds them; on stand-ins the figures say
// nothing about real ones, and it says so.
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

	"github.com/tributarydb/tributary/internal/e2e/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	engines   stack.Choice
	documents int
	size      int
	rounds    int
}

func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	engines := fs.String("engines", string(stack.Auto), "auto takes real servers where they are found, embedded never, real always")
	fs.IntVar(&cfg.documents, "documents", 0, "`number` of documents of each load; 0 is 300 000 on real servers and 1 000 on stand-ins")
	fs.IntVar(&cfg.size, "size", 1000, "`bytes` of a document, about")
	fs.IntVar(&cfg.rounds, "rounds", 2, "how often each load is measured; the table has each round")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	cfg.engines = stack.Choice(*engines)
	if fs.NArg() > 0 || cfg.rounds < 1 || cfg.size < 1 {
		return config{}, fmt.Errorf("unexpected arguments %v", args)
	}
	return cfg, nil
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tributary-bench-")
	if err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{cfg: cfg, dir: dir, log: stderr}
	defer func() { err = errors.Join(err, b.stop(context.WithoutCancel(ctx))) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	return b.print(stdout)
}
