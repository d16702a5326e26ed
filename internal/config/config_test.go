package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/event"
)

// hidden is part of every secret of the corpus; no message may hold it.
const hidden = "4711"

func env(name string) (string, bool) {
	v, ok := map[string]string{
		"SOURCE_PASSWORD": "hidden-4711", "PARTITIONS": "12", "KAFKA_PASSWORD": "hidden-4711",
	}[name]
	return v, ok
}

func TestGoodFiles(t *testing.T) {
	for _, path := range corpus(t, "*.good.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := config.Load(path, env); err != nil {
				t.Error(err)
			}
		})
	}
}

// A bad file says itself, in comments, what must be found on which line: every
// fault and nothing else.
func TestBadFiles(t *testing.T) {
	for _, path := range corpus(t, "*.bad.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, err := config.Load(path, env)
			faults, ok := errors.AsType[*config.FaultsError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			want := wanted(t, path)
			for _, f := range faults.Faults {
				if !take(want, f) {
					t.Errorf("unexpected: %s", f)
				}
			}
			for line, messages := range want {
				for _, m := range messages {
					t.Errorf("line %d: not reported: %s", line, m)
				}
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("a secret is in %v", err)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the file is not named in %v", err)
			}
		})
	}
}

// wanted returns the expected messages by line; 0 is the file.
func wanted(t *testing.T, path string) map[int][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int][]string{}
	for i, line := range strings.Split(string(text), "\n") {
		if _, message, ok := strings.Cut(line, "# want-file: "); ok {
			want[0] = append(want[0], message)
			continue
		}
		for _, message := range strings.Split(line, "# want: ")[1:] {
			want[i+1] = append(want[i+1], strings.TrimSpace(message))
		}
	}
	return want
}

// take removes the expectation that a fault meets.
func take(want map[int][]string, f config.Fault) bool {
	line := f.Line
	if _, ok := want[line]; !ok {
		line = 0
	}
	for i, message := range want[line] {
		if strings.Contains(f.String(), message) {
			want[line] = append(want[line][:i:i], want[line][i+1:]...)
			return true
		}
	}
	return false
}

func corpus(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("corpus %s: %v", pattern, err)
	}
	return paths
}

