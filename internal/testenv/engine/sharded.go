package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// ShardedConfig says how to run a sharded cluster.
type ShardedConfig struct {
	// MongoD and MongoS are the programs.
	MongoD, MongoS string
	// Dir holds data and logs.
	Dir string
	// Shards is how many one-member shards there are; 2 if 0.
	Shards int
	// OplogMB is the size of each shard's oplog in MiB; 0 leaves it to the
	// server.
	OplogMB int
}

// Sharded is a running sharded cluster.
type Sharded struct {
	// URI leads to the router.
	URI    string
	Router *Server
	Config *ReplicaSet
	Shards []*ReplicaSet
}

// StartSharded starts a config server, shards and a router and waits until the
// router serves.
func StartSharded(ctx context.Context, cfg ShardedConfig) (_ *Sharded, err error) {
	if cfg.Shards == 0 {
		cfg.Shards = 2
	}
	s := &Sharded{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	start := func(name, role string) (*ReplicaSet, error) {
		return StartReplicaSet(ctx, ReplicaSetConfig{
			MongoD: cfg.MongoD, Dir: filepath.Join(cfg.Dir, name), Name: name, OplogMB: cfg.OplogMB, role: role,
		})
	}
	if s.Config, err = start("config", "--configsvr"); err != nil {
		return nil, err
	}
	for i := range cfg.Shards {
		shard, err := start("shard"+strconv.Itoa(i), "--shardsvr")
		if err != nil {
			return nil, err
		}
		s.Shards = append(s.Shards, shard)
	}
	if err := s.startRouter(ctx, cfg); err != nil {
		return nil, err
	}
	return s, s.addShards(ctx)
}

// startRouter starts the router on a free port.
func (s *Sharded) startRouter(ctx context.Context, cfg ShardedConfig) error {
	return onFreePorts(1, func(ports []int) error {
		address := fmt.Sprintf("127.0.0.1:%d", ports[0])
		s.URI = "mongodb://" + address + "/"
		command := Command{
			Name: "mongos", Path: cfg.MongoS, Log: filepath.Join(cfg.Dir, "mongos.log"),
			Args: []string{
				"--configdb", "config/" + s.Config.Members[0].Address, "--port", strconv.Itoa(ports[0]),
				"--bind_ip", "127.0.0.1", "--nounixsocket", "--setParameter", "enableTestCommands=1",
			},
		}
		var err error
		s.Router, err = launch(ctx, command, func(ctx context.Context) error { return answers(ctx, address) })
		return err
	})
}

// addShards makes the replica sets shards of the cluster.
func (s *Sharded) addShards(ctx context.Context) error {
	return with(ctx, s.URI, func(_ context.Context, c *mongo.Client) error {
		for _, shard := range s.Shards {
			host := shard.cfg.Name + "/" + shard.Members[0].Address
			// ctx, since adding a shard may take longer than one attempt.
			if err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "addShard", Value: host}}).Err(); err != nil {
				return fmt.Errorf("add shard %s: %w", host, err)
			}
		}
		return nil
	})
}

// Servers are all of the cluster's processes.
func (s *Sharded) Servers() []*Server {
	var servers []*Server
	if s.Router != nil {
		servers = append(servers, s.Router)
	}
	sets := s.Shards
	if s.Config != nil {
		sets = append(sets[:len(sets):len(sets)], s.Config)
	}
	for _, set := range sets {
		for _, m := range set.Members {
			servers = append(servers, m.Server)
		}
	}
	return servers
}

// Stop ends every process at once.
func (s *Sharded) Stop() error {
	var errs []error
	for _, server := range s.Servers() {
		errs = append(errs, server.Kill())
	}
	return errors.Join(errs...)
}
