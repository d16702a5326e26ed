package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/verify"
)

// destination is the name of the only one.
const destination = "eu"

// partitions of the change topic.
const partitions = 4

// The metrics that tell how far a service is.
const (
	capturedEvents = "tributary_capture_events_total"
	capturedBytes  = "tributary_capture_entry_bytes_total"
	appliedEvents  = "tributary_apply_events_total"
	appliedBytes   = "tributary_apply_bytes_total"
	cpuSeconds     = "process_cpu_seconds_total"
	residentBytes  = "process_resident_memory_bytes"
)

// bench is a pipeline that is measured.
type bench struct {
	cfg config
	// dir takes configurations and logs.
	dir     string
	servers *stack.Servers
	fleet   *stack.Fleet
	source  *mongo.Client
	target  *mongo.Client
	out     io.Writer
}

func newBench(ctx context.Context, cfg config, dir string, servers *stack.Servers, out io.Writer) (*bench, error) {
	binary, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		return nil, err
	}
	fleet, err := stack.NewFleet(dir, binary, stack.Pipeline{
		Name: "bench", Brokers: servers.Brokers, Source: servers.Source, Partitions: partitions, LogLevel: "warn",
		Destinations: []stack.Destination{{Name: destination, URI: servers.Destinations[destination]}},
	})
	if err != nil {
		return nil, err
	}
	b := &bench{cfg: cfg, dir: dir, servers: servers, fleet: fleet, out: out}
	if b.source, err = mongodb.Connect(ctx, mongodb.Options{URI: servers.Source, AppName: "bench"}); err != nil {
		return nil, err
	}
	b.target, err = mongodb.Connect(ctx, mongodb.Options{URI: servers.Destinations[destination], AppName: "bench"})
	return b, err
}

func (b *bench) close(ctx context.Context) error {
	return errors.Join(b.fleet.Kill(), b.source.Disconnect(ctx), b.target.Disconnect(ctx))
}

// run measures everything and prints it.
func (b *bench) run(ctx context.Context) error {
	if b.cfg.onlyLoads {
		return b.fullLoads(ctx)
	}
	if err := b.begin(ctx); err != nil {
		return err
	}
	b.print("| | events/s | MB/s | CPU s per million events | RSS |")
	b.print("|---|---|---|---|---|")
	slowest := 0.0
	for _, what := range []fill{inserts, updates} {
		rate, err := b.stages(ctx, what)
		if err != nil {
			return err
		}
		if slowest == 0 || rate < slowest {
			slowest = rate
		}
	}
	if err := b.lag(ctx, slowest/2); err != nil {
		return err
	}
	if b.cfg.compression {
		if err := b.compressions(ctx); err != nil {
			return err
		}
	}
	return b.fullLoads(ctx)
}

func (b *bench) print(format string, args ...any) {
	fmt.Fprintf(b.out, format+"\n", args...) //nolint:errcheck // What cannot be printed cannot be reported either.
}

// begin brings the pipeline behind its full load.
func (b *bench) begin(ctx context.Context) error {
	if err := b.source.Database("shop").CreateCollection(ctx, "orders"); err != nil {
		return fmt.Errorf("create collection: %w", err)
	}
	if err := b.fleet.Start(); err != nil {
		return err
	}
	return b.equal(ctx)
}

// equal waits until the destination has everything.
func (b *bench) equal(ctx context.Context) error {
	r, err := b.fleet.Verify(ctx, destination)
	if err != nil {
		return err
	}
	if r.Verdict != verify.Equal {
		return fmt.Errorf("verify: %s %s: %d differences", r.Verdict, r.Cause, r.Total())
	}
	return nil
}

// fill writes documents to the source.
type fill struct {
	name  string
	model func(n int) mongo.WriteModel
}

var (
	inserts = fill{"inserts", func(n int) mongo.WriteModel { //nolint:gochecknoglobals // A constant.
		return mongo.NewInsertOneModel().SetDocument(document(n))
	}}
	updates = fill{"updates", func(n int) mongo.WriteModel { //nolint:gochecknoglobals // A constant.
		return mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: int64(n)}}).
			SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: int32(n)}, {Key: "state", Value: "changed"}}}})
	}}
)

// document has 1 KiB, half of it hard to compress.
func document(n int) bson.D {
	var noise strings.Builder
	for noise.Len() < 480 {
		noise.WriteString(bson.NewObjectID().Hex())
	}
	return bson.D{
		{Key: "_id", Value: int64(n)},
		{Key: "n", Value: int32(0)},
		{Key: "state", Value: "new"},
		{Key: "noise", Value: noise.String()},
		{Key: "text", Value: strings.Repeat("tributary ", 45)},
	}
}

// write does one operation for each document, as fast as the source takes them.
func (b *bench) write(ctx context.Context, coll string, what fill) error {
	const batch, writers = 1000, 2
	target := b.source.Database("shop").Collection(coll, options.Collection().SetWriteConcern(writeconcern.Majority()))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for first := 0; first < b.cfg.documents; first += batch {
		g.Go(func() error {
			models := make([]mongo.WriteModel, 0, batch)
			for n := first; n < min(first+batch, b.cfg.documents); n++ {
				models = append(models, what.model(n))
			}
			_, err := target.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("fill source: %w", err)
	}
	return nil
}

// stages measures the services one after another on one backlog, then together
// on another one, and returns the rate of the latter in events per second.
func (b *bench) stages(ctx context.Context, what fill) (float64, error) {
	capture, apply := b.fleet.Member("capture"), b.fleet.Member("apply-"+destination)
	for _, together := range []bool{false, true} {
		// Updates go to what the inserts of the same round have written.
		coll := fmt.Sprintf("bench_%t", together)
		if err := errors.Join(capture.Stop(), apply.Stop()); err != nil {
			return 0, err
		}
		if err := b.write(ctx, coll, what); err != nil {
			return 0, err
		}
		if !together {
			if err := b.alone(ctx, "capture of "+what.name, capture, capturedEvents, capturedBytes); err != nil {
				return 0, err
			}
			if err := b.alone(ctx, "apply of "+what.name, apply, appliedEvents, appliedBytes); err != nil {
				return 0, err
			}
			continue
		}
		if err := errors.Join(capture.Start(), apply.Start()); err != nil {
			return 0, err
		}
		m, err := b.measure(ctx, apply, appliedEvents, appliedBytes, capture)
		if err != nil {
			return 0, err
		}
		b.print("| end to end, %s | %.0f | %.1f | %s | %s |", what.name, m.rate, m.megabytes, m.cpu(), m.memory())
		return m.rate, b.equal(ctx)
	}
	return 0, nil
}

// alone starts one service and measures it.
func (b *bench) alone(ctx context.Context, name string, m *stack.Member, events, bytes string) error {
	if err := m.Start(); err != nil {
		return err
	}
	got, err := b.measure(ctx, m, events, bytes)
	if err != nil {
		return err
	}
	b.print("| %s | %.0f | %.1f | %s | %s |", name, got.rate, got.megabytes, got.cpu(), got.memory())
	return nil
}

// pollInterval is how often metrics are read.
const pollInterval = 50 * time.Millisecond
