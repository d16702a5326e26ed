// Command writer fills a MongoDB deployment with the demo's data set, unless it
// is there already, and keeps writing to it until SIGINT or SIGTERM.
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

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/mongodb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	uri       string
	documents int
	rate      int
	seed      uint64
	ddl       bool
	duration  time.Duration
}

func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("writer", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&cfg.uri, "uri", "", "connection `string` of the source (required)")
	fs.IntVar(&cfg.documents, "documents", 200_000, "`number` of documents that the data set has")
	fs.IntVar(&cfg.rate, "rate", 500, "operations per second; 0 is as fast as the server takes them")
	fs.Uint64Var(&cfg.seed, "seed", 0, "decides what is written; 0 takes the clock")
	fs.BoolVar(&cfg.ddl, "ddl", true, "change definitions as well: collections, views, databases, indexes")
	fs.DurationVar(&cfg.duration, "duration", 0, "how long to write; 0 is until a signal")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	if cfg.uri == "" {
		return config{}, errors.New("-uri is required")
	}
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if cfg.seed == 0 {
		cfg.seed = uint64(time.Now().UnixNano())
	}
	return cfg, nil
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	client, err := mongodb.Connect(ctx, mongodb.Options{URI: cfg.uri, AppName: "demo-writer"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	deployment, err := mongodb.Describe(ctx, client)
	if err != nil {
		return err
	}
	work := workload.Config{
		Client: client, Seed: cfg.seed, Documents: cfg.documents,
		Standin: deployment.Standin, DDL: cfg.ddl, Rate: cfg.rate,
	}
	if err := load(ctx, client, work, stdout); err != nil {
		return err
	}
	if cfg.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.duration)
		defer cancel()
	}
	return write(ctx, work, stdout)
}

// load writes the data set if the source has none.
func load(ctx context.Context, client *mongo.Client, cfg workload.Config, stdout io.Writer) error {
	names, err := client.Database("shop").ListCollectionNames(ctx, bson.D{{Key: "name", Value: "orders"}})
	if err != nil {
		return fmt.Errorf("look for the data set: %w", err)
	}
	if len(names) > 0 {
		return nil
	}
	if _, err := fmt.Fprintf(stdout, "loading %d documents, seed %d\n", cfg.Documents, cfg.Seed); err != nil {
		return err
	}
	return workload.Load(ctx, cfg, nil)
}

// reportInterval is how often write says how far it is.
const reportInterval = 10 * time.Second

func write(ctx context.Context, cfg workload.Config, stdout io.Writer) error {
	live := workload.NewLive(cfg)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return live.Run(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(reportInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			s := live.Stats()
			if _, err := fmt.Fprintf(stdout, "%d inserts, %d updates, %d deletes, %d transactions, %d definitions\n",
				s.Inserts, s.Updates, s.Deletes, s.Transactions, s.DDL); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}
