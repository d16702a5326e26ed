package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // The driver that FerretDB uses.
)

// indexByID gives a collection an index by which FerretDB finds a document by
// _id. FerretDB's own is on an expression that differs in spelling from that of
// its queries (->"_id" and ->'$._id'), so that SQLite uses it for uniqueness
// only, and every update and delete reads the whole collection.
//
// It returns false if there is no such collection. It must not run beside a command that drops the database: the last connection
// to an SQLite file removes its log by name.
func indexByID(ctx context.Context, dir, database, collection string) (exists bool, err error) {
	file := filepath.Join(dir, database+".sqlite")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	db, err := sql.Open("sqlite", "file:"+file+"?mode=rw&_pragma=busy_timeout(10000)")
	if err != nil {
		return false, fmt.Errorf("open %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var table string
	err = db.QueryRowContext(ctx, `SELECT table_name FROM _ferretdb_collections WHERE name = ?`, collection).Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up table of %s.%s: %w", database, collection, err)
	}
	statement := fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %q ON %q (_ferretdb_sjson->'$._id')`, table+"__tributary_id", table)
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return false, fmt.Errorf("index %s.%s: %w", database, collection, err)
	}
	return true, nil
}
