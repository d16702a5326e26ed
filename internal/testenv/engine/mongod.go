package engine

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

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// rootPassword is that of the user "root" of deployments with authentication.
// They listen on loopback and live as long as a test.
const rootPassword = "tributary-test"

// FindMongoD looks for a MongoDB server: TRIBUTARY_MONGOD, else mongod on the
// PATH.
func FindMongoD() (string, error) {
	return findMongo("mongod", "TRIBUTARY_MONGOD",
		"transactions, majority reads, change streams, DDL, indexes and every type that the stand-in refuses")
}

// FindMongoS looks for a MongoDB router: TRIBUTARY_MONGOS, else mongos on the
// PATH.
func FindMongoS() (string, error) {
	return findMongo("mongos", "TRIBUTARY_MONGOS", "sharded sources and destinations")
}

func findMongo(name, env, untested string) (string, error) {
	wanted := os.Getenv(env)
	if wanted == "" {
		wanted = name
	}
	path, err := exec.LookPath(wanted)
	if err != nil {
		return "", &MissingError{
			Engine: name, Why: fmt.Sprintf("no program %q (neither %s nor the PATH leads to one)", wanted, env),
			Remedy:   fmt.Sprintf("install MongoDB 4.4 or later, or set %s to its %s", env, name),
			Untested: untested,
		}
	}
	return path, nil
}

// ReplicaSetConfig says how to run a replica set.
type ReplicaSetConfig struct {
	// MongoD is the program.
	MongoD string
	// Dir holds data and logs.
	Dir string
	// Name is the set's; "rs" if empty.
	Name string
	// Members is how many; 1 if 0.
	Members int
	// OplogMB is the size of the oplog in MiB; 0 leaves it to the server.
	OplogMB int
	// Auth turns authentication on, with a key file and a user root.
	Auth bool
	// Args are added to every member's command line.
	Args []string
	// role is --shardsvr, --configsvr or nothing.
	role string
}

// ReplicaSet is a running replica set.
type ReplicaSet struct {
	// URI leads to the primary, with the credentials of root where there are
	// any.
	URI     string
	Members []*Member
	cfg     ReplicaSetConfig
	// initiated says that a member that starts finds itself in a set.
	initiated bool
}

// Member is one server of a replica set.
type Member struct {
	*Server
	// Address is host:port.
	Address string
	// URI leads to this member alone.
	URI string
}

// StartReplicaSet starts the members, initiates the set and waits until it has
// a primary that takes writes.
func StartReplicaSet(ctx context.Context, cfg ReplicaSetConfig) (*ReplicaSet, error) {
	if cfg.Members == 0 {
		cfg.Members = 1
	}
	if cfg.Name == "" {
		cfg.Name = "rs"
	}
	rs := &ReplicaSet{cfg: cfg}
	if err := rs.writeKey(); err != nil {
		return nil, err
	}
	for i := range cfg.Members {
		m, err := rs.startMember(ctx, i)
		if err != nil {
			return nil, errors.Join(err, rs.Stop())
		}
		rs.Members = append(rs.Members, m)
	}
	rs.URI = rs.uri("")
	if err := rs.settle(ctx); err != nil {
		return nil, errors.Join(err, rs.Stop())
	}
	return rs, nil
}

// settle makes the started members a set that is ready for anything, a kill
// included.
func (rs *ReplicaSet) settle(ctx context.Context) error {
	if err := rs.initiate(ctx); err != nil {
		return err
	}
	if rs.cfg.Auth {
		if err := rs.createRoot(ctx); err != nil {
			return err
		}
	}
	if err := rs.AwaitPrimary(ctx); err != nil {
		return err
	}
	rs.initiated = true
	for _, m := range rs.Members {
		if err := m.await(ctx, m.ready); err != nil {
			return err
		}
	}
	return nil
}

// memberReady reports whether a member answers and, in an initiated set, is
// primary or secondary and has made its first checkpoint. MongoDB 4.4.2 to 4.4.8
// may lose everything, journaled writes too, if they are killed during that.
func (rs *ReplicaSet) memberReady(ctx context.Context, m *Member) error {
	if !rs.initiated {
		return answers(ctx, m.Address)
	}
	return with(ctx, m.URI, func(ctx context.Context, c *mongo.Client) error {
		var hello struct {
			Primary   bool `bson:"isWritablePrimary"`
			Secondary bool `bson:"secondary"`
		}
		admin := c.Database("admin", options.Database().SetReadPreference(readpref.Nearest()))
		if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
			return err
		}
		if !hello.Primary && !hello.Secondary {
			return errors.New("member is neither primary nor secondary yet")
		}
		return admin.RunCommand(ctx, bson.D{{Key: "fsync", Value: 1}}).Err()
	})
}

// uri leads to the whole set, or to one address of it.
func (rs *ReplicaSet) uri(address string) string {
	credentials, query := "", "?directConnection=true"
	if rs.cfg.Auth {
		credentials = "root:" + rootPassword + "@"
	}
	if address == "" {
		addresses := make([]string, len(rs.Members))
		for i, m := range rs.Members {
			addresses[i] = m.Address
		}
		address, query = strings.Join(addresses, ","), "?replicaSet="+rs.cfg.Name
	}
	if rs.cfg.Auth {
		query += "&authSource=admin"
	}
	return "mongodb://" + credentials + address + "/" + query
}

// keyFile is the members' shared secret.
func (rs *ReplicaSet) keyFile() string { return filepath.Join(rs.cfg.Dir, "key") }

func (rs *ReplicaSet) writeKey() error {
	if err := os.MkdirAll(rs.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("create directory of replica set: %w", err)
	}
	if !rs.cfg.Auth {
		return nil
	}
	return os.WriteFile(rs.keyFile(), []byte(strings.Repeat("tributary", 8)), 0o600)
}

