package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// secret is part of every password of these tests.
const secret = "Geheim-4711"

// fails runs a command that must end with one message, with every text of want
// in it and no secret.
func fails(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	begin := time.Now()
	got, stdout, stderr := call(t, args...)
	if got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "tributary: ") }):]
	message := strings.Join(last, "\n")
	for _, text := range want {
		if !strings.Contains(message, text) {
			t.Errorf("the message does not hold %q:\n%s", text, message)
		}
	}
	if n := strings.Count(stderr, "tributary: "); n != 1 {
		t.Errorf("%d messages instead of one:\n%s", n, stderr)
	}
	if strings.Contains(stdout+stderr, secret) {
		t.Errorf("a password was printed:\n%s%s", stdout, stderr)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the message took %s", took)
	}
}

func TestFaultyFile(t *testing.T) {
	path := file(t, `name: my shop
source: {url: "mongodb://u:Geheim-4711@a"}
kafka: {brokers: [k:9092]}
destinations:
  - name: copy
    uri: mongodb://u:Geheim-4711@a,b/
    filter: {}
`)
	for _, command := range []string{"run", "capture", "snapshot", "apply", "verify", "status"} {
		fails(t, 2, []string{
			"pipeline name \"my shop\" has the character ' '", "source.url: unknown key: hint: did you mean uri?",
			"source.uri: is missing", "destinations[0].filter: unknown key: hint: this version cannot do that yet",
		}, command, "-config", path)
	}
	same := file(t, `name: shop
source: {uri: "mongodb://a:27017"}
kafka: {brokers: ["k:9092"]}
destinations: [{name: copy, uri: "mongodb://u:Geheim-4711@a/?directConnection=true"}]
`)
	fails(t, 2, []string{"destinations[0].uri: names the server a:27017, which is also the source"}, "config", "check", "-config", same)
}

func TestKafkaMistakes(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		source, copied := m.NewSource(t), m.NewDestination(t)
		nobody := closedPort(t)
		down := pipeline(t, "shop", source.URI, []string{nobody}, copied.URI)
		for _, command := range []string{"run", "capture", "snapshot", "apply"} {
			fails(t, 1, []string{"connect to Kafka", nobody, "refused", "is Kafka running"}, command, "-config", down)
		}
		fails(t, 2, []string{"show status", nobody}, "status", "-config", down)

		locked, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "x-"+secret))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(locked.Close)
		wrong := file(t, fmt.Sprintf(`name: shop
source: {uri: %q}
kafka:
  brokers: [%q]
  sasl: {mechanism: PLAIN, username: alice, password: %s}
destinations: [{name: copy, uri: %q}]
`, source.URI, locked.ListenAddrs()[0], secret, copied.URI))
		fails(t, 1, []string{"connect to Kafka", "kafka.sasl.password"}, "run", "-config", wrong)
	})
}

func TestMongoDBMistakes(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		broker := testenv.StandIn(t)
		source, copied := m.NewSource(t), m.NewDestination(t)
		nobody := closedPort(t)
		gone := "mongodb://alice:" + secret + "@" + nobody + "/?directConnection=true&serverSelectionTimeoutMS=1000"
		fails(t, 1, []string{"check source: connect to MongoDB at " + nobody, "refused", "is the server running"},
			"run", "-config", pipeline(t, "shop", gone, broker.Brokers, copied.URI))
		fails(t, 1, []string{"check destination copy: connect to MongoDB at " + nobody, "is the server running"},
			"apply", "-config", pipeline(t, "shop", source.URI, broker.Brokers, gone))
		fails(t, 2, []string{"verify source: connect to MongoDB at " + nobody},
			"verify", "-config", pipeline(t, "shop", gone, broker.Brokers, copied.URI))

		// The same deployment by another name is found by its id.
		other := strings.Replace(source.URI, "127.0.0.1", "localhost", 1)
		fails(t, 1, []string{"check destination copy: it is the same deployment as the source", "correct its uri"},
			"run", "-config", pipeline(t, "shop", source.URI, broker.Brokers, other))
		fails(t, 1, []string{"same deployment as the source"},
			"config", "check", "-connect", "-config", pipeline(t, "shop", source.URI, broker.Brokers, other))
	})
}

func TestWrongPassword(t *testing.T) {
	m := testenv.RequireMongoD(t)
	broker := testenv.StandIn(t)
	locked, copied := m.NewSource(t, testenv.Auth()), m.NewDestination(t)
	u, err := url.Parse(locked.URI)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("alice", secret)
	fails(t, 1, []string{"check source", `as user "alice"`, "check the user name, the password, authSource"},
		"run", "-config", pipeline(t, "shop", u.String(), broker.Brokers, copied.URI))
	fails(t, 1, []string{"check destination copy", `as user "alice"`},
		"apply", "-config", pipeline(t, "shop", copied.URI, broker.Brokers, u.String()))
	u.User = nil
	fails(t, 1, []string{"check source", "the server wants a user name and a password"},
		"run", "-config", pipeline(t, "shop", u.String(), broker.Brokers, copied.URI))
}

