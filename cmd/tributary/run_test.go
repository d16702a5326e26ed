package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// get asks without keeping the connection.
func get(ctx context.Context, address, path string) (body string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// One process takes a source over, follows it, shows itself and is verified.
func TestRunStatusVerify(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		source, copied := e.NewSource(t), e.NewDestination(t)
		insert := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				doc := bson.D{{Key: "_id", Value: fmt.Sprint("order-", i)}, {Key: "n", Value: i}}
				if _, err := source.Client.Database("shop").Collection("orders").InsertOne(t.Context(), doc); err != nil {
					t.Fatal(err)
				}
			}
		}
		insert(0, 20)
		path := pipeline(t, e.Pipeline, source.URI, e.Brokers, copied.URI, "labels: {team: crm}")
		fails(t, 2, []string{"has never run", e.Pipeline + ".state does not exist"}, "status", "-config", path)

		run := start(t, nil, "run", "-config", path, "-instance", "here")
		awaitApplied(t, run)
		insert(20, 30)
		code, stdout, stderr := call(t, "verify", "-config", path)
		if code != 0 || !strings.Contains(stdout, "shop.orders") {
			t.Fatalf("verify: exit code %d\n%s%s\nrun:\n%s", code, stdout, stderr, run.stderr)
		}
		metrics, err := get(t.Context(), run.address(t), "/metrics")
		if err != nil || !strings.Contains(metrics, `team="crm"`) || !strings.Contains(metrics, "tributary_apply_events_total") {
			t.Errorf("metrics: %v\n%s", err, metrics)
		}
		if _, err := copied.Client.Database("shop").Collection("orders").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: "order-7"}}); err != nil {
			t.Fatal(err)
		}
		if code, stdout, _ := call(t, "verify", "-config", path, "-destination", "copy"); code != 1 || !strings.Contains(stdout, "order-7") {
			t.Errorf("verify of a difference: exit code %d\n%s", code, stdout)
		}
		checkStatus(t, path)
		checkRefresh(t, path)
		checkThrottle(t, path, run)
		if code := run.end(t); code != 0 {
			t.Errorf("run: exit code %d\n%s", code, run.stderr)
		}
		// It goes on where it stood.
		insert(30, 40)
		again := start(t, nil, "run", "-config", path, "-instance", "here")
		awaitApplied(t, again)
		testenv.Eventually(t, 2*time.Minute, func() error {
			return contains(again.stderr.String(), "limits of changes/copy are now: 90000 operations/s")
		})
		if code, stdout, stderr := call(t, "verify", "-config", path, "-json"); code != 1 || !strings.Contains(stdout, `"verdict": "different"`) {
			t.Errorf("verify after a restart: exit code %d\n%s%s", code, stdout, stderr)
		}
		if code := again.end(t); code != 0 {
			t.Errorf("run again: exit code %d\n%s", code, again.stderr)
		}
	})
}

// checkRefresh has a document published anew, and waits for it.
func checkRefresh(t *testing.T, path string) {
	t.Helper()
	code, stdout, stderr := call(t, "refresh", "-config", path, "-namespace", "shop.orders", "-id", `"order-8"`, "-wait", "1m")
	if code != 0 || !strings.Contains(stdout, "published") {
		t.Errorf("refresh: exit code %d\n%s%s", code, stdout, stderr)
	}
	code, _, stderr = call(t, "refresh", "-config", path, "-namespace", "shop.none", "-id", "7", "-wait", "1m")
	if code != 1 || !strings.Contains(stderr, "does not exist") {
		t.Errorf("refresh in a collection that does not exist: exit code %d\n%s", code, stderr)
	}
}

