package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

const usage = `usage: embedded serve [flags]

Runs a Kafka-compatible broker and MongoDB-compatible servers until SIGINT or
SIGTERM. When all of them accept connections, one line of JSON is printed:

  {"brokers":["127.0.0.1:9092"],"mongodb":{"source":"mongodb://127.0.0.1:27017/?directConnection=true"}}

flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

// run is the whole program. It returns after every server has stopped.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "serve" {
		args = args[1:]
	} else if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("unknown command %q (there is one: serve)", args[0])
	}
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, stdout, stderr)
}

// serve starts every stand-in, announces them and waits for ctx to end or for
// one of them to fail.
func serve(ctx context.Context, cfg config, stdout, stderr io.Writer) (err error) {
	unlock, err := lock(cfg.dir)
	if err != nil {
		return err
	}
	defer unlock()

	var ready announcement
	if cfg.kafka != "" {
		kafka, startErr := startKafka(ctx, cfg)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, kafka.close()) }()
		ready.Brokers = kafka.brokers
	}

	group, ctx := errgroup.WithContext(ctx)
	// The broker alone is reason enough to stay.
	group.Go(func() error {
		<-ctx.Done()
		return nil
	})
	servers, err := startMongoDB(ctx, group, cfg, stderr)
	if err == nil {
		ready.MongoDB = servers
		err = announce(ready, cfg.addresses, stdout)
	}
	if err != nil {
		// The group's context must end before Wait, or the servers would run on.
		group.Go(func() error { return err })
	}
	return group.Wait()
}

// announcement is the line that says where everything listens.
type announcement struct {
	Brokers []string          `json:"brokers,omitempty"`
	MongoDB map[string]string `json:"mongodb,omitempty"`
}

// announce writes a to stdout and, where path is not empty, to that file, which
// appears complete or not at all.
func announce(a announcement, path string, stdout io.Writer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	line = append(line, '\n')
	if path != "" {
		if err := writeFile(path, line); err != nil {
			return fmt.Errorf("write addresses: %w", err)
		}
	}
	if _, err := stdout.Write(line); err != nil {
		return fmt.Errorf("print addresses: %w", err)
	}
	return nil
}

// writeFile replaces path by a file with the given content in one step.
func writeFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".addresses-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), path)
}

// lock takes the data directory for this process; two processes on one
// directory would destroy it. The lock ends with the process, however it ends.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s (is another process using it?): %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