func TestStandaloneSource(t *testing.T) {
	copied := testenv.RequireMongoD(t).NewDestination(t)
	broker := testenv.StandIn(t)
	uri := standalone(t)
	path := pipeline(t, "shop", uri, broker.Brokers, copied.URI)
	for _, command := range []string{"run", "capture", "snapshot"} {
		fails(t, 1, []string{"standalone server", "start mongod with --replSet", "rs.initiate()"}, command, "-config", path)
	}
}

// standalone starts a mongod that belongs to no replica set.
func standalone(t *testing.T) string {
	t.Helper()
	mongod, err := engine.FindMongoD()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(closedPort(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	process, err := engine.Command{
		Name: "standalone", Path: mongod, Args: []string{"--port", port, "--dbpath", dir, "--bind_ip", "127.0.0.1", "--nounixsocket"},
		Log: filepath.Join(dir, "log"),
	}.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
	})
	uri := "mongodb://127.0.0.1:" + port + "/?directConnection=true"
	testenv.Eventually(t, time.Minute, func() error {
		client, err := mongodb.Connect(t.Context(), mongodb.Options{URI: uri, ServerSelectionTimeout: time.Second})
		if err != nil {
			return err
		}
		return client.Disconnect(t.Context())
	})
	return uri
}

func TestTopicWithWrongSettings(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		client, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 5, 1, nil, e.Pipeline+".changes"); err != nil {
			t.Fatal(err)
		}
		path := pipeline(t, e.Pipeline, e.NewSource(t).URI, e.Brokers, e.NewDestination(t).URI)
		for _, command := range []string{"run", "capture", "snapshot", "apply"} {
			fails(t, 1, []string{
				"check Kafka topics: " + e.Pipeline + ".changes has message.timestamp.type=CreateTime, wants LogAppendTime",
				"partitions=5, wants 3", "kafka-configs.sh --bootstrap-server",
			}, command, "-config", path)
		}
	})
}

// A pipeline's name belongs to one source.
func TestAnotherSourceUnderTheSameName(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		first, second, copied := e.NewSource(t), e.NewSource(t, testenv.Fresh()), e.NewDestination(t)
		capture := start(t, nil, "capture", "-config", pipeline(t, e.Pipeline, first.URI, e.Brokers, copied.URI))
		awaitState(t, capture, state.StateRunning)
		if code := capture.end(t); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, capture.stderr)
		}
		ids := make([]string, 2)
		for i, server := range []*testenv.Mongo{first, second} {
			d, err := mongodb.Describe(t.Context(), server.Client)
			if err != nil {
				t.Fatal(err)
			}
			ids[i] = d.ID
		}
		path := pipeline(t, e.Pipeline, second.URI, e.Brokers, copied.URI)
		fails(t, 1, []string{ids[0], ids[1], "name"}, "capture", "-config", path)
		// The source cannot become a destination either, also where only the
		// pipeline's state says what it is.
		path = pipeline(t, e.Pipeline, second.URI, e.Brokers, first.URI)
		fails(t, 1, []string{"check destination copy: it is the same deployment as the pipeline's source"}, "apply", "-config", path)
	})
}

func TestPortInUse(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := taken.Close(); err != nil {
				t.Error(err)
			}
		}()
		path := pipeline(t, "shop", m.NewSource(t).URI, testenv.StandIn(t).Brokers, m.NewDestination(t).URI)
		fails(t, 1, []string{"listen for HTTP", "-http HOST:PORT"}, "run", "-config", path, "-http", taken.Addr().String())
	})
}

// awaitState waits until the first service of a program is in a state.
func awaitState(t *testing.T, b *background, want string) {
	t.Helper()
	address := b.address(t)
	testenv.Eventually(t, 60*time.Second, func() error {
		statuses, err := statusesOf(t.Context(), address)
		if err != nil {
			return err
		}
		if len(statuses) == 0 || statuses[0].State != want {
			return fmt.Errorf("statuses %+v, want %s\n%s", statuses, want, b.stderr)
		}
		return nil
	})
}

func statusesOf(ctx context.Context, address string) ([]state.Status, error) {
	body, err := get(ctx, address, "/status")
	if err != nil {
		return nil, err
	}
	var statuses []state.Status
	return statuses, json.Unmarshal([]byte(body), &statuses)
}

// grant makes a user whose password is secret and returns a URI with it.
func grant(t *testing.T, server *testenv.Mongo) string {
	t.Helper()
	err := server.Client.Database("admin").RunCommand(t.Context(), bson.D{
		{Key: "createUser", Value: "alice"}, {Key: "pwd", Value: secret}, {Key: "roles", Value: bson.A{"root"}},
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.URI)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("alice", secret)
	return u.String()
}
