package mongodb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Deployment is what a deployment is.
type Deployment struct {
	// ID is the replica set id in hex, for sharded clusters the cluster id. A
	// stand-in has a substitute, stored in it once; a standalone server has
	// none.
	ID           string
	SetName      string
	Version      string
	VersionArray []int
	// Sharded: a mongos answered. Standalone: neither replica set nor
	// cluster. Standin: not MongoDB at all. At most one is set.
	Sharded, Standalone, Standin bool
	MaxWireVersion               int
	// Hosts are the members that the deployment names.
	Hosts []string
}

// AtLeast reports whether the server's version is major.minor or later.
func (d Deployment) AtLeast(major, minor int) bool {
	if len(d.VersionArray) < 2 {
		return false
	}
	return d.VersionArray[0] > major || d.VersionArray[0] == major && d.VersionArray[1] >= minor
}

// UnsuitableError says that a deployment cannot play the part that the
// configuration gives it; trying again does not help.
type UnsuitableError struct {
	// Part is "source" or "destination".
	Part   string
	Reason string
	// Remedy is what the operator can do.
	Remedy string
}

// Error is one line with the remedy.
func (e *UnsuitableError) Error() string {
	return fmt.Sprintf("use MongoDB deployment as %s: %s: hint: %s", e.Part, e.Reason, e.Remedy)
}

// CheckSource returns an *UnsuitableError if the deployment cannot be followed in
// any way.
func (d Deployment) CheckSource() error {
	switch {
	case d.Standalone:
		return &UnsuitableError{
			Part: "source", Reason: "it is a standalone server, which keeps no oplog to follow",
			Remedy: "start mongod with --replSet NAME (or replication.replSetName) and run rs.initiate() once; one member is enough",
		}
	case !d.Standin && !d.AtLeast(4, 4):
		return &UnsuitableError{
			Part: "source", Reason: fmt.Sprintf("its version %s is older than 4.4", d.Version),
			Remedy: "upgrade it to MongoDB 4.4 or later",
		}
	}
	return nil
}

// CheckOplog returns an *UnsuitableError if the deployment cannot be followed by
// its oplog.
func (d Deployment) CheckOplog() error {
	if d.Sharded {
		return &UnsuitableError{
			Part: "source", Reason: "it is a sharded cluster (a mongos answered), whose oplogs are not one",
			Remedy: "set source.mode to auto or change_stream, or give the connection string of a replica set",
		}
	}
	return d.CheckSource()
}

// CheckStream returns an *UnsuitableError if the deployment cannot be followed by
// a change stream.
func (d Deployment) CheckStream() error {
	if d.Standin {
		return &UnsuitableError{
			Part: "source", Reason: "it is a stand-in, which has no change streams",
			Remedy: "set source.mode to auto or oplog",
		}
	}
	return d.CheckSource()
}

// routerMessage is how a router of a sharded cluster makes itself known.
const routerMessage = "isdbgrid"

// hello is the part of the hello command's answer that is used here.
type hello struct {
	SetName        string   `bson:"setName"`
	Msg            string   `bson:"msg"`
	Hosts          []string `bson:"hosts"`
	MaxWireVersion int      `bson:"maxWireVersion"`
	ClusterTime    struct {
		ClusterTime bson.Timestamp `bson:"clusterTime"`
	} `bson:"$clusterTime"`
	LastWrite struct {
		OpTime         opTime `bson:"opTime"`
		MajorityOpTime opTime `bson:"majorityOpTime"`
	} `bson:"lastWrite"`
}

// opTime is a place in the oplog of a replica set.
type opTime struct {
	TS   bson.Timestamp `bson:"ts"`
	Term int64          `bson:"t"`
}

// IsSharded reports whether a client leads to a router of a sharded cluster. It
// asks one command.
func IsSharded(ctx context.Context, client *mongo.Client) (bool, error) {
	h, err := sayHello(ctx, client)
	return err == nil && h.Msg == routerMessage, err
}

// Describe asks a deployment what it is. The first call on a stand-in writes
// its substitute id to database tributary; nothing is written elsewhere.
func Describe(ctx context.Context, client *mongo.Client) (Deployment, error) {
	h, err := sayHello(ctx, client)
	if err != nil {
		return Deployment{}, err
	}
	build, err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Raw()
	if err != nil {
		return Deployment{}, fmt.Errorf("ask MongoDB for its version: %w", err)
	}
	var info struct {
		Version      string `bson:"version"`
		VersionArray []int  `bson:"versionArray"`
	}
	if err := bson.Unmarshal(build, &info); err != nil {
		return Deployment{}, fmt.Errorf("read MongoDB's version: %w", err)
	}
	d := Deployment{
		SetName: h.SetName, Version: info.Version, VersionArray: info.VersionArray,
		MaxWireVersion: h.MaxWireVersion, Hosts: h.Hosts,
	}
	_, lookup := build.LookupErr("ferretdbVersion")
	switch {
	case lookup == nil:
		d.Standin = true
		d.ID, err = substituteID(ctx, client)
	case h.Msg == routerMessage:
		d.Sharded = true
		d.ID, err = clusterID(ctx, client)
	case h.SetName == "":
		d.Standalone = true
	default:
		d.ID, err = replicaSetID(ctx, client)
	}
	return d, err
}