func TestValuesAndReferences(t *testing.T) {
	c, err := config.Load("testdata/full.good.yml", env)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		"uri": c.Source.URI, "password": c.Kafka.SASL.Password, "partitions": c.Kafka.Partitions,
		"snapshot_partitions": c.Kafka.SnapshotPartitions, "retention": c.Kafka.Retention, "queue": c.Capture.Queue,
		"batch": c.Snapshot.Batch, "chunk": c.Snapshot.Chunk, "connection": c.Retry.Connection, "other": c.Retry.Other,
		"exactly_once": c.Destinations[0].ExactlyOnce, "second": c.Destinations[1], "team": c.Labels["team"],
	}
	want := map[string]any{
		"uri": "mongodb://u:hidden-4711@a1,a2:27018/?replicaSet=rs0&tls=true", "password": "hidden-4711", "partitions": 12,
		"snapshot_partitions": 10, "retention": 36 * time.Hour, "queue": config.Bytes(1 << 30),
		"batch": config.Bytes(2 << 20), "chunk": config.Bytes(128_000_000), "connection": 24 * time.Hour, "other": time.Minute,
		"exactly_once": "on", "team": "42",
		"second": config.Destination{
			Name: "d2", URI: "mongodb://c:27017", ExactlyOnce: "auto", BatchDocuments: 1000, BatchBytes: 8 << 20, Queue: 128 << 20,
			Indexes: config.Indexes{Unique: "deferred", TTL: "deferred"}, OnError: "stop",
			Sync:      []string{"schema", "full", "incremental"},
			Conflicts: "fail", IndexBuilds: 2, Sharding: config.Sharding{Default: "none"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c, err = config.Load("testdata/sections.good.yml", env)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Destinations[0].URI, "mongodb://u:$dollar@b"; got != want {
		t.Errorf("uri %s, want %s", got, want)
	}
}

func TestShortRetryWindowsAreWarnedOf(t *testing.T) {
	for _, test := range []struct {
		connection, other time.Duration
		want              []string
	}{
		{12 * time.Hour, 10 * time.Minute, nil},
		{31 * time.Minute, 10 * time.Minute, nil},
		{30 * time.Minute, 10 * time.Minute, []string{"retry.connection is 30m0s"}},
		{10 * time.Minute, 9 * time.Minute, []string{"retry.connection is 10m0s", "retry.other is 9m0s"}},
	} {
		c := config.Config{Retry: config.Retry{Connection: test.connection, Other: test.other}}
		got := c.Warnings()
		for i, w := range test.want {
			if i >= len(got) || !strings.HasPrefix(got[i], w) {
				t.Errorf("%s and %s: warnings %q, want %q", test.connection, test.other, got, test.want)
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("%s and %s: warnings %q, want %q", test.connection, test.other, got, test.want)
		}
	}
}

func TestExampleIsAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipeline.yml")
	check := func(text string) *config.Config {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path, env)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	example := check(config.Example())
	// The keys that are commented out are right too, and their values are the
	// defaults where they say so.
	var open []string
	for line := range strings.Lines(config.Example()) {
		trimmed := strings.TrimLeft(line, " ")
		text, commented := strings.CutPrefix(trimmed, "#")
		if commented && !strings.HasPrefix(text, " ") || commented && strings.HasPrefix(text, "  ") {
			line = strings.Repeat(" ", len(line)-len(trimmed)) + text
		}
		open = append(open, line)
	}
	open = slices.DeleteFunc(open, func(line string) bool { return strings.Contains(line, "_file: ") }) // no such files here
	opened := check(strings.Join(open, ""))
	opened.Labels, opened.Select, opened.Kafka.TLS, opened.Kafka.SASL = example.Labels, example.Select, example.Kafka.TLS, example.Kafka.SASL
	opened.Destinations[1].Select = example.Destinations[1].Select
	opened.Destinations[1].Sharding.Rules = nil
	opened.Snapshot.ReadPreference, opened.Snapshot.ReadTags = "", nil
	if diff := cmp.Diff(example, opened); diff != "" {
		t.Errorf("a value in a comment is not the default:\n%s", diff)
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := config.Load("testdata/no-such-file.yml", env)
	if err == nil || !strings.Contains(err.Error(), "no-such-file.yml") || !strings.Contains(err.Error(), "config example") {
		t.Errorf("error %v", err)
	}
}

func TestRules(t *testing.T) {
	c, err := config.Load("testdata/full.good.yml", env)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Destination("d1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Rules(d)
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{"shop.items": "shop_copy.items", "crm.a.b": "", "shop.log": "", "hr.orders": "hr.orders", "hr.x": ""} {
		ns, err := event.ParseNamespace(from)
		if err != nil {
			t.Fatal(err)
		}
		target, ok := r.Target(ns)
		if ok != (want != "") || ok && target.String() != want {
			t.Errorf("%s: %s %t, want %q", from, target, ok, want)
		}
	}
	if _, err := c.Destination("d3"); err == nil || !strings.Contains(err.Error(), "d1, d2") {
		t.Errorf("error %v", err)
	}
}

func TestRulesDigest(t *testing.T) {
	digest := func(change func(*config.Config)) string {
		c, err := config.Load("testdata/full.good.yml", env)
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		text, err := c.RulesDigest(c.Destinations[0])
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	same := digest(func(*config.Config) {})
	if got := digest(func(c *config.Config) { c.Select.Include = []string{"crm.a.b", "shop.*", "*.orders", "shop.*"} }); got != same {
		t.Error("the order of patterns changes the digest")
	}
	for name, change := range map[string]func(*config.Config){
		"pipeline":    func(c *config.Config) { c.Select.Exclude = nil },
		"destination": func(c *config.Config) { c.Destinations[0].Select.Exclude = nil },
		"rename":      func(c *config.Config) { c.Destinations[0].Rename.Databases = nil },
	} {
		if digest(change) == same {
			t.Errorf("a change of %s does not change the digest", name)
		}
	}
}

func TestBytesString(t *testing.T) {
	for n, want := range map[config.Bytes]string{0: "0", 1: "1", 1 << 10: "1KiB", 3 << 20: "3MiB", 5 << 30: "5GiB", 1<<20 + 1: "1048577"} {
		if got := fmt.Sprint(n); got != want {
			t.Errorf("%d: %s, want %s", int64(n), got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"*.good.yml", "*.bad.yml"} {
		paths, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.yml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path, env); err != nil && err.Error() == "" {
			t.Error("an error without a message")
		}
	})
}
