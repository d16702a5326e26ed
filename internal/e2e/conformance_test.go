package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/e2e/stack"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/verify"
)

const (
	// conformanceTimeout bounds one pair of engines.
	conformanceTimeout = 6 * time.Minute
	// conformanceWait bounds how long a destination may take to come through.
	conformanceWait = 2 * time.Minute
)

// The modes of capture and the kinds of delivery.
const (
	modeOplog, modeStream         = "oplog", "change_stream"
	exactlyOnce, atLeastOnce      = "exactly once", "at least once"
	deliveryOfExact, deliveryPoor = "on", "off"
)

// column is one way to bring the source's operations to a destination.
type column struct{ mode, delivery string }

func (c column) String() string { return c.mode + ", " + c.delivery }

// columns are all ways. Those that cannot be are in skipped, with the reason.
func columns(e testenv.Pair) (run []column, skipped map[column]string) {
	skipped = map[column]string{}
	for _, mode := range []string{modeOplog, modeStream} {
		for _, delivery := range []string{exactlyOnce, atLeastOnce} {
			c := column{mode, delivery}
			switch reason := pendingModes()[mode]; {
			case !e.Exact && mode == modeStream:
				skipped[c] = "the stand-in has no change streams"
			case !e.Exact && delivery == exactlyOnce:
				skipped[c] = "the stand-in has no transactions"
			case reason != "":
				skipped[c] = reason
			default:
				run = append(run, c)
			}
		}
	}
	return run, skipped
}

// TestConformance does everything that a client can do to a source, each in
// databases of its own, and wants the same bytes and the same catalogue at the
// destination, whichever way they went. Cases that are known not to work yet
// (pending) have pipelines of their own, since they may end them.
//
// TRIBUTARY_CASES=name,name runs those cases alone, TRIBUTARY_REPORT=file adds
// the table to a file.
func TestConformance(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), conformanceTimeout, fmt.Errorf("not done after %s", conformanceTimeout))
		defer cancel()
		s := newSuite(ctx, t, e)
		s.prepare()
		s.start()
		s.verify("load")
		s.perform()
		s.verify("changes")
		s.compareOrder()
		s.tryPending()
		s.report()
	})
}

// suite is one run on one pair of engines.
type suite struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // It is the test's.
	pair   testenv.Pair
	binary string
	source *testenv.Mongo
	// operations are done in this order.
	operations []operation
	ways       []*way
	skipped    map[column]string
	table      *table
	excluded   []string
}

// way is a column at work.
type way struct {
	column
	fleet    *stack.Fleet
	pipeline string
	name     string
	target   *testenv.Mongo
	rules    rules.Destination
}

func newSuite(ctx context.Context, t *testing.T, e testenv.Pair) *suite {
	t.Helper()
	binary, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		t.Fatal(err)
	}
	source := e.NewSource(t, testenv.Args("--setParameter", fmt.Sprintf("maxNumberOfTransactionOperationsInSingleOplogEntry=%d", perEntry)))
	s := &suite{t: t, ctx: ctx, pair: e, binary: binary, source: source, excluded: []string{unselected + ".*"}}
	for _, o := range operations() {
		if wanted(o.name) && (e.Exact || o.standin) {
			s.operations = append(s.operations, o)
		}
	}
	s.table = newTable(fmt.Sprintf("%s + %s %s", e.KafkaEngine, e.MongoEngine, s.source.Version))
	return s
}

