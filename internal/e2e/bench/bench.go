package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

const (
	pipelineName = "bench"
	destination  = "copy"
	// serviceTimeout bounds one measurement of a service.
	serviceTimeout = 10 * time.Minute
	// writers write a load to the source; writeBatch is how many operations
	// each sends at one time.
	writers, writeBatch = 4, 1000
)

// namespace is the collection that is written to.
func namespace() event.Namespace { return event.Namespace{DB: "bench", Coll: "documents"} }

// bench is one run.
type bench struct {
	cfg     config
	dir     string
	log     io.Writer
	servers *stack.Servers
	fleet   *stack.Fleet
	source  *mongo.Client
	target  *mongo.Client
	rows    []row
}

// row is one line of the table.
type row struct {
	what          string
	events        int
	rate, ceiling float64
}

func (b *bench) say(format string, args ...any) error {
	_, err := fmt.Fprintf(b.log, format+"\n", args...)
	return err
}

// prepare starts everything, brings a pipeline of an empty source to the point
// where it follows, and stops its services.
func (b *bench) prepare(ctx context.Context) error {
	binary, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		return err
	}
	if b.servers, err = stack.StartServers(ctx, b.dir, b.cfg.engines, destination); err != nil {
		return err
	}
	if b.cfg.documents == 0 {
		b.cfg.documents = 300_000
		if b.servers.Standin() {
			b.cfg.documents = 1000
		}
	}
	if b.source, err = mongodb.Connect(ctx, mongodb.Options{URI: b.servers.Source, AppName: "bench"}); err != nil {
		return err
	}
	if b.target, err = mongodb.Connect(ctx, mongodb.Options{URI: b.servers.Destinations[destination], AppName: "bench"}); err != nil {
		return err
	}
	ns := namespace()
	if err := b.source.Database(ns.DB).CreateCollection(ctx, ns.Coll); err != nil {
		return fmt.Errorf("create %s: %w", ns, err)
	}
	b.fleet, err = stack.NewFleet(b.dir, binary, stack.Pipeline{
		Name: pipelineName, Brokers: b.servers.Brokers, Source: b.servers.Source,
		Destinations: []stack.Destination{{Name: destination, URI: b.servers.Destinations[destination]}},
	})
	if err != nil {
		return err
	}
	if err := b.fleet.Start(); err != nil {
		return err
	}
	if err := b.say("bringing a pipeline up on %s and %s", b.servers.Kafka, b.servers.MongoDB); err != nil {
		return err
	}
	if err := b.awaitFollowing(ctx); err != nil {
		return err
	}
	var errs []error
	for _, m := range b.fleet.Members {
		errs = append(errs, m.Stop())
	}
	return errors.Join(errs...)
}

// awaitFollowing waits until apply has come to the changes.
func (b *bench) awaitFollowing(ctx context.Context) error {
	apply := b.fleet.Member("apply-" + destination)
	return b.poll(ctx, 100*time.Millisecond, func() (bool, error) {
		if err := b.fleet.Check(); err != nil {
			return false, err
		}
		status, err := apply.Status(ctx)
		// A service that is starting does not answer yet.
		return err == nil && status.State == state.StateRunning && status.Phase == state.PhaseChanges, nil
	})
}

// poll calls ready until it says so.
func (b *bench) poll(ctx context.Context, interval time.Duration, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serviceTimeout, fmt.Errorf("not done after %s", serviceTimeout))
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		done, err := ready()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// measure measures every load.
func (b *bench) measure(ctx context.Context) error {
	for round := range b.cfg.rounds {
		for _, kind := range []string{"insert", "update"} {
			if err := b.measureLoad(ctx, kind, round); err != nil {
				return fmt.Errorf("%s, round %d: %w", kind, round, err)
			}
		}
	}
	return nil
}

