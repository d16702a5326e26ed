// Command kafka runs the real broker that the tests use, with the same
// settings, until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

func main() {
	port := flag.Int("port", 9092, "`port` of 127.0.0.1 for clients; 0 takes a free one")
	dir := flag.String("dir", "", "data `directory`, kept afterwards; .engines/kafka/run of the repository if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *port); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

// run starts the broker and stops it when ctx ends.
func run(ctx context.Context, dir string, port int) error {
	kafka, err := engine.FindKafka()
	if err != nil {
		return err
	}
	if dir == "" {
		root, err := engine.Root()
		if err != nil {
			return err
		}
		dir = filepath.Join(root, ".engines", "kafka", "run")
	}
	broker, err := kafka.Start(ctx, engine.KafkaConfig{Dir: dir, Port: port})
	if err != nil {
		return err
	}
	fmt.Printf("Kafka listens on %s; data and log are in %s; Ctrl-C stops it.\n", broker.Brokers[0], dir)
	select {
	case <-ctx.Done():
		return broker.Stop()
	case <-broker.Done():
		return errors.New("broker has ended by itself; its log says why")
	}
}