// wanted reports whether a case was asked for.
func wanted(name string) bool {
	list := os.Getenv("TRIBUTARY_CASES")
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

func (s *suite) scene(o operation) *scene {
	return &scene{t: s.t, ctx: s.ctx, client: s.source.Client, uri: s.source.URI, name: o.name}
}

// prepare makes what is there before the pipelines start.
func (s *suite) prepare() {
	for _, o := range s.operations {
		if o.before != nil {
			o.before(s.scene(o))
		}
	}
}

// start starts a pipeline for each mode, with a destination for each delivery.
func (s *suite) start() {
	s.t.Helper()
	run, skipped := columns(s.pair)
	s.skipped = skipped
	for _, mode := range []string{modeOplog, modeStream} {
		exclude := slices.Clone(s.excluded)
		for _, o := range s.operations {
			if pendingReason(mode, o.name) == "" {
				continue
			}
			for _, db := range o.databaseNames() {
				exclude = append(exclude, db+".*")
			}
		}
		var deliveries []string
		for _, c := range run {
			if c.mode == mode {
				deliveries = append(deliveries, c.delivery)
			}
		}
		if len(deliveries) > 0 {
			s.ways = append(s.ways, s.launch(mode, deliveries, nil, exclude)...)
		}
	}
}

// launch starts one pipeline.
func (s *suite) launch(mode string, deliveries, include, exclude []string) []*way {
	s.t.Helper()
	selection, err := rules.CompileSelection(include, exclude)
	if err != nil {
		s.t.Fatal(err)
	}
	p := stack.Pipeline{
		Name: testenv.NewPipeline(s.t), Brokers: s.pair.Brokers, Source: s.source.URI, Partitions: 2, Mode: mode, Include: include, Exclude: exclude,
	}
	var ways []*way
	for i, delivery := range deliveries {
		w := &way{
			column: column{mode, delivery}, pipeline: p.Name, name: fmt.Sprintf("to%d", i),
			target: s.pair.NewDestination(s.t), rules: rules.Destination{Selection: selection},
		}
		on := deliveryOfExact
		if delivery == atLeastOnce {
			on = deliveryPoor
		}
		p.Destinations = append(p.Destinations, stack.Destination{Name: w.name, URI: w.target.URI, ExactlyOnce: on})
		ways = append(ways, w)
	}
	fleet, err := stack.NewSingle(s.t.TempDir(), s.binary, p)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := fleet.Kill(); err != nil {
			s.t.Error(err)
		}
	})
	for _, w := range ways {
		w.fleet = fleet
	}
	if err := fleet.Start(); err != nil {
		s.t.Fatal(err)
	}
	return ways
}

// perform does every operation that is not pending everywhere.
func (s *suite) perform() {
	s.t.Helper()
	for _, o := range s.operations {
		if o.do != nil && !s.pendingEverywhere(o) {
			o.do(s.scene(o))
		}
	}
	s.settle()
}

// settle waits until what a change stream does not report has been compared: a
// list that holds a last collection holds all that was changed before it.
func (s *suite) settle() {
	s.t.Helper()
	const db, coll = "settled", "last"
	if err := s.source.Client.Database(db).CreateCollection(s.ctx, coll); err != nil {
		s.t.Fatal(err)
	}
	for _, w := range s.ways {
		if w.mode != modeStream {
			continue
		}
		testenv.Eventually(s.t, conformanceWait, func() error {
			names, err := w.target.Client.Database(db).ListCollectionNames(s.ctx, bson.D{})
			if err == nil && len(names) == 0 {
				err = fmt.Errorf("%s: the catalogue has not been compared", w.column)
			}
			return err
		})
	}
}

// pendingEverywhere reports whether no way takes the operation.
func (s *suite) pendingEverywhere(o operation) bool {
	return !slices.ContainsFunc(s.ways, func(w *way) bool { return pendingReason(w.mode, o.name) == "" })
}

