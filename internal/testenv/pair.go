package testenv

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// The engines' names, in subtests' names and in TRIBUTARY_REQUIRE.
const (
	KFake    = "kfake"
	Kafka    = "kafka"
	Embedded = "embedded"
	MongoD   = "mongod"
)

// Pair is a Kafka and a kind of MongoDB for one test.
type Pair struct {
	Broker
	MongoDB
	// Pipeline is a legal pipeline name that no other test uses.
	Pipeline string
	// Real says that both engines are real.
	Real bool
}

// Broker is a Kafka for one test.
type Broker struct {
	// KafkaEngine is KFake or Kafka.
	KafkaEngine string
	Brokers     []string
	// Cluster is kfake's handle with its fault controls; nil on a real broker.
	Cluster *kfake.Cluster
}

// MongoDB is a kind of MongoDB deployment.
type MongoDB struct {
	// MongoEngine is Embedded or MongoD.
	MongoEngine string
	// Exact says that transactions work.
	Exact bool
}

// Each runs a subtest on every pair of engines; see the package comment.
func Each(t *testing.T, test func(t *testing.T, e Pair)) {
	t.Helper()
	e := environmentOf(t)
	for _, p := range pairs() {
		t.Run(p.kafka+"+"+p.mongo, func(t *testing.T) {
			e.require(t, p.kafka)
			e.require(t, p.mongo)
			test(t, Pair{
				Broker:   e.newBroker(t, p.kafka),
				MongoDB:  MongoDB{MongoEngine: p.mongo, Exact: p.mongo == MongoD},
				Pipeline: fmt.Sprintf("test-%d-%d", os.Getpid(), e.next()),
				Real:     p.kafka == Kafka && p.mongo == MongoD,
			})
		})
	}
}

// EachKafka runs a subtest on every Kafka engine.
func EachKafka(t *testing.T, test func(t *testing.T, b Broker)) {
	t.Helper()
	e := environmentOf(t)
	for _, name := range []string{KFake, Kafka} {
		t.Run(name, func(t *testing.T) {
			e.require(t, name)
			test(t, e.newBroker(t, name))
		})
	}
}

// EachMongoDB runs a subtest on every MongoDB engine.
func EachMongoDB(t *testing.T, test func(t *testing.T, m MongoDB)) {
	t.Helper()
	e := environmentOf(t)
	for _, name := range []string{Embedded, MongoD} {
		t.Run(name, func(t *testing.T) {
			e.require(t, name)
			test(t, MongoDB{MongoEngine: name, Exact: name == MongoD})
		})
	}
}

// RequireMongoD skips the test, loudly, where there is no real MongoDB, and
// otherwise returns it.
func RequireMongoD(t testing.TB) MongoDB {
	t.Helper()
	environmentOf(t).require(t, MongoD)
	return MongoDB{MongoEngine: MongoD, Exact: true}
}

// RequireKafka skips the test, loudly, where there is no real Kafka, and
// otherwise returns it.
func RequireKafka(t testing.TB) Broker {
	t.Helper()
	e := environmentOf(t)
	e.require(t, Kafka)
	return e.newBroker(t, Kafka)
}

// StandIn is a kfake cluster of the test's own, with opts added to the usual
// ones.
func StandIn(t testing.TB, opts ...kfake.Opt) Broker {
	t.Helper()
	return newStandIn(t, opts)
}

// NewPipeline is a legal pipeline name that no other test uses.
func NewPipeline(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("test-%d-%d", os.Getpid(), environmentOf(t).next())
}

// enginePair names one engine of each kind.
type enginePair struct{ kafka, mongo string }

// pairs lists the pairs to run, missing ones among them so that they are
// reported.
func pairs() []enginePair {
	standIns, real := enginePair{KFake, Embedded}, enginePair{Kafka, MongoD}
	all := []enginePair{standIns, {Kafka, Embedded}, {KFake, MongoD}, real}
	if os.Getenv("TRIBUTARY_PAIRS") == "all" {
		return all
	}
	_, noKafka := engine.FindKafka()
	_, noMongoD := engine.FindMongoD()
	switch {
	case noKafka == nil && noMongoD != nil:
		return []enginePair{standIns, {Kafka, Embedded}, real}
	case noKafka != nil && noMongoD == nil:
		return []enginePair{standIns, {KFake, MongoD}, real}
	default:
		return []enginePair{standIns, real}
	}
}

// find reports whether the machine has an engine.
func find(name string) error {
	var err error
	switch name {
	case Kafka:
		_, err = engine.FindKafka()
	case MongoD:
		_, err = engine.FindMongoD()
	case MongoS:
		_, err = engine.FindMongoS()
	}
	return err
}

// require skips the test if an engine is missing, or fails it if
// TRIBUTARY_REQUIRE names the engine. The first time, it says so on standard
// error too, which go test shows for a package that passes.
func (e *environment) require(t testing.TB, name string) {
	t.Helper()
	err := find(name)
	if err == nil {
		return
	}
	if _, missing := errors.AsType[*engine.MissingError](err); !missing {
		t.Fatalf("testenv: look for %s: %v", name, err)
	}
	if slices.Contains(strings.Split(os.Getenv("TRIBUTARY_REQUIRE"), ","), name) {
		t.Fatalf("testenv: TRIBUTARY_REQUIRE asks for it: %v", err)
	}
	e.mu.Lock()
	first := !e.said[name]
	e.said[name] = true
	e.mu.Unlock()
	if first {
		fmt.Fprintf(os.Stderr, "WARNING: %v\n", err)
	}
	t.Skipf("%v", err)
}
