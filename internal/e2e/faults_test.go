package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

const (
	// faultSeeds and faultSteps are how many seeds there are and how many
	// faults each has, in an ordinary run and in a long one.
	faultSeeds, soakFaultSeeds = 3, 20
	faultSteps, soakFaultSteps = 6, 24
	// faultTimeout bounds one seed.
	faultTimeout, soakFaultTimeout = 4 * time.Minute, 10 * time.Minute
	// longFreeze is longer than the sessions and the transactions of Kafka.
	longFreeze = 17 * time.Second
)

// soaking says that a long run was asked for.
func soaking() bool { return os.Getenv("TRIBUTARY_SOAK") != "" }

// TestFaults does random things to the source — documents, definitions,
// transactions — and at the same time to everything else: services are killed,
// frozen, added and removed, the source elects another primary or loses its
// own, the broker and a destination restart. Afterwards nothing may differ and
// nothing may have been published twice. TRIBUTARY_SEED repeats one seed;
// TRIBUTARY_SOAK runs more and longer ones.
func TestFaults(t *testing.T) {
	pair := testenv.RequireMongoD(t)
	broker := testenv.FreshKafka(t, nil)
	source := pair.NewSource(t, testenv.Members(3), testenv.Args("--setParameter", fmt.Sprintf("maxNumberOfTransactionOperationsInSingleOplogEntry=%d", perEntry)))
	set := source.ReplicaSet()
	n, steps, timeout := faultSeeds, faultSteps, faultTimeout
	if soaking() {
		n, steps, timeout = soakFaultSeeds, soakFaultSteps, soakFaultTimeout
	}
	// An ordinary run repeats the same seeds, so that what it finds is due to
	// the change under test; a long one looks for new ones.
	first := uint64(1)
	switch {
	case os.Getenv("TRIBUTARY_SEED") != "":
		first, n = seedOf(t), 1
	case soaking():
		first = seedOf(t)
	}
	var passed []string
	for i := range uint64(n) {
		seed := first + i
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, fmt.Errorf("not done after %s, seed %d", timeout, seed))
			defer cancel()
			emptySource(ctx, t, source)
			f := &faults{
				t: t, seed: seed, steps: steps, random: rand.New(rand.NewPCG(seed, 2)), broker: broker, set: set, source: source,
				destination: pair.NewDestination(t),
			}
			f.run(ctx)
		})
		if ok {
			passed = append(passed, fmt.Sprint(seed))
		}
	}
	if err := appendReport(fmt.Sprintf("Faults: %d of %d seeds with %d faults each left no difference: %s", len(passed), n, steps, strings.Join(passed, " "))); err != nil {
		t.Error(err)
	}
}

// emptySource drops what an earlier seed has left.
func emptySource(ctx context.Context, t *testing.T, source *testenv.Mongo) {
	t.Helper()
	names, err := source.Client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if slices.Contains([]string{"admin", "config", "local"}, name) {
			continue
		}
		if err := source.Client.Database(name).Drop(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// faults is one seed.
type faults struct {
	t           *testing.T
	seed        uint64
	steps       int
	random      *rand.Rand
	broker      *engine.Broker
	set         *engine.ReplicaSet
	source      *testenv.Mongo
	destination *testenv.Mongo
	fleet       *stack.Fleet
	live        *workload.Live
	// extra numbers the processes that were added.
	extra int
}

// run loads a data set, starts the services and lets writers and faults loose.
func (f *faults) run(ctx context.Context) {
	f.t.Helper()
	// Whether every change takes effect once or at least once is up to the seed.
	exactly := []string{deliveryOfExact, deliveryPoor}[f.random.IntN(2)]
	work := workload.Config{Client: f.source.Client, Seed: f.seed, DDL: true, Failover: true, Documents: 6000, Rate: 150}
	if err := workload.Load(ctx, work, nil); err != nil {
		f.t.Fatal(err)
	}
	f.live = workload.NewLive(work)
	name := testenv.NewPipeline(f.t)
	f.t.Logf("TRIBUTARY_SEED=%d, pipeline %s, exactly once: %s", f.seed, name, exactly)
	f.fleet = newFleet(ctx, f.t, stack.Pipeline{
		Name: name, Brokers: f.broker.Brokers, Source: f.source.URI, Partitions: 3, ChunkBytes: 1 << 20, BatchBytes: 64 << 10,
		Destinations: []stack.Destination{
			{Name: "eu", URI: f.destination.URI, Databases: map[string]string{"shop": "shop_eu"}, ExactlyOnce: exactly},
		},
	})
	f.underWrites(ctx)
	judge(ctx, f.t, f.fleet, verdict{broker: f.broker.Brokers, pipeline: name, source: f.source, destination: f.destination})
}

// underWrites makes trouble while the source is written to.
func (f *faults) underWrites(ctx context.Context) {
	f.t.Helper()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.live.Run(writing) })
	g.Go(func() error {
		defer stopWriting()
		if err := f.fleet.Start(); err != nil {
			return err
		}
		for range f.steps {
			if err := f.step(ctx); err != nil {
				return err
			}
		}
		return awaitPublished(ctx, f.fleet)
	})
	if err := g.Wait(); err != nil {
		fatal(f.t, f.fleet, err)
	}
	f.t.Logf("written: %+v", f.live.Stats())
}

