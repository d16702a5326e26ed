package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/FerretDB/FerretDB/ferretdb"
	"golang.org/x/sync/errgroup"
)

// startMongoDB starts every server in group and returns their connection
// strings when all of them answer. They stop when ctx ends.
func startMongoDB(ctx context.Context, group *errgroup.Group, cfg config, stderr io.Writer) (map[string]string, error) {
	level := slog.LevelError
	if cfg.verbose {
		level = slog.LevelInfo
	}
	uris := map[string]string{}
	for _, m := range cfg.mongo {
		dir := filepath.Join(cfg.dir, "mongodb-"+m.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("create data directory of %s: %w", m.name, err)
		}
		server, err := ferretdb.New(&ferretdb.Config{
			Listener:  ferretdb.ListenerConfig{TCP: m.address},
			Logger:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})).With("server", m.name),
			Handler:   "sqlite",
			SQLiteURL: (&url.URL{Scheme: "file", Opaque: dir + "/"}).String(),
		})
		if err != nil {
			return nil, fmt.Errorf("start %s on %s: %w", m.name, m.address, err)
		}
		group.Go(func() error { return server.Run(ctx) })
		uri, err := direct(server.MongoDBURI())
		if err != nil {
			return nil, err
		}
		if err := prepare(ctx, uri, m, cfg.oplogMB); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", m.name, err)
		}
		uris[m.name] = uri
	}
	return uris, nil
}

// direct adds directConnection=true: the server is no replica set member and
// says so.
func direct(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", errors.New("parse server's own connection string")
	}
	u.RawQuery = url.Values{"directConnection": {"true"}}.Encode()
	return u.String(), nil
}
