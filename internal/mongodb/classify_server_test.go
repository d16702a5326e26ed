package mongodb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

// failing has the server answer a command with an error of its own making, in
// the form that it gives that code (failCommand), until undo is called.
func failing(t *testing.T, client *mongo.Client, command string, data ...bson.E) (undo func()) {
	t.Helper()
	set := func(mode any, data bson.D) {
		t.Helper()
		cmd := bson.D{{Key: "configureFailPoint", Value: "failCommand"}, {Key: "mode", Value: mode}}
		if data != nil {
			cmd = append(cmd, bson.E{Key: "data", Value: data})
		}
		if err := client.Database("admin").RunCommand(t.Context(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("alwaysOn", append(bson.D{{Key: "failCommands", Value: bson.A{command}}}, data...))
	return func() { t.Helper(); set("off", nil) }
}

// TestClassifyInjected: what the driver makes of the server's answers to reads,
// writes and commits, code by code.
func TestClassifyInjected(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Fresh())
	// A server that said it shuts down is looked at again with a heartbeat.
	client, err := mongo.Connect(options.Client().ApplyURI(source.URI).SetHeartbeatInterval(500 * time.Millisecond).SetRetryReads(false).SetRetryWrites(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	coll := client.Database("shop").Collection("orders")
	if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: 0}}); err != nil {
		t.Fatal(err)
	}
	operations := map[string]func() error{
		"find": func() error { return coll.FindOne(t.Context(), bson.D{}).Err() },
		"insert": func() error {
			_, err := coll.InsertOne(t.Context(), bson.D{})
			return err
		},
		"commitTransaction": func() error {
			session, err := client.StartSession()
			if err != nil {
				return err
			}
			defer session.EndSession(t.Context())
			if err := session.StartTransaction(); err != nil {
				return err
			}
			if _, err := coll.InsertOne(mongo.NewSessionContext(t.Context(), session), bson.D{}); err != nil {
				return err
			}
			return session.CommitTransaction(t.Context())
		},
	}
	code := func(n int) bson.E { return bson.E{Key: "errorCode", Value: n} }
	concern := func(n int) bson.E {
		return bson.E{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: n}, {Key: "errmsg", Value: "injected"}}}
	}
	closed := bson.E{Key: "closeConnection", Value: true}
	for _, test := range []struct {
		name     string
		commands []string
		data     bson.E
		want     retry.Verdict
	}{
		{"connection closed", []string{"find", "insert", "commitTransaction"}, closed, retry.Connection},
		{"HostUnreachable", []string{"find", "insert", "commitTransaction"}, code(6), retry.Connection},
		{"NetworkTimeout", []string{"find", "insert", "commitTransaction"}, code(89), retry.Connection},
		{"ShutdownInProgress", []string{"find", "insert", "commitTransaction"}, code(91), retry.Connection},
		{"PrimarySteppedDown", []string{"find", "insert", "commitTransaction"}, code(189), retry.Connection},
		{"ExceededTimeLimit", []string{"find", "insert", "commitTransaction"}, code(262), retry.Connection},
		{"SocketException", []string{"find", "insert", "commitTransaction"}, code(9001), retry.Connection},
		{"NotWritablePrimary", []string{"find", "insert", "commitTransaction"}, code(10107), retry.Connection},
		{"InterruptedAtShutdown", []string{"find", "insert", "commitTransaction"}, code(11600), retry.Connection},
		{"InterruptedDueToReplStateChange", []string{"find", "insert", "commitTransaction"}, code(11602), retry.Connection},
		{"NotPrimaryNoSecondaryOk", []string{"find", "insert"}, code(13435), retry.Connection},
		{"NotPrimaryOrSecondary", []string{"find", "insert"}, code(13436), retry.Connection},
		{"ReadConcernMajorityNotAvailableYet", []string{"find"}, code(134), retry.Connection},
		{"WriteConflict", []string{"insert", "commitTransaction"}, code(112), retry.Now},
		{"LockTimeout", []string{"insert", "commitTransaction"}, code(24), retry.Now},
		{"SnapshotUnavailable", []string{"find"}, code(246), retry.Now},
		{"NoSuchTransaction", []string{"commitTransaction"}, code(251), retry.Now},
		{"TransactionExceededLifetimeLimitSeconds", []string{"commitTransaction"}, code(290), retry.Now},
		{"Interrupted", []string{"find", "insert"}, code(11601), retry.Now},
		{"MaxTimeMSExpired", []string{"find", "insert", "commitTransaction"}, code(50), retry.Other},
		{"InternalError", []string{"find", "insert"}, code(1), retry.Other},
		{"OutOfDiskSpace", []string{"insert"}, code(14031), retry.Other},
		{"Unauthorized", []string{"find", "insert"}, code(13), retry.Stop},
		{"CommandNotFound", []string{"find"}, code(59), retry.Stop},
		{"DocumentValidationFailure", []string{"insert"}, code(121), retry.Stop},
		{"write concern: timeout", []string{"insert", "commitTransaction"}, concern(64), retry.Connection},
		{"write concern: shutdown", []string{"insert", "commitTransaction"}, concern(91), retry.Connection},
		{"write concern: stepdown", []string{"insert", "commitTransaction"}, concern(11602), retry.Connection},
		{"write concern: unsatisfiable", []string{"insert"}, concern(100), retry.Other},
	} {
		for _, command := range test.commands {
			t.Run(test.name+"/"+command, func(t *testing.T) {
				undo := failing(t, source.Client, command, test.data)
				err := operations[command]()
				undo()
				if got := mongodb.Classify(err); err == nil || got != test.want {
					t.Errorf("%v: %s, want %s", err, got, test.want)
				}
			})
		}
	}
}

