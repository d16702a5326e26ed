package precheck_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestSourceAndDestination(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		opts := mongodb.Options{URI: m.NewSource(t).URI}
		source, err := precheck.Source(t.Context(), opts, precheck.ModeOplog, nil)
		if err != nil {
			t.Fatal(err)
		}
		destination, err := precheck.Destination(t.Context(), "copy", opts)
		if err != nil {
			t.Fatal(err)
		}
		err = precheck.Apart(source, map[string]mongodb.Deployment{"copy": destination})
		if err == nil || !strings.Contains(err.Error(), "same deployment as the source") {
			t.Errorf("error %v", err)
		}
	})
}

func TestApart(t *testing.T) {
	source := mongodb.Deployment{ID: "a"}
	for name, test := range map[string]struct {
		destinations map[string]mongodb.Deployment
		want         string
	}{
		"apart":             {map[string]mongodb.Deployment{"x": {ID: "b"}, "y": {ID: "c"}}, ""},
		"standalone":        {map[string]mongodb.Deployment{"x": {Standalone: true}, "y": {Standalone: true}}, ""},
		"the source":        {map[string]mongodb.Deployment{"x": {ID: "b"}, "y": {ID: "a"}}, "check destination y: it is the same deployment as the source"},
		"two that are one":  {map[string]mongodb.Deployment{"x": {ID: "b"}, "y": {ID: "b"}}, "check destination y: it is the same deployment as destination x"},
		"nothing to follow": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := precheck.Apart(source, test.destinations)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A user without enough rights is told which ones are missing.
func TestPrivileges(t *testing.T) {
	server := testenv.RequireMongoD(t).NewSource(t, testenv.Auth(), testenv.Fresh())
	as := func(name string, roles ...any) mongodb.Options {
		t.Helper()
		err := server.Client.Database("admin").RunCommand(t.Context(), bson.D{
			{Key: "createUser", Value: name}, {Key: "pwd", Value: "Geheim-4711"}, {Key: "roles", Value: append(bson.A{}, roles...)},
		}).Err()
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(server.URI)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(name, "Geheim-4711")
		return mongodb.Options{URI: u.String()}
	}
	if err := server.Client.Database("admin").RunCommand(t.Context(), bson.D{
		{Key: "createRole", Value: "lists"}, {Key: "roles", Value: bson.A{}}, {Key: "privileges", Value: bson.A{bson.D{
			{Key: "resource", Value: bson.D{{Key: "db", Value: ""}, {Key: "collection", Value: ""}}},
			{Key: "actions", Value: bson.A{"listCollections", "listIndexes"}},
		}}},
	}).Err(); err != nil {
		t.Fatal(err)
	}
	role := func(name, db string) bson.D { return bson.D{{Key: "role", Value: name}, {Key: "db", Value: db}} }
	check := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "4711") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := server.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	_, err := precheck.Source(t.Context(), as("nothing"), precheck.ModeOplog, nil)
	check(err, "give the user the role clusterMonitor, or read on database local")
	_, err = precheck.Source(t.Context(), as("monitor", "clusterMonitor"), precheck.ModeOplog, nil)
	check(err, "not authorized on shop: hint: give the user the role readAnyDatabase")
	_, err = precheck.Source(t.Context(), as("lister", "clusterMonitor", role("lists", "admin")), precheck.ModeOplog, nil)
	check(err, "read collection ns=shop.orders: (Unauthorized) not authorized on shop: hint: give the user read on every selected database")
	if _, err := precheck.Source(t.Context(), as("reader", "readAnyDatabase", "clusterMonitor", role("read", "local")), precheck.ModeOplog, nil); err != nil {
		t.Errorf("a reader is refused: %v", err)
	}
	_, err = precheck.Destination(t.Context(), "copy", as("onlooker", "readAnyDatabase", "clusterMonitor"))
	check(err, "give the user readWrite and dbAdmin on database tributary")
	if _, err := precheck.Destination(t.Context(), "copy", as("writer", "readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor")); err != nil {
		t.Errorf("a writer is refused: %v", err)
	}
}

func TestIdentityOfThePipeline(t *testing.T) {
	broker := testenv.StandIn(t)
	cfg := kafka.Config{Brokers: broker.Brokers}
	held := mongodb.Deployment{ID: "a"}
	if err := precheck.NotSource(t.Context(), cfg, "p.state", "copy", held); err != nil {
		t.Fatalf("without a topic: %v", err)
	}
	client, err := kafka.NewClient(cfg, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, "p.state"); err != nil {
		t.Fatal(err)
	}
	if err := precheck.NotSource(t.Context(), cfg, "p.state", "copy", held); err != nil {
		t.Fatalf("with an empty topic: %v", err)
	}
	record, err := state.Record("p.state", state.KeyIdentity(), state.Identity{Deployment: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := precheck.NotSource(t.Context(), cfg, "p.state", "copy", held); err == nil || !strings.Contains(err.Error(), "the pipeline's source") {
		t.Errorf("error %v", err)
	}
	if err := precheck.NotSource(t.Context(), cfg, "p.state", "copy", mongodb.Deployment{ID: "b"}); err != nil {
		t.Error(err)
	}
}