// startMember starts the i-th member and waits until it answers.
func (rs *ReplicaSet) startMember(ctx context.Context, i int) (*Member, error) {
	dir := filepath.Join(rs.cfg.Dir, "member-"+strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create directory of member %d: %w", i, err)
	}
	m := &Member{}
	err := onFreePorts(1, func(ports []int) error {
		m.Address = fmt.Sprintf("127.0.0.1:%d", ports[0])
		m.URI = rs.uri(m.Address)
		command := Command{
			Name: "mongod", Path: rs.cfg.MongoD, Log: filepath.Join(rs.cfg.Dir, fmt.Sprintf("member-%d.log", i)),
			Args: append([]string{
				"--dbpath", dir, "--port", strconv.Itoa(ports[0]), "--bind_ip", "127.0.0.1", "--nounixsocket",
				"--replSet", rs.cfg.Name, "--wiredTigerCacheSizeGB", "0.25",
				"--setParameter", "enableTestCommands=1",
				"--setParameter", "diagnosticDataCollectionEnabled=false",
			}, rs.options()...),
		}
		var err error
		m.Server, err = launch(ctx, command, func(ctx context.Context) error { return rs.memberReady(ctx, m) })
		return err
	})
	return m, err
}

// options are the arguments that depend on the configuration.
func (rs *ReplicaSet) options() []string {
	var args []string
	if rs.cfg.OplogMB > 0 {
		args = append(args, "--oplogSize", strconv.Itoa(rs.cfg.OplogMB))
	}
	if rs.cfg.Auth {
		args = append(args, "--auth", "--keyFile", rs.keyFile())
	}
	if rs.cfg.role != "" {
		args = append(args, rs.cfg.role)
	}
	return append(args, rs.cfg.Args...)
}

// initiate makes the members a set.
func (rs *ReplicaSet) initiate(ctx context.Context) error {
	members := bson.A{}
	for i, m := range rs.Members {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: m.Address}})
	}
	settings := bson.D{{Key: "electionTimeoutMillis", Value: 2000}, {Key: "heartbeatIntervalMillis", Value: 500}}
	config := bson.D{{Key: "_id", Value: rs.cfg.Name}, {Key: "members", Value: members}, {Key: "settings", Value: settings}}
	if rs.cfg.role == "--configsvr" {
		config = append(config, bson.E{Key: "configsvr", Value: true})
	}
	err := rs.asLocal(ctx, func(ctx context.Context, c *mongo.Client) error {
		return c.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	})
	if err != nil {
		return fmt.Errorf("initiate replica set: %w", err)
	}
	return rs.Members[0].await(ctx, func(ctx context.Context) error {
		return rs.asLocal(ctx, func(ctx context.Context, c *mongo.Client) error {
			var hello struct {
				Primary bool `bson:"isWritablePrimary"`
			}
			err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
			if err == nil && !hello.Primary {
				err = errors.New("first member is not primary yet")
			}
			return err
		})
	})
}

// createRoot adds the user root, which the server allows once from localhost
// while it has no user. Where the answer was lost, the next try is refused; that
// root works is seen by AwaitPrimary, which logs in.
func (rs *ReplicaSet) createRoot(ctx context.Context) error {
	const (
		unauthorized = 13
		userExists   = 51003
	)
	err := rs.Members[0].await(ctx, func(ctx context.Context) error {
		err := rs.asLocal(ctx, func(ctx context.Context, c *mongo.Client) error {
			return c.Database("admin").RunCommand(ctx, bson.D{
				{Key: "createUser", Value: "root"},
				{Key: "pwd", Value: rootPassword},
				{Key: "roles", Value: bson.A{"root"}},
				{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
			}).Err()
		})
		var answer mongo.CommandError
		if errors.As(err, &answer) && (answer.Code == unauthorized || answer.Code == userExists) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create user root: %w", err)
	}
	return nil
}

// asLocal calls do with a client of the first member without credentials.
func (rs *ReplicaSet) asLocal(ctx context.Context, do func(context.Context, *mongo.Client) error) error {
	return with(ctx, "mongodb://"+rs.Members[0].Address+"/?directConnection=true", do)
}

// AwaitPrimary waits until the set has a primary whose writes a majority
// acknowledges.
func (rs *ReplicaSet) AwaitPrimary(ctx context.Context) error {
	return rs.Members[0].await(ctx, func(ctx context.Context) error {
		return with(ctx, rs.URI, func(ctx context.Context, c *mongo.Client) error {
			return c.Database("admin").RunCommand(ctx, bson.D{
				{Key: "appendOplogNote", Value: 1},
				{Key: "data", Value: bson.D{{Key: "msg", Value: "ready"}}},
				{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}, {Key: "wtimeout", Value: 1000}}},
			}).Err()
		})
	})
}

// Stop stops every member, secondaries with the primary.
func (rs *ReplicaSet) Stop() error {
	var errs []error
	for _, m := range rs.Members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

// answers reports whether a server takes commands.
func answers(ctx context.Context, address string) error {
	return with(ctx, "mongodb://"+address+"/?directConnection=true", func(ctx context.Context, c *mongo.Client) error {
		return c.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Err()
	})
}

// with calls do with a short-lived client and a deadline for one attempt.
func with(ctx context.Context, uri string, do func(context.Context, *mongo.Client) error) (err error) {
	opts := options.Client().ApplyURI(uri).SetAppName("testenv").SetServerSelectionTimeout(2 * time.Second)
	client, err := mongo.Connect(opts)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return do(ctx, client)
}