// TestClassifyProduced: errors that a server really gives, each brought about.
func TestClassifyProduced(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Fresh())
	db := source.Client.Database("shop")
	coll := db.Collection("orders")
	insert := func(ctx context.Context, id any) error {
		_, err := coll.InsertOne(ctx, bson.D{{Key: "_id", Value: id}})
		return err
	}
	for i := range 300 {
		if err := insert(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		produce func(t *testing.T) error
		want    retry.Verdict
	}{
		"duplicate key":  {func(t *testing.T) error { return insert(t.Context(), 1) }, retry.Stop},
		"write conflict": {func(t *testing.T) error { return conflict(t, coll) }, retry.Now},
		"transaction ended by the server": {func(t *testing.T) error {
			return inTransaction(t, coll, func(ctx context.Context, s *mongo.Session) error {
				if err := insert(ctx, "killed"); err != nil {
					return err
				}
				if err := kill(t, source.Client, s); err != nil {
					return err
				}
				return insert(ctx, "killed too")
			})
		}, retry.Now},
		"cursor killed": {func(t *testing.T) error {
			cursor, err := coll.Find(t.Context(), bson.D{}, options.Find().SetBatchSize(2))
			if err != nil {
				return err
			}
			killed := db.RunCommand(t.Context(), bson.D{{Key: "killCursors", Value: "orders"}, {Key: "cursors", Value: bson.A{cursor.ID()}}})
			for killed.Err() == nil && cursor.Next(t.Context()) {
			}
			return errors.Join(killed.Err(), cursor.Err())
		}, retry.Now},
		"time limit": {func(t *testing.T) error {
			set := func(mode string) error {
				return source.Client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "configureFailPoint", Value: "maxTimeAlwaysTimeOut"}, {Key: "mode", Value: mode}}).Err()
			}
			if err := set("alwaysOn"); err != nil {
				t.Fatal(err)
			}
			err := db.RunCommand(t.Context(), bson.D{{Key: "find", Value: "orders"}, {Key: "maxTimeMS", Value: 60_000}}).Err()
			if off := set("off"); off != nil {
				t.Fatal(off)
			}
			return err
		}, retry.Other},
		"no such command": {func(t *testing.T) error { return db.RunCommand(t.Context(), bson.D{{Key: "noSuch", Value: 1}}).Err() }, retry.Stop},
		"collection exists": {func(t *testing.T) error {
			return db.CreateCollection(t.Context(), "orders", options.CreateCollection())
		}, retry.Stop},
		"write concern unmet": {func(t *testing.T) error { return tooManyMembers(t, coll) }, retry.Other},
		"document too large": {func(t *testing.T) error {
			_, err := coll.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: 1}}, mongo.Pipeline{{{Key: "$set", Value: bson.D{
				{Key: "a", Value: strings.Repeat("x", 9<<20)}, {Key: "b", Value: bson.D{{Key: "$concat", Value: bson.A{strings.Repeat("y", 5<<20), "$a"}}}},
			}}}, {{Key: "$set", Value: bson.D{{Key: "c", Value: "$a"}}}}})
			return err
		}, retry.Stop},
		"stepdown under writes": {func(t *testing.T) error { return steppedDown(t, source) }, retry.Connection},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.produce(t)
			if got := mongodb.Classify(err); err == nil || got != test.want {
				t.Errorf("%v: %s, want %s", err, got, test.want)
			}
		})
	}
}

