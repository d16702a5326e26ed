package testenv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/tributarydb/tributary/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestEach(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		checkBroker(t, e.Brokers, e.Pipeline)
		source, destination := e.NewSource(t), e.NewDestination(t)
		if source.URI == destination.URI {
			t.Fatal("source and destination are the same deployment")
		}
		for _, m := range []*testenv.Mongo{source, destination} {
			checkMongo(t, m)
		}
	})
}

func TestEachGivesEmptyDeployments(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		for range 2 {
			t.Run("use", func(t *testing.T) { checkMongo(t, m.NewSource(t)) })
		}
	})
}

func TestEachKafka(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		checkBroker(t, b.Brokers, testenv.NewPipeline(t))
	})
}

func TestDeploymentSurvivesKill(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		source := m.NewSource(t)
		docs := source.Client.Database("shop").Collection("orders")
		if _, err := docs.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "one"}}); err != nil {
			t.Fatal(err)
		}
		for _, s := range source.Servers() {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		testenv.Eventually(t, time.Minute, func() error {
			return docs.FindOne(t.Context(), bson.D{{Key: "_id", Value: "one"}}).Err()
		})
	})
}

func TestFreezeAndThaw(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		source := m.NewSource(t)
		server := source.Servers()[0]
		if err := server.Freeze(); err != nil {
			t.Fatal(err)
		}
		// The signal reaches the server's threads one after another.
		testenv.Eventually(t, time.Minute, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if source.Client.Ping(ctx, nil) == nil {
				return errors.New("a frozen server answered")
			}
			return nil
		})
		if err := server.Thaw(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, time.Minute, func() error { return source.Client.Ping(t.Context(), nil) })
	})
}

func TestReplicaSetFailsOver(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Members(3))
	docs := source.Client.Database("shop").Collection("orders")
	if _, err := docs.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "one"}}); err != nil {
		t.Fatal(err)
	}
	set := source.ReplicaSet()
	if err := set.Members[0].Kill(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := docs.InsertOne(ctx, bson.D{{Key: "_id", Value: bson.NewObjectID()}})
		return err
	})
	if err := set.Members[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAuth(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Auth())
	checkMongo(t, source)
	member := source.ReplicaSet().Members[0]
	stranger, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + member.Address + "/?directConnection=true"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stranger.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := stranger.ListDatabaseNames(t.Context(), bson.D{}); err == nil {
		t.Error("a stranger may list databases")
	}
}

func TestShardedCluster(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Shards(2))
	if _, err := source.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	var shards struct {
		Shards []bson.Raw `bson:"shards"`
	}
	if err := source.Client.Database("admin").RunCommand(t.Context(), bson.D{{Key: "listShards", Value: 1}}).Decode(&shards); err != nil {
		t.Fatal(err)
	}
	if len(shards.Shards) != 2 {
		t.Errorf("cluster has %d shards, want 2", len(shards.Shards))
	}
}

func TestRealBrokerSurvivesKill(t *testing.T) {
	broker := testenv.FreshKafka(t, nil)
	checkBroker(t, broker.Brokers, "before")
	if err := broker.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := broker.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkBroker(t, broker.Brokers, "after")
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(t.Context(), "before.changes")
	if err != nil || len(topics) != 1 || topics.Error() != nil {
		t.Errorf("topic is gone after the restart: %v %v", topics, err)
	}
}

// checkBroker makes a topic and sends a record through it in a transaction.
func checkBroker(t *testing.T, brokers []string, pipeline string) {
	t.Helper()
	topic := pipeline + ".changes"
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.TransactionalID(pipeline),
		kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 2, 1, nil, topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatalf("commit: %v", err)
	}
	fetches := client.PollRecords(t.Context(), 1)
	if err := errors.Join(fetches.Err0(), fetches.Err()); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if n := fetches.NumRecords(); n != 1 {
		t.Fatalf("fetched %d records, want 1", n)
	}
}

// checkMongo writes a document and finds its oplog entry.
func checkMongo(t *testing.T, m *testenv.Mongo) {
	t.Helper()
	names, err := m.Client.ListDatabaseNames(t.Context(), bson.D{{Key: "name", Value: "shop"}})
	if err != nil || len(names) != 0 {
		t.Fatalf("new deployment holds %v (%v), want nothing", names, err)
	}
	id := fmt.Sprint(time.Now().UnixNano())
	if _, err := m.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}}); err != nil {
		t.Fatal(err)
	}
	oplog := m.Client.Database("local").Collection("oplog.rs")
	if err := oplog.FindOne(t.Context(), bson.D{{Key: "op", Value: "i"}, {Key: "o._id", Value: id}}).Err(); err != nil {
		t.Fatalf("find oplog entry: %v", err)
	}
}
