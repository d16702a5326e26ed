package testenv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// MongoS is the name of the engine that sharded deployments need beside MongoD.
const MongoS = "mongos"

// logLines is how much of a server's log a failed test shows.
const logLines = 25

// embeddedServer is the name of the one server in a stand-in's process.
const embeddedServer = "server"

// Option changes a deployment. The stand-in knows none but Fresh.
type Option func(*deploymentConfig)

// Fresh asks for a deployment that no other test had or will have: for tests
// that damage it, or that look at all of its oplog. A deployment whose servers a
// test kills or freezes need not be fresh: it is not handed on.
func Fresh() Option { return func(c *deploymentConfig) { c.fresh = true } }

// Members asks for a replica set of n members; one is the default.
func Members(n int) Option { return func(c *deploymentConfig) { c.members = n } }

// OplogMB asks for an oplog of that size in MiB.
func OplogMB(n int) Option { return func(c *deploymentConfig) { c.oplogMB = n } }

// Auth asks for authentication; the deployment's URI has the credentials of
// a user with every right.
func Auth() Option { return func(c *deploymentConfig) { c.auth = true } }

// Args adds to the command line of every mongod.
func Args(args ...string) Option {
	return func(c *deploymentConfig) { c.args = append(c.args, args...) }
}

// Shards asks for a sharded cluster of n shards with one member each. Its URI
// leads to the router. The test is skipped where there is no mongos.
func Shards(n int) Option { return func(c *deploymentConfig) { c.shards = n } }

// deploymentConfig is what a test asked for.
type deploymentConfig struct {
	engine  string
	shards  int
	fresh   bool
	members int
	oplogMB int
	auth    bool
	args    []string
}

// key is equal for deployments that can stand in for each other.
func (c deploymentConfig) key() string {
	return fmt.Sprintf("%s/%d/%d/%d/%t/%s", c.engine, c.shards, c.members, c.oplogMB, c.auth, strings.Join(c.args, " "))
}

// deployment is running servers.
type deployment struct {
	cfg deploymentConfig
	uri string
	// One of them is set.
	set      *engine.ReplicaSet
	sharded  *engine.Sharded
	embedded *engine.Embedded
	// touched says that a test has signalled the servers.
	touched bool
}

// Mongo is a MongoDB deployment in the hands of one test.
type Mongo struct {
	// URI leads to the primary.
	URI string
	// Client is connected with that URI, majority write concern and no retries,
	// and disconnected when the test ends.
	Client *mongo.Client
	// Engine is Embedded or MongoD.
	Engine string
	// Version is the server's.
	Version string

	d *deployment
}

// NewSource gives the test a deployment with an oplog. It is empty: no database
// but the server's own.
func (m MongoDB) NewSource(t testing.TB, opts ...Option) *Mongo {
	t.Helper()
	return environmentOf(t).newMongo(t, m.MongoEngine, opts)
}

// NewDestination gives the test an empty deployment.
func (m MongoDB) NewDestination(t testing.TB, opts ...Option) *Mongo {
	t.Helper()
	return environmentOf(t).newMongo(t, m.MongoEngine, opts)
}

// newMongo takes a deployment from the idle ones or starts one.
func (e *environment) newMongo(t testing.TB, name string, opts []Option) *Mongo {
	t.Helper()
	cfg := deploymentConfig{engine: name, members: 1, oplogMB: 256}
	for _, o := range opts {
		o(&cfg)
	}
	d := e.take(cfg)
	if d == nil {
		d = e.start(t, cfg)
	}
	t.Cleanup(func() { e.giveBack(t, d) })
	client, err := connect(d.uri)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stuckGrace)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Errorf("testenv: disconnect: %v; the goroutines are:\n%s", err, goroutines())
		}
	})
	var info struct {
		Version string `bson:"version"`
	}
	if err := client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
		t.Fatalf("testenv: ask for server version: %v", err)
	}
	return &Mongo{URI: d.uri, Client: client, Engine: name, Version: info.Version, d: d}
}

// connect makes the client that tests use. It retries nothing, so that a test
// sees what happens.
func connect(uri string) (*mongo.Client, error) {
	opts := options.Client().ApplyURI(uri).SetAppName("testenv").
		SetWriteConcern(writeconcern.Majority()).
		SetRetryReads(false).SetRetryWrites(false).SetServerSelectionTimeout(30 * time.Second)
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return client, nil
}