// step waits a little and makes one fault.
func (f *faults) step(ctx context.Context) error {
	if err := pause(ctx, time.Duration(f.random.Int64N(int64(3*time.Second)))); err != nil {
		return err
	}
	if err := f.fleet.Check(); err != nil {
		return err
	}
	kinds := []struct {
		weight int
		name   string
		do     func(ctx context.Context) error
	}{
		{5, "kill", f.kill},
		{4, "freeze", f.freeze},
		{3, "add or remove", f.rebalance},
		{2, "step down", f.stepDown},
		{2, "kill the primary", f.killPrimary},
		{1, "restart the broker", f.restartBroker},
		{1, "restart the destination", f.restartDestination},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	choice := f.random.IntN(total)
	for _, k := range kinds {
		if choice -= k.weight; choice < 0 {
			if err := k.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			return nil
		}
	}
	return nil
}

// running picks a member that runs.
func (f *faults) running() *stack.Member {
	var list []*stack.Member
	for _, m := range f.fleet.Members {
		if m.Running() {
			list = append(list, m)
		}
	}
	return list[f.random.IntN(len(list))]
}

func (f *faults) kill(ctx context.Context) error {
	m := f.running()
	f.t.Logf("kill %s", m.Name)
	if err := m.Kill(); err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(f.random.Int64N(int64(time.Second)))); err != nil {
		return err
	}
	return m.Start()
}

// freeze stops a service for a moment, or for longer than it keeps what it owns.
func (f *faults) freeze(ctx context.Context) error {
	m := f.running()
	length := time.Duration(f.random.Int64N(int64(2 * time.Second)))
	if soaking() && f.random.IntN(3) == 0 {
		length = longFreeze
	}
	f.t.Logf("freeze %s for %s", m.Name, length)
	if err := m.Freeze(); err != nil {
		return err
	}
	if err := pause(ctx, length); err != nil {
		return err
	}
	return m.Thaw()
}

// rebalance adds a process of a service or stops one that was added.
func (f *faults) rebalance(context.Context) error {
	if last := f.fleet.Members[len(f.fleet.Members)-1]; f.extra > 0 && last.Running() && f.random.IntN(2) == 0 {
		f.t.Logf("stop %s", last.Name)
		return last.Stop()
	}
	f.extra++
	name := fmt.Sprintf("extra-%d", f.extra)
	args, destination := []string{"apply", "-destination", "eu"}, "eu"
	if f.random.IntN(4) == 0 {
		args, destination = []string{"capture"}, ""
	}
	f.t.Logf("add %s: %s", name, args[0])
	m, err := f.fleet.Add(name, destination, args...)
	if err != nil {
		return err
	}
	return m.Start()
}

// stepDown has the primary give way to another one.
func (f *faults) stepDown(ctx context.Context) error {
	f.t.Log("the primary steps down")
	err := f.source.Client.Database("admin").RunCommand(ctx, d("replSetStepDown", 5, "secondaryCatchUpPeriodSecs", 2)).Err()
	if err != nil && ctx.Err() == nil {
		f.t.Logf("step down: %v", err) // an election of before may still go on
	}
	return context.Cause(ctx)
}

// killPrimary kills the member that is primary and starts it again, as a rule
// when there is another one.
func (f *faults) killPrimary(ctx context.Context) error {
	var hello struct {
		Primary string `bson:"primary"`
	}
	if err := f.source.Client.Database("admin").RunCommand(ctx, d("hello", 1)).Decode(&hello); err != nil {
		f.t.Logf("there is no primary to kill: %v", err)
		return context.Cause(ctx)
	}
	for _, m := range f.set.Members {
		if m.Address != hello.Primary {
			continue
		}
		f.t.Logf("kill the primary %s", m.Address)
		if err := m.Kill(); err != nil {
			return err
		}
		// Long enough for an election, or not.
		if err := pause(ctx, time.Duration(f.random.Int64N(int64(4*time.Second)))); err != nil {
			return err
		}
		return m.Restart(ctx)
	}
	return nil
}

func (f *faults) restartBroker(ctx context.Context) error {
	// A process that does not find the broker when it starts ends, as it should.
	for _, m := range f.fleet.Members {
		for m.Running() {
			if _, err := m.Status(ctx); err == nil {
				break
			}
			if err := pause(ctx, pollInterval); err != nil {
				return err
			}
		}
	}
	f.t.Log("kill the broker")
	if err := f.broker.Kill(); err != nil {
		return err
	}
	return f.broker.Restart(ctx)
}

func (f *faults) restartDestination(ctx context.Context) error {
	f.t.Log("kill the destination")
	for _, s := range f.destination.Servers() {
		if err := s.Kill(); err != nil {
			return err
		}
		if err := s.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}