// measureLoad writes a load to the source while nothing follows it, then
// measures both services on it.
func (b *bench) measureLoad(ctx context.Context, kind string, round int) error {
	if err := b.say("round %d: %d %ss", round+1, b.cfg.documents, kind); err != nil {
		return err
	}
	from, err := mongodb.LatestTime(ctx, b.source)
	if err != nil {
		return err
	}
	if err := b.writeLoad(ctx, kind, round); err != nil {
		return err
	}
	to, err := mongodb.LatestTime(ctx, b.source)
	if err != nil {
		return err
	}
	ceiling, err := b.bareCapture(ctx, from, to)
	if err != nil {
		return err
	}
	starts, err := b.committedEnds(ctx)
	if err != nil {
		return err
	}
	rate, err := b.service(ctx, "capture", "tributary_capture_events_total")
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{what: "capture, " + kind, events: b.cfg.documents, rate: rate, ceiling: ceiling})
	if ceiling, err = b.bareApply(ctx, kind, round, starts); err != nil {
		return err
	}
	if rate, err = b.service(ctx, "apply-"+destination, "tributary_apply_events_total"); err != nil {
		return err
	}
	b.rows = append(b.rows, row{what: "apply, " + kind, events: b.cfg.documents, rate: rate, ceiling: ceiling})
	return nil
}

// id is the _id of a round's document.
func id(round, i int) string { return fmt.Sprintf("%d-%08d", round, i) }

// writeLoad writes one load.
func (b *bench) writeLoad(ctx context.Context, kind string, round int) error {
	ns := namespace()
	coll := b.source.Database(ns.DB).Collection(ns.Coll)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for first := 0; first < b.cfg.documents; first += writeBatch {
		g.Go(func() error {
			var models []mongo.WriteModel
			for i := first; i < min(first+writeBatch, b.cfg.documents); i++ {
				if kind == "insert" {
					models = append(models, mongo.NewInsertOneModel().SetDocument(bson.D{
						{Key: "_id", Value: id(round, i)}, {Key: "n", Value: int32(i)}, {Key: "pad", Value: padding(i, b.cfg.size)},
					}))
					continue
				}
				models = append(models, updateModel(id(round, i), round))
			}
			_, err := coll.BulkWrite(ctx, models, unordered())
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("write load: %w", err)
	}
	return nil
}

// padding is text, half of which is hard to compress.
func padding(seed, size int) string {
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	text := make([]byte, size)
	for i := range text {
		text[i] = "lorem ipsum "[i%12]
		if i%2 == 0 {
			text[i] = byte('!' + random.IntN(90))
		}
	}
	return string(text)
}

// updateModel is the update that the load update consists of.
func updateModel(id string, round int) mongo.WriteModel {
	return mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}}).
		SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: int32(-1 - round)}}}})
}

// service starts a service, waits until it has counted all events of the load,
// stops it, and returns its rate between the first and the last of them: the
// time that it takes to start is no part of it.
func (b *bench) service(ctx context.Context, name, metric string) (rate float64, err error) {
	m := b.fleet.Member(name)
	started := time.Now()
	if err := m.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	var began time.Time
	var first, last float64
	err = b.poll(ctx, 10*time.Millisecond, func() (bool, error) {
		if err := b.fleet.Check(); err != nil {
			return false, err
		}
		count, _, err := m.Metric(ctx, metric)
		if err != nil || count == 0 {
			return false, nil //nolint:nilerr // It is starting and does not answer yet.
		}
		if began.IsZero() {
			began, first = time.Now(), count
		}
		last = count
		return count >= float64(b.cfg.documents), nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", name, err)
	}
	if last == first {
		// All was done at the first look: the start has to count.
		return last / time.Since(started).Seconds(), nil
	}
	return (last - first) / time.Since(began).Seconds(), nil
}

// stop ends everything.
func (b *bench) stop(ctx context.Context) error {
	var errs []error
	if b.fleet != nil {
		errs = append(errs, b.fleet.Kill())
	}
	for _, client := range []*mongo.Client{b.source, b.target} {
		if client != nil {
			errs = append(errs, client.Disconnect(ctx))
		}
	}
	if b.servers != nil {
		errs = append(errs, b.servers.Stop())
	}
	return errors.Join(errs...)
}