// awaitApplied waits until the load is complete and apply follows.
func awaitApplied(t *testing.T, b *background) {
	t.Helper()
	address := b.address(t)
	testenv.Eventually(t, 2*time.Minute, func() error {
		statuses, err := statusesOf(t.Context(), address)
		if err != nil {
			return err
		}
		if len(statuses) != 3 || statuses[1].State != state.StateFinished || statuses[2].State != state.StateRunning || statuses[2].Phase != state.PhaseChanges {
			return fmt.Errorf("statuses %+v\n%s", statuses, b.stderr)
		}
		return nil
	})
}

func checkStatus(t *testing.T, path string) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, func() error {
		code, stdout, stderr := call(t, "status", "-config", path, "-json")
		var status pipelineStatus
		if err := json.Unmarshal([]byte(stdout), &status); err != nil || code != 0 {
			return fmt.Errorf("exit code %d: %w\n%s%s", code, err, stdout, stderr)
		}
		if len(status.Services) != 3 || status.Services[0].State != state.StateRunning || status.Source == nil ||
			status.Run == nil || status.Run.State != state.RunComplete {
			return fmt.Errorf("status %s", stdout)
		}
		if _, ok := status.Waiting["copy"]; !ok {
			return fmt.Errorf("no waiting records in %s", stdout)
		}
		return nil
	})
	code, stdout, _ := call(t, "status", "-config", path)
	for _, want := range []string{"SERVICE", "apply", "copy", "here/copy", "running", "finished", "complete"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, no %q in\n%s", code, want, stdout)
		}
	}
}

// Nothing that Tributary prints or serves holds a password, also not at the
// lowest log level and when things go wrong.
func TestNoCredentialInAnyOutput(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		locked, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", secret))
		if err != nil {
			t.Fatal(err)
		}
		closing := false
		t.Cleanup(func() {
			if !closing {
				locked.Close()
			}
		})
		source, copied := "", ""
		if m.Exact {
			source, copied = grant(t, m.NewSource(t, testenv.Auth(), testenv.Fresh())), grant(t, m.NewDestination(t, testenv.Auth(), testenv.Fresh()))
		} else {
			source, copied = m.NewSource(t).URI, m.NewDestination(t).URI
		}
		path := file(t, fmt.Sprintf(`name: shop
source: {uri: "${SOURCE}"}
kafka:
  brokers: [%q]
  replication_factor: 1
  min_insync_replicas: 1
  sasl: {mechanism: SCRAM-SHA-256, username: alice, password: "${PASSWORD}"}
destinations: [{name: copy, uri: "${COPY}"}]
http: {address: "127.0.0.1:0"}
log: {level: trace, format: json}
`, locked.ListenAddrs()[0]))
		env := map[string]string{"SOURCE": source, "COPY": copied, "PASSWORD": secret}
		run := start(t, env, "run", "-config", path)
		awaitApplied(t, run)
		var printed []string
		for _, page := range []string{"/status", "/metrics", "/readyz", "/healthz"} {
			body, err := get(t.Context(), run.address(t), page)
			if err != nil {
				t.Fatal(err)
			}
			printed = append(printed, body)
		}
		for _, args := range [][]string{{"status"}, {"status", "-json"}, {"verify"}, {"config", "check", "-connect"}} {
			p := newProgram(env)
			if code := p.app.main(t.Context(), append(args, "-config", path)); code != 0 {
				t.Errorf("%v: exit code %d\n%s", args, code, p.stderr)
			}
			printed = append(printed, p.stdout.String(), p.stderr.String())
		}
		closing = true
		locked.Close() // and now the broker is gone
		testenv.Eventually(t, 90*time.Second, func() error {
			body, err := get(t.Context(), run.address(t), "/status")
			if err == nil && !strings.Contains(body, `"retrying"`) {
				err = errors.New("no service says that it retries")
			}
			return err
		})
		if code := run.end(t); code != 0 {
			t.Errorf("run stopped without a broker: exit code %d", code)
		}
		printed = append(printed, run.stdout.String(), run.stderr.String())
		for _, text := range printed {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("a password was printed: …%s…", text[max(0, i-200):i])
			}
		}
	})
}
