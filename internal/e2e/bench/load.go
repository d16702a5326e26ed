package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/verify"
)

// sizes reads a comma-separated list of gigabytes.
func sizes(list string) ([]float64, error) {
	var all []float64
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		size, err := strconv.ParseFloat(text, 64)
		if err != nil || size <= 0 {
			return nil, fmt.Errorf("read -loads: %q is no number of gigabytes", text)
		}
		all = append(all, size)
	}
	return all, nil
}

// fullLoads measures the whole path of a full load of each size in documents of
// 1 KiB, from the start of the services' processes until the destination goes on
// with the changes, and what mongodump and mongorestore take for the same.
func (b *bench) fullLoads(ctx context.Context) error {
	if len(b.cfg.loads) == 0 {
		return nil
	}
	b.print("\n| full load | s | MB/s | s per GB | CPU s per GB | bytes in Kafka per byte | RSS |")
	b.print("|---|---|---|---|---|---|---|")
	for i, gigabytes := range b.cfg.loads {
		name := fmt.Sprintf("load-%d", i)
		data, err := b.fillLoad(ctx, name, gigabytes)
		if err != nil {
			return err
		}
		if err := b.fullLoad(ctx, name, data); err != nil {
			return fmt.Errorf("load %g GB: %w", gigabytes, err)
		}
		if err := b.target.Database(name).Drop(ctx); err != nil {
			return fmt.Errorf("empty destination: %w", err)
		}
		if err := b.dumpAndRestore(ctx, name, data); err != nil {
			return err
		}
		if err := errors.Join(b.target.Database(name).Drop(ctx), b.source.Database(name).Drop(ctx)); err != nil {
			return fmt.Errorf("make room: %w", err)
		}
	}
	return nil
}

// fillLoad writes a database to the source and returns how many bytes of
// documents it has.
func (b *bench) fillLoad(ctx context.Context, db string, gigabytes float64) (data float64, err error) {
	const batch, writers = 1000, 2
	one, err := bson.Marshal(document(0))
	if err != nil {
		return 0, fmt.Errorf("make document: %w", err)
	}
	documents := int(gigabytes * 1e9 / float64(len(one)))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for first := 0; first < documents; first += batch {
		g.Go(func() error {
			docs := make([]any, 0, batch)
			for n := first; n < min(first+batch, documents); n++ {
				docs = append(docs, document(n))
			}
			_, err := b.source.Database(db).Collection("orders").InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("fill source: %w", err)
	}
	return float64(documents * len(one)), nil
}

// fullLoad runs a pipeline of its own over one database.
func (b *bench) fullLoad(ctx context.Context, name string, data float64) (err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	binary, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		return err
	}
	fleet, err := stack.NewFleet(dir, binary, stack.Pipeline{
		Name: name, Brokers: b.servers.Brokers, Source: b.servers.Source, Partitions: partitions, LogLevel: "warn", Include: []string{name + ".*"},
		Destinations: []stack.Destination{{Name: destination, URI: b.servers.Destinations[destination]}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Kill()) }()
	began := time.Now()
	if err := fleet.Start(); err != nil {
		return err
	}
	m := measurement{processes: make([]usage, len(fleet.Members))}
	if err := loaded(ctx, fleet, &m); err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	stored, err := b.snapshotBytes(ctx, name)
	if err != nil {
		return err
	}
	r, err := fleet.Verify(ctx, destination)
	if err != nil {
		return err
	}
	if r.Verdict != verify.Equal {
		return fmt.Errorf("verify: %s %s: %d differences", r.Verdict, r.Cause, r.Total())
	}
	m.events = data / 1e3 // so that cpu tells seconds per GB
	b.print("| Tributary, %.2f GB | %.1f | %.1f | %.1f | %s | %.2f | %s |", data/1e9, seconds, data/1e6/seconds, seconds/(data/1e9), m.cpu(), stored/data, m.memory())
	return nil
}

// loaded waits until apply goes on with the changes, and notes what each process
// has taken by then. Snapshot ends before.
func loaded(ctx context.Context, fleet *stack.Fleet, m *measurement) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		phase := ""
		for i, member := range fleet.Members {
			m.processes[i].name = member.Name
			// One that has just started, or has ended, does not answer.
			if values, err := member.Metrics(ctx); err == nil {
				m.processes[i].seconds = values[cpuSeconds]
				m.processes[i].resident = max(m.processes[i].resident, values[residentBytes])
			}
			if s, err := member.Status(ctx); err == nil && member.Destination != "" {
				phase = s.Phase
			}
		}
		if phase == state.PhaseChanges {
			return nil
		}
		if err := fleet.Check(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// snapshotBytes is what a pipeline's snapshot topic takes at the broker.
func (b *bench) snapshotBytes(ctx context.Context, pipeline string) (size float64, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.servers.Brokers...))
	if err != nil {
		return 0, fmt.Errorf("connect to Kafka: %w", err)
	}
	defer client.Close()
	topic := route.TopicsOf(pipeline).Snapshot
	dirs, err := kadm.NewClient(client).DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("ask for the size of %s: %w", topic, err)
	}
	dirs.Each(func(dir kadm.DescribedLogDir) {
		for _, p := range dir.Topics[topic] {
			size += float64(p.Size)
		}
	})
	return size, nil
}

// dumpAndRestore times `mongodump | mongorestore` of a database.
func (b *bench) dumpAndRestore(ctx context.Context, db string, data float64) error {
	dump, dumpErr := exec.LookPath("mongodump")
	restore, restoreErr := exec.LookPath("mongorestore")
	if dumpErr != nil || restoreErr != nil {
		b.print("| mongodump \\| mongorestore | NOT MEASURED: they are not on the PATH | | | | | |")
		return nil
	}
	from := exec.CommandContext(ctx, dump, "--quiet", "--uri="+b.servers.Source, "--db="+db, "--archive")
	to := exec.CommandContext(ctx, restore, "--quiet", "--uri="+b.servers.Destinations[destination], "--archive")
	pipe, err := from.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run mongodump: %w", err)
	}
	to.Stdin = pipe
	began := time.Now()
	if err := from.Start(); err != nil {
		return fmt.Errorf("run mongodump: %w", err)
	}
	if err := errors.Join(to.Run(), from.Wait()); err != nil {
		return fmt.Errorf("run mongodump and mongorestore: %w", err)
	}
	seconds := time.Since(began).Seconds()
	b.print("| mongodump \\| mongorestore, %.2f GB | %.1f | %.1f | %.1f | | | |", data/1e9, seconds, data/1e6/seconds, seconds/(data/1e9))
	return nil
}
