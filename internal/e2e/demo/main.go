// Command demo shows a pipeline at work: it starts servers, fills a source with
// a shop's data, keeps writing to it, lets two destinations follow, kills
// services on the way, and proves at the end that nothing differs.
//
//	go run ./internal/e2e/demo            (make demo)
//	KEEP=1 go run ./internal/e2e/demo     leaves it running until Ctrl-C
//
// It uses a real mongod and Kafka where it finds them and stand-ins otherwise,
// everything in a temporary directory and on loopback. It exits with 0 only if
// both destinations are equal to the source.
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

	"golang.org/x/term"

	"github.com/tributarydb/tributary/internal/e2e/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	engines   stack.Choice
	documents int
	rate      int
	writing   time.Duration
	seed      uint64
	binary    string
	keep      bool
}

// parse reads the command line; KEEP=1 is -keep.
func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	engines := fs.String("engines", string(stack.Auto), "auto takes real servers where they are found, embedded never, real always")
	fs.IntVar(&cfg.documents, "documents", 0, "`number` of documents at first; 0 is 200 000 on a real source and 20 000 on the stand-in")
	fs.IntVar(&cfg.rate, "rate", 0, "writes per second; 0 is 1 500 on a real source and 150 on the stand-in")
	fs.DurationVar(&cfg.writing, "writing", 15*time.Second, "how long to go on writing once both destinations have caught up")
	fs.Uint64Var(&cfg.seed, "seed", 0, "decides what is written; 0 takes the clock")
	fs.StringVar(&cfg.binary, "binary", "", "`path` of tributary; empty builds it")
	fs.BoolVar(&cfg.keep, "keep", os.Getenv("KEEP") == "1", "leave everything running until Ctrl-C")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	cfg.engines = stack.Choice(*engines)
	switch cfg.engines {
	case stack.Auto, stack.StandIns, stack.Real:
	default:
		return config{}, fmt.Errorf("-engines=%s: want auto, embedded or real", *engines)
	}
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if cfg.seed == 0 {
		cfg.seed = uint64(time.Now().UnixNano())
	}
	return cfg, nil
}

// run is the whole program: it returns after everything has stopped and the
// directory is gone.
func run(ctx context.Context, args []string, stdout *os.File, stderr io.Writer) (err error) {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tributary-demo-")
	if err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{cfg: cfg, dir: dir, screen: newScreen(stdout, term.IsTerminal(int(stdout.Fd())))}
	defer func() { err = errors.Join(err, d.stop(context.WithoutCancel(ctx))) }()
	if err := d.play(ctx); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	return nil
}