// take returns an idle deployment with that configuration, or nil.
func (e *environment) take(cfg deploymentConfig) *deployment {
	if cfg.fresh {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	idle := e.idle[cfg.key()]
	if len(idle) == 0 {
		return nil
	}
	d := idle[len(idle)-1]
	e.idle[cfg.key()] = idle[:len(idle)-1]
	return d
}

// start starts a deployment.
func (e *environment) start(t testing.TB, cfg deploymentConfig) *deployment {
	t.Helper()
	if cfg.engine == MongoD {
		e.require(t, MongoD)
	}
	if cfg.shards > 0 {
		e.require(t, MongoS)
	}
	ctx, cancel := starting()
	defer cancel()
	d := &deployment{cfg: cfg}
	var err error
	switch {
	case cfg.engine == Embedded:
		err = d.startEmbedded(ctx, e.newDir(t, "embedded"))
	case cfg.shards > 0:
		err = d.startSharded(ctx, e.newDir(t, "sharded"))
	default:
		err = d.startReplicaSet(ctx, e.newDir(t, "mongod"))
	}
	if err != nil {
		t.Fatalf("testenv: start %s: %v", cfg.engine, err)
	}
	return d
}

func (d *deployment) startEmbedded(ctx context.Context, dir string) (err error) {
	d.embedded, err = engine.StartEmbedded(ctx, engine.EmbeddedConfig{Dir: dir, Servers: []string{embeddedServer}})
	if err == nil {
		d.uri = d.embedded.MongoDB[embeddedServer]
	}
	return err
}

func (d *deployment) startReplicaSet(ctx context.Context, dir string) error {
	path, err := engine.FindMongoD()
	if err != nil {
		return err
	}
	d.set, err = engine.StartReplicaSet(ctx, engine.ReplicaSetConfig{
		MongoD: path, Dir: dir, Members: d.cfg.members, OplogMB: d.cfg.oplogMB, Auth: d.cfg.auth, Args: d.cfg.args,
	})
	if err == nil {
		d.uri = d.set.URI
	}
	return err
}

func (d *deployment) startSharded(ctx context.Context, dir string) error {
	mongod, err := engine.FindMongoD()
	if err != nil {
		return err
	}
	mongos, err := engine.FindMongoS()
	if err != nil {
		return err
	}
	d.sharded, err = engine.StartSharded(ctx, engine.ShardedConfig{
		MongoD: mongod, MongoS: mongos, Dir: dir, Shards: d.cfg.shards, OplogMB: d.cfg.oplogMB,
	})
	if err == nil {
		d.uri = d.sharded.URI
	}
	return err
}

// giveBack makes a deployment ready for its next test, or stops one that cannot
// be.
func (e *environment) giveBack(t testing.TB, d *deployment) {
	t.Helper()
	if t.Failed() {
		for _, s := range d.servers() {
			t.Logf("end of the log of %s (pid %d):\n%s", d.cfg.engine, s.PID(), s.Tail(logLines))
		}
	}
	// A new stand-in is cheaper than an emptied one, and its oplog is empty.
	reusable := !d.cfg.fresh && !d.touched && !t.Failed() && d.embedded == nil
	if reusable {
		if err := empty(d.uri); err != nil {
			t.Logf("testenv: stop a deployment that cannot be emptied: %v", err)
			reusable = false
		}
	}
	if !reusable {
		if err := d.stop(); err != nil {
			t.Errorf("testenv: stop %s: %v", d.cfg.engine, err)
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle[d.cfg.key()] = append(e.idle[d.cfg.key()], d)
}

// empty drops every database that is not the server's own.
func empty(uri string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := connect(uri)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	names, err := client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	for _, name := range names {
		if slices.Contains([]string{"admin", "config", "local"}, name) {
			continue
		}
		if err := client.Database(name).Drop(ctx); err != nil {
			return fmt.Errorf("drop database %s: %w", name, err)
		}
	}
	return nil
}

// stop ends the servers. Their data is thrown away with the process's
// directory, so that nothing is lost by killing them.
func (d *deployment) stop() error {
	var errs []error
	for _, s := range d.servers() {
		errs = append(errs, s.Kill())
	}
	return errors.Join(errs...)
}

// servers are the deployment's processes.
func (d *deployment) servers() []*engine.Server {
	switch {
	case d.embedded != nil:
		return []*engine.Server{d.embedded.Server}
	case d.sharded != nil:
		return d.sharded.Servers()
	}
	servers := make([]*engine.Server, len(d.set.Members))
	for i, m := range d.set.Members {
		servers[i] = m.Server
	}
	return servers
}

// Servers are the deployment's processes, to be killed, frozen and restarted at
// will; it goes to no other test afterwards.
func (m *Mongo) Servers() []*engine.Server {
	m.d.touched = true
	return m.d.servers()
}

// Sharded is the deployment's sharded cluster; nil if it is none. It goes to no
// other test afterwards.
func (m *Mongo) Sharded() *engine.Sharded {
	m.d.touched = true
	return m.d.sharded
}

// ReplicaSet is the deployment's replica set; nil on the stand-in and for a
// sharded cluster. It goes to no other test afterwards.
func (m *Mongo) ReplicaSet() *engine.ReplicaSet {
	m.d.touched = true
	return m.d.set
}