func sayHello(ctx context.Context, client *mongo.Client) (hello, error) {
	var h hello
	admin := client.Database("admin")
	err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h)
	if hasCode(err, 59) { // CommandNotFound: 4.4.0 and 4.4.1 know only the old name
		err = admin.RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}).Decode(&h)
	}
	if err != nil {
		return hello{}, fmt.Errorf("ask MongoDB for its state: %w", err)
	}
	return h, nil
}

// replicaSetID reads the id from the stored configuration, which every reader
// of the oplog may do, else from the command, which needs another privilege.
func replicaSetID(ctx context.Context, client *mongo.Client) (string, error) {
	type config struct {
		Settings struct {
			ReplicaSetID bson.ObjectID `bson:"replicaSetId"`
		} `bson:"settings"`
	}
	var stored config
	err := client.Database("local").Collection("system.replset").FindOne(ctx, bson.D{}).Decode(&stored)
	if err == nil && !stored.Settings.ReplicaSetID.IsZero() {
		return stored.Settings.ReplicaSetID.Hex(), nil
	}
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) && !hasCode(err, codeUnauthorized) {
		return "", fmt.Errorf("read replica set id: %w", err)
	}
	var answer struct {
		Config config `bson:"config"`
	}
	err = client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&answer)
	if err != nil {
		return "", fmt.Errorf("read replica set id: %w", Explain(err, "the role clusterMonitor, or read on database local"))
	}
	if answer.Config.Settings.ReplicaSetID.IsZero() {
		return "", errors.New("read replica set id: the configuration of the replica set has no settings.replicaSetId")
	}
	return answer.Config.Settings.ReplicaSetID.Hex(), nil
}

func clusterID(ctx context.Context, client *mongo.Client) (string, error) {
	var version struct {
		ClusterID bson.ObjectID `bson:"clusterId"`
	}
	err := client.Database("config").Collection("version").FindOne(ctx, bson.D{}).Decode(&version)
	if err != nil {
		return "", fmt.Errorf("read cluster id: %w", Explain(err, "the role clusterMonitor"))
	}
	return version.ClusterID.Hex(), nil
}

// substituteID returns the id that was stored in a stand-in, and stores one
// where there is none; of two that try at once, one succeeds.
func substituteID(ctx context.Context, client *mongo.Client) (string, error) {
	coll := client.Database(ownDatabase).Collection("identity")
	read := func() (string, error) {
		var held struct {
			Deployment string `bson:"deployment"`
		}
		err := coll.FindOne(ctx, bson.D{{Key: "_id", Value: "deployment"}}).Decode(&held)
		return held.Deployment, err
	}
	id, err := read()
	if err == nil {
		return id, nil
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return "", fmt.Errorf("read substitute deployment id: %w", err)
	}
	_, err = coll.InsertOne(ctx, bson.D{{Key: "_id", Value: "deployment"}, {Key: "deployment", Value: bson.NewObjectID().Hex()}})
	if err != nil && !mongo.IsDuplicateKeyError(err) {
		return "", fmt.Errorf("store substitute deployment id: %w", err)
	}
	if id, err = read(); err != nil {
		return "", fmt.Errorf("read substitute deployment id: %w", err)
	}
	return id, nil
}

// Explain returns err or, where the server refused the user, an error around it
// that says what the user needs. The server's own words quote the whole command,
// and are cut before it.
func Explain(err error, needs string) error {
	if !hasCode(err, codeUnauthorized) {
		return err
	}
	said, _, _ := strings.Cut(err.Error(), " to execute command")
	if strings.Contains(said, "requires authentication") {
		return &refusedError{err: err, text: said + ": hint: the server wants a user name and a password: put them into the connection string, and give the user " + needs}
	}
	return &refusedError{err: err, text: said + ": hint: give the user " + needs}
}

// refusedError has words of its own for an error of the server.
type refusedError struct {
	text string
	err  error
}

func (e *refusedError) Error() string { return e.text }
func (e *refusedError) Unwrap() error { return e.err }