func inTransaction(t *testing.T, coll *mongo.Collection, do func(context.Context, *mongo.Session) error) error {
	t.Helper()
	session, err := coll.Database().Client().StartSession()
	if err != nil {
		return err
	}
	defer session.EndSession(t.Context())
	opts := options.Transaction().SetReadConcern(readconcern.Snapshot()).SetWriteConcern(writeconcern.Majority())
	if err := session.StartTransaction(opts); err != nil {
		return err
	}
	return do(mongo.NewSessionContext(t.Context(), session), session)
}

// conflict has two transactions write one document.
func conflict(t *testing.T, coll *mongo.Collection) error {
	set := bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}}
	id := bson.D{{Key: "_id", Value: 2}}
	return inTransaction(t, coll, func(ctx context.Context, _ *mongo.Session) error {
		if _, err := coll.UpdateOne(ctx, id, set); err != nil {
			return fmt.Errorf("first: %w", err)
		}
		return inTransaction(t, coll, func(ctx context.Context, _ *mongo.Session) error {
			_, err := coll.UpdateOne(ctx, id, set)
			return err
		})
	})
}

func kill(t *testing.T, client *mongo.Client, s *mongo.Session) error {
	return client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "killSessions", Value: bson.A{s.ID()}}}).Err()
}

// tooManyMembers asks for more acknowledgements than there are members.
func tooManyMembers(t *testing.T, coll *mongo.Collection) error {
	many := coll.Database().Collection(coll.Name(), options.Collection().SetWriteConcern(&writeconcern.WriteConcern{W: 5}))
	_, err := many.InsertOne(t.Context(), bson.D{{Key: "w", Value: 5}})
	return err
}

// steppedDown writes on while its member steps down.
func steppedDown(t *testing.T, source *testenv.Mongo) error {
	var stepping errgroup.Group
	stepping.Go(func() error {
		return source.Client.Database("admin").RunCommand(t.Context(), bson.D{
			{Key: "replSetStepDown", Value: 3}, {Key: "secondaryCatchUpPeriodSecs", Value: 1}, {Key: "force", Value: true},
		}).Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var failed error
	for failed == nil {
		_, failed = source.Client.Database("shop").Collection("orders").InsertOne(ctx, bson.D{})
	}
	if err := stepping.Wait(); err != nil && mongodb.Classify(err) != retry.Connection {
		t.Error(err)
	}
	if _, server := errors.AsType[mongo.ServerError](failed); !server {
		t.Errorf("the server did not answer: %v", failed)
	}
	return failed
}
