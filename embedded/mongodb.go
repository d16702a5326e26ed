package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/FerretDB/FerretDB/ferretdb"
	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/embedded/front"
)

// walSync has SQLite write its log without waiting for the disk at each commit:
// data outlive the process, also one that is killed, though not the machine.
const walSync = "_pragma=synchronous(normal)"

// startMongoDB starts every server in group and returns their connection
// strings when all of them answer. They stop when ctx ends.
func startMongoDB(ctx context.Context, group *errgroup.Group, cfg config, stderr io.Writer) (map[string]string, error) {
	level := slog.LevelError
	if cfg.verbose {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	uris := map[string]string{}
	for _, m := range cfg.mongo {
		m.dir = filepath.Join(cfg.dir, "mongodb-"+m.name)
		uri, err := startServer(ctx, group, m, log.With("server", m.name))
		if err != nil {
			return nil, fmt.Errorf("start %s on %s: %w", m.name, m.address, err)
		}
		if err := prepare(ctx, uri, m); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", m.name, err)
		}
		uris[m.name] = uri
	}
	return uris, nil
}

// startServer starts one FerretDB on a port that nobody is told, and its front on
// the address that was asked for.
func startServer(ctx context.Context, group *errgroup.Group, m mongoConfig, log *slog.Logger) (string, error) {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return "", fmt.Errorf("create data directory: %w", err)
	}
	listener, err := net.Listen("tcp", m.address)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	hidden, err := startFerretDB(ctx, group, m.dir, log)
	if err != nil {
		return "", errors.Join(err, listener.Close())
	}
	cfg := front.Config{
		Listener: listener, Server: hidden,
		Created: func(ctx context.Context, database, collection string) (bool, error) {
			return indexByID(ctx, m.dir, database, collection)
		},
	}
	closeOplog := func() error { return nil }
	if m.oplog {
		o, err := openOplog(m.dir, int64(m.oplogMB)<<20)
		if err != nil {
			return "", errors.Join(err, listener.Close())
		}
		cfg.Fill, cfg.Newest, cfg.Trim, closeOplog = o.fill, o.newest, o.trim, o.db.Close
	}
	group.Go(func() error { return errors.Join(front.New(cfg).Run(ctx), closeOplog()) })
	return "mongodb://" + listener.Addr().String() + "/?directConnection=true", nil
}

// startFerretDB starts FerretDB in group and returns its address.
func startFerretDB(ctx context.Context, group *errgroup.Group, dir string, log *slog.Logger) (string, error) {
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Logger:    log,
		Handler:   "sqlite",
		SQLiteURL: (&url.URL{Scheme: "file", Opaque: dir + "/", RawQuery: walSync}).String(),
	})
	if err != nil {
		return "", fmt.Errorf("start FerretDB: %w", err)
	}
	group.Go(func() error { return server.Run(ctx) })
	address, err := url.Parse(server.MongoDBURI())
	if err != nil {
		return "", fmt.Errorf("parse FerretDB's own address: %w", err)
	}
	return address.Host, nil
}