// verify compares every destination with the source and notes the outcome for
// every case.
func (s *suite) verify(phase string) {
	s.t.Helper()
	var g errgroup.Group
	results := make([]*verify.Result, len(s.ways))
	errs := make([]error, len(s.ways))
	for i, w := range s.ways {
		g.Go(func() error {
			results[i], errs[i] = w.compare(s.ctx, s.source.Client, conformanceWait)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.t.Fatal(err)
	}
	for i, w := range s.ways {
		if errs[i] == nil && results[i].Verdict == verify.Unknown {
			errs[i] = errors.New(results[i].Cause)
		}
		if errs[i] != nil {
			s.t.Errorf("%s: %s: %v\n%s", w.column, phase, errs[i], w.fleet.Members[0].Tail(40))
		}
		for _, o := range s.operations {
			if pendingReason(w.mode, o.name) != "" {
				continue
			}
			if errs[i] != nil {
				s.table.set(o.name, w.column, "FAILED")
				continue
			}
			s.judge(w, o, phase, results[i])
		}
	}
}

// judge notes what a comparison says of a case.
func (s *suite) judge(w *way, o operation, phase string, r *verify.Result) {
	s.t.Helper()
	found := o.differences(r)
	if len(found) > 0 && o.orderUnseen && w.mode == modeStream && !strings.HasPrefix(s.source.Version, "4.4") {
		s.table.set(o.name, w.column, "order unseen")
		return
	}
	if len(found) == 0 {
		if !s.table.failed(o.name, w.column) {
			s.table.set(o.name, w.column, "ok")
		}
		return
	}
	s.table.set(o.name, w.column, "FAILED")
	s.t.Errorf("%s: %s of %s: %d differences:\n%s", w.column, phase, o.name, len(found), strings.Join(found, "\n"))
}

// differences are those of the operation's databases.
func (o operation) differences(r *verify.Result) []string {
	var found []string
	for _, difference := range r.Differences {
		ns := difference.Target
		if ns == "" {
			ns = difference.Source
		}
		db, _, _ := strings.Cut(ns, ".")
		if difference.Kind != verify.KindDeferred && slices.Contains(o.databaseNames(), db) {
			found = append(found, fmt.Sprintf("  %s %s %s %s", difference.Kind, ns, difference.ID, difference.Detail))
		}
	}
	return found
}

// compare verifies one destination.
func (w *way) compare(ctx context.Context, source *mongo.Client, wait time.Duration) (r *verify.Result, err error) {
	err = w.fleet.Guard(ctx, func(ctx context.Context) error {
		r, err = verify.Run(ctx, verify.Config{
			Pipeline: w.pipeline, Destination: w.name, Source: source, Target: w.target.Client, Rules: w.rules, Wait: wait, Listed: 10_000, Workers: 2,
		})
		return err
	})
	return r, err
}

// compareOrder wants the documents of some collections in the source's order.
func (s *suite) compareOrder() {
	s.t.Helper()
	for _, w := range s.ways {
		for _, o := range s.operations {
			if pendingReason(w.mode, o.name) != "" || s.table.failed(o.name, w.column) {
				continue
			}
			if err := w.sameOrder(s.ctx, s.source.Client, o); err != nil {
				s.table.set(o.name, w.column, "FAILED")
				s.t.Errorf("%s: %s: %v", w.column, o.name, err)
			}
		}
	}
}

func (w *way) sameOrder(ctx context.Context, source *mongo.Client, o operation) error {
	for _, coll := range o.ordered {
		want, err := natural(ctx, source.Database(o.name).Collection(coll))
		if err != nil {
			return err
		}
		got, err := natural(ctx, w.target.Client.Database(o.name).Collection(coll))
		if err != nil {
			return err
		}
		if !slices.EqualFunc(want, got, func(a, b bson.Raw) bool { return bytes.Equal(a, b) }) {
			return fmt.Errorf("order of %s differs:\n%v\nwant\n%v", coll, got, want)
		}
	}
	return nil
}

// natural reads a collection in natural order.
func natural(ctx context.Context, coll *mongo.Collection) ([]bson.Raw, error) {
	cursor, err := coll.Find(ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "$natural", Value: 1}}))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", coll.Name(), err)
	}
	var docs []bson.Raw
	if err := cursor.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("read %s: %w", coll.Name(), err)
	}
	return docs, nil
}
