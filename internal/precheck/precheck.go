package precheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// disconnectTimeout bounds the good-bye to a deployment.
const disconnectTimeout = 3 * time.Second

// Brokers returns nil if the brokers answer.
func Brokers(ctx context.Context, cfg kafka.Config) error {
	client, err := kafka.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	return kafka.Ping(ctx, client)
}

// The modes that a source can be followed in: by its oplog, by a change stream,
// or by the first of them that works.
const (
	ModeOplog        = "oplog"
	ModeChangeStream = "change_stream"
	ModeAuto         = "auto"
)

// Source returns what the source is, if it can be followed in the mode, and this
// user can list and read its collections.
func Source(ctx context.Context, opts mongodb.Options, mode string, selection *rules.Selection) (mongodb.Deployment, error) {
	var d mongodb.Deployment
	err := with(ctx, opts, func(client *mongo.Client) error {
		var err error
		if d, err = mongodb.Describe(ctx, client); err != nil {
			return err
		}
		if err := d.CheckSource(); err != nil {
			return err
		}
		if err := follow(ctx, client, d, mode); err != nil {
			return err
		}
		return readCollections(ctx, client, selection)
	})
	if err != nil {
		return mongodb.Deployment{}, fmt.Errorf("check source: %w", err)
	}
	return d, nil
}

// follow tries what the mode needs.
func follow(ctx context.Context, client *mongo.Client, d mongodb.Deployment, mode string) error {
	readable := mode == ModeOplog
	if mode == ModeAuto {
		var err error
		if readable, err = mongodb.OplogReadable(ctx, client, d); err != nil {
			return err
		}
	}
	if readable {
		return cmp.Or(d.CheckOplog(), mongodb.ReadOplog(ctx, client))
	}
	return cmp.Or(d.CheckStream(), mongodb.OpenStream(ctx, client))
}

// readCollections lists what is selected and reads a document of one collection
// of each database: listing is another right than reading.
func readCollections(ctx context.Context, client *mongo.Client, selection *rules.Selection) error {
	entries, err := mongodb.ListCollections(ctx, client, selection.Match)
	if err != nil {
		return err
	}
	read := map[string]bool{}
	for _, e := range entries {
		if e.View || read[e.NS.DB] {
			continue
		}
		read[e.NS.DB] = true
		err := client.Database(e.NS.DB).Collection(e.NS.Coll).
			FindOne(ctx, bson.D{}, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
			return fmt.Errorf("read collection ns=%s: %w", e.NS, mongodb.Explain(err, "read on every selected database (readAnyDatabase)"))
		}
	}
	return nil
}

// Destination returns what a destination is, if this user can write to
// database tributary of it.
func Destination(ctx context.Context, name string, opts mongodb.Options) (mongodb.Deployment, error) {
	var d mongodb.Deployment
	err := with(ctx, opts, func(client *mongo.Client) error {
		var err error
		if d, err = mongodb.Describe(ctx, client); err != nil {
			return err
		}
		if !d.Standin && !d.AtLeast(4, 4) {
			return &mongodb.UnsuitableError{
				Part: "destination", Reason: fmt.Sprintf("its version %s is older than 4.4", d.Version), Remedy: "upgrade it to MongoDB 4.4 or later",
			}
		}
		return tryWrite(ctx, client)
	})
	if err != nil {
		return mongodb.Deployment{}, fmt.Errorf("check destination %s: %w", name, err)
	}
	return d, nil
}

// tryWrite inserts a document and removes it again.
func tryWrite(ctx context.Context, client *mongo.Client) error {
	coll := client.Database("tributary").Collection("probe")
	id := bson.D{{Key: "_id", Value: bson.NewObjectID()}}
	_, err := coll.InsertOne(ctx, id)
	if err == nil {
		_, err = coll.DeleteOne(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("write to database tributary: %w", mongodb.Explain(err, "readWrite and dbAdmin on database tributary and on the databases that it writes"))
	}
	return nil
}

// Apart returns an error if a destination is the source, or two destinations
// are one, whatever their connection strings say. Destinations are by name.
func Apart(source mongodb.Deployment, destinations map[string]mongodb.Deployment) error {
	owner := map[string]string{}
	if source.ID != "" {
		owner[source.ID] = "the source"
	}
	names := make([]string, 0, len(destinations))
	for name := range destinations {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		id := destinations[name].ID
		if id == "" { // standalone servers have none
			continue
		}
		if other, taken := owner[id]; taken {
			return sameError(name, other, id)
		}
		owner[id] = "destination " + name
	}
	return nil
}

func sameError(name, other, id string) error {
	return fmt.Errorf("check destination %s: it is the same deployment as %s (id %s): hint: a destination must be a deployment of its own: correct its uri", name, other, id)
}

// NotSource returns an error if a destination is the deployment that the
// pipeline's state topic names as its source. A pipeline that has no state yet
// gives nil.
func NotSource(ctx context.Context, cfg kafka.Config, topic, name string, d mongodb.Deployment) error {
	id, known, err := Identity(ctx, cfg, topic)
	if err != nil || !known || d.ID == "" || id.Deployment != d.ID {
		return err
	}
	return sameError(name, "the pipeline's source", d.ID)
}

// Identity returns the source that a pipeline belongs to, if that is decided.
func Identity(ctx context.Context, cfg kafka.Config, topic string) (id state.Identity, known bool, err error) {
	view, err := View(ctx, cfg, topic)
	if err != nil || view == nil {
		return state.Identity{}, false, err
	}
	id, known = view.Identity()
	return id, known, nil
}

// View loads a pipeline's state; nil without an error where the topic does not
// exist.
func View(ctx context.Context, cfg kafka.Config, topic string) (*state.View, error) {
	client, err := kafka.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := kafka.Ping(ctx, client); err != nil {
		return nil, err
	}
	listed, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("look for topic %s: %w", topic, err)
	}
	d := listed[topic]
	if errors.Is(d.Err, kerr.UnknownTopicOrPartition) || d.Err == nil && len(d.Partitions) == 0 {
		return nil, nil //nolint:nilnil // No state yet is an answer.
	}
	return state.Load(ctx, cfg, topic)
}

// with connects for the length of a check.
func with(ctx context.Context, opts mongodb.Options, check func(*mongo.Client) error) error {
	client, err := mongodb.Connect(ctx, opts)
	if err != nil {
		return err
	}
	err = check(client)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
	defer cancel()
	return errors.Join(err, client.Disconnect(end))
}
