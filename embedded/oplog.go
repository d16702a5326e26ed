package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tributarydb/tributary/embedded/front"
)

// windowBytes limits the size of what a window holds, as FerretDB stores it.
const windowBytes = 4 << 20

// prepare waits until the server answers and gives it an oplog where asked:
// FerretDB writes oplog entries as soon as local.oplog.rs is there.
func prepare(ctx context.Context, uri string, m mongoConfig) (err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetAppName("embedded"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	if err := client.Ping(ctx, nil); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if !m.oplog {
		return nil
	}
	local := client.Database("local")
	names, err := local.ListCollectionNames(ctx, bson.D{{Key: "name", Value: "oplog.rs"}})
	if err != nil {
		return fmt.Errorf("look for oplog: %w", err)
	}
	if len(names) != 0 {
		return waitForNextSecond(ctx, local.Collection("oplog.rs"))
	}
	// The oplog last: its presence says that all is there. FerretDB keeps to no
	// size; the oplog is trimmed by us.
	for _, name := range []string{front.WindowCollection, "oplog.rs"} {
		if err := local.CreateCollection(ctx, name, options.CreateCollection().SetCapped(true).SetSizeInBytes(1<<30)); err != nil {
			return fmt.Errorf("create local.%s: %w", name, err)
		}
	}
	return nil
}

// waitForNextSecond returns once the clock has left the second of the oplog's
// last entry. FerretDB's cluster time is {second, counter} and the counter
// starts anew with the process: within that second a new entry would sort
// before an old one.
func waitForNextSecond(ctx context.Context, oplog *mongo.Collection) error {
	var last struct {
		TS bson.Timestamp `bson:"ts"`
	}
	err := oplog.FindOne(ctx, bson.D{}, options.FindOne().SetSort(bson.D{{Key: "$natural", Value: -1}})).Decode(&last)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read last oplog entry: %w", err)
	}
	wait := time.NewTimer(time.Until(time.Unix(int64(last.TS.T)+1, 0)))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oplog reads FerretDB's oplog collection in SQLite, where its rows are ordered
// by a record id that FerretDB cannot search for. Entries reach clients through
// FerretDB all the same: they are copied to a small collection, the window, and
// read from that.
type oplog struct {
	db    *sql.DB
	limit int64
	// entries and window are the collections' tables, once they are there.
	entries, window string
}

// openOplog opens the database local of a server's directory when it is first
// needed. limit is how many bytes to keep.
func openOplog(dir string, limit int64) (*oplog, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "local.sqlite")+"?mode=rw&_pragma=busy_timeout(10000)&"+walSync)
	if err != nil {
		return nil, fmt.Errorf("open oplog: %w", err)
	}
	db.SetMaxOpenConns(1)
	return &oplog{db: db, limit: limit}, nil
}

// tables finds the collections' tables.
func (o *oplog) tables(ctx context.Context) error {
	if o.entries != "" {
		return nil
	}
	query := `SELECT table_name FROM _ferretdb_collections WHERE name = ?`
	if err := o.db.QueryRowContext(ctx, query, front.WindowCollection).Scan(&o.window); err != nil {
		return fmt.Errorf("look up table of window: %w", err)
	}
	if err := o.db.QueryRowContext(ctx, query, "oplog.rs").Scan(&o.entries); err != nil {
		return fmt.Errorf("look up table of oplog: %w", err)
	}
	return nil
}

// fill implements [front.Config.Fill].
func (o *oplog) fill(ctx context.Context, after int64, limit int) (last int64, err error) {
	if err := o.tables(ctx); err != nil {
		return 0, err
	}
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("fill window: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("fill window: %w", err), tx.Rollback())
		}
	}()
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`DELETE FROM %q`, o.window)); err != nil {
		return 0, err
	}
	// The first entry always, further ones while they fit.
	_, err = tx.ExecContext(ctx, fmt.Sprintf(`
		INSERT INTO %q (_ferretdb_record_id, _ferretdb_sjson)
		SELECT id, doc FROM (
			SELECT _ferretdb_record_id AS id, _ferretdb_sjson AS doc,
				sum(length(_ferretdb_sjson)) OVER (ORDER BY _ferretdb_record_id) - length(_ferretdb_sjson) AS before
			FROM (SELECT * FROM %q WHERE _ferretdb_record_id > ? ORDER BY _ferretdb_record_id LIMIT ?)
		) WHERE before < ?`, o.window, o.entries), after, limit, windowBytes)
	if err != nil {
		return 0, err
	}
	query := fmt.Sprintf(`SELECT coalesce(max(_ferretdb_record_id), ?) FROM %q`, o.window)
	if err := tx.QueryRowContext(ctx, query, after).Scan(&last); err != nil {
		return 0, err
	}
	return last, tx.Commit()
}

// newest implements [front.Config.Newest].
func (o *oplog) newest(ctx context.Context) (before int64, err error) {
	if err := o.tables(ctx); err != nil {
		return 0, err
	}
	query := fmt.Sprintf(`SELECT coalesce(max(_ferretdb_record_id) - 1, 0) FROM %q`, o.entries)
	if err := o.db.QueryRowContext(ctx, query).Scan(&before); err != nil {
		return 0, fmt.Errorf("look up newest entry: %w", err)
	}
	return before, nil
}

// trim implements [front.Config.Trim]: it deletes the oldest entries of an oplog
// that has outgrown its limit.
func (o *oplog) trim(ctx context.Context) error {
	if err := o.tables(ctx); err != nil {
		return err
	}
	_, err := o.db.ExecContext(ctx, fmt.Sprintf(`
		DELETE FROM %q WHERE _ferretdb_record_id <= (
			SELECT max(id) FROM (
				SELECT _ferretdb_record_id AS id,
					sum(length(_ferretdb_sjson)) OVER (ORDER BY _ferretdb_record_id DESC) AS after
				FROM %q
			) WHERE after > ?
		)`, o.entries, o.entries), o.limit)
	if err != nil {
		return fmt.Errorf("trim oplog: %w", err)
	}
	return nil
}
