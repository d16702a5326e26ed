package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// output collects what a program writes from many goroutines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// program runs the command line in this process.
type program struct {
	app            *app
	stdout, stderr *output
}

func newProgram(env map[string]string) *program {
	p := &program{stdout: &output{}, stderr: &output{}}
	p.app = &app{
		stdout: p.stdout, stderr: p.stderr, version: "test",
		env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
	return p
}

// call runs a command to its end.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := newProgram(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code = p.app.main(ctx, args)
	return code, p.stdout.String(), p.stderr.String()
}

// background is a program that runs until it is stopped.
type background struct {
	*program
	stop  context.CancelFunc
	group errgroup.Group
	code  int
}

// start runs a service; the test's end stops it.
func start(t *testing.T, env map[string]string, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &background{program: newProgram(env), stop: cancel}
	b.group.Go(func() error {
		b.code = b.app.main(ctx, args)
		return nil
	})
	t.Cleanup(func() { b.end(t) })
	return b
}

// end stops the program and returns its exit code.
func (b *background) end(t *testing.T) int {
	t.Helper()
	b.stop()
	if err := b.group.Wait(); err != nil {
		t.Error(err)
	}
	return b.code
}

// address is where the program serves HTTP, from its log.
func (b *background) address(t *testing.T) string {
	t.Helper()
	listening := regexp.MustCompile(`(?m)^.*serving metrics and status.*$`)
	value := regexp.MustCompile(`address"?[=:]"?([0-9.:]+)`)
	var address string
	testenv.Eventually(t, 60*time.Second, func() error {
		found := value.FindStringSubmatch(listening.FindString(b.stderr.String()))
		if found == nil {
			return fmt.Errorf("no HTTP server yet:\n%s", b.stderr)
		}
		address = found[1]
		return nil
	})
	return address
}

// file writes a configuration.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipeline.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pipeline writes the configuration of a pipeline on one broker; more is added
// at its end.
func pipeline(t *testing.T, name, source string, brokers []string, destination string, more ...string) string {
	t.Helper()
	return file(t, fmt.Sprintf(`name: %s
source: {uri: %q}
kafka: {brokers: [%q], replication_factor: 1, min_insync_replicas: 1, partitions: 3, snapshot_partitions: 2}
destinations: [{name: copy, uri: %q}]
http: {address: "127.0.0.1:0"}
%s
`, name, source, strings.Join(brokers, `","`), destination, strings.Join(more, "\n")))
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"nothing":              {nil, 2, "", "no command is given"},
		"help":                 {[]string{"help"}, 0, "config example", ""},
		"-h":                   {[]string{"-h"}, 0, "Exit codes", ""},
		"help of a command":    {[]string{"apply", "-h"}, 0, "-destination NAME", ""},
		"unknown":              {[]string{"wibble"}, 2, "", "`tributary help` lists the commands"},
		"misspelt":             {[]string{"snapshto"}, 2, "", "did you mean `tributary snapshot`?"},
		"half a command":       {[]string{"config"}, 2, "", "config check` or `tributary config example"},
		"misspelt half":        {[]string{"config", "chekc"}, 2, "", "did you mean `tributary config check`?"},
		"unknown flag":         {[]string{"apply", "-confg", "x"}, 2, "", "did you mean -config?"},
		"argument":             {[]string{"run", "pipeline.yml"}, 2, "", `unexpected argument "pipeline.yml": hint: flags begin with -`},
		"no configuration":     {[]string{"capture"}, 2, "", "add -config FILE"},
		"no such file":         {[]string{"verify", "-config", "no-such.yml"}, 2, "", "no-such.yml: no such file"},
		"version":              {[]string{"version"}, 0, "tributary test", ""},
		"-version":             {[]string{"--version"}, 0, "tributary test", ""},
		"example":              {[]string{"config", "example"}, 0, "destinations:", ""},
		"two destinations":     {[]string{"apply", "-config", "../../deploy/compose/pipeline.yml"}, 2, "", "is not set"},
		"example is accepted":  {[]string{"config", "check", "-config", file(t, exampleText(t))}, 0, "good: pipeline shop, destinations replica, reporting", ""},
		"refresh of nothing":   {[]string{"refresh", "-config", file(t, exampleText(t)), "-namespace", "shop.orders"}, 2, "", "-id once for each of them, or -all"},
		"refresh without name": {[]string{"refresh", "-config", file(t, exampleText(t)), "-all"}, 2, "", "add -namespace DB.COLLECTION"},
		"refresh of no _id":    {[]string{"refresh", "-id", "{"}, 2, "", "want an _id as Extended JSON"},
		"refresh for one":      {[]string{"refresh", "-config", file(t, exampleText(t)), "-namespace", "a.b", "-id", "7", "-destination", "replica"}, 2, "", "leave -destination out"},
		"reload for nobody":    {[]string{"refresh", "-config", file(t, exampleText(t)), "-namespace", "a.b", "-all", "-destination", "x"}, 2, "", "use one of replica, reporting"},
		"no destination named": {
			[]string{"apply", "-config", file(t, exampleText(t))}, 2, "", "add -destination with one of replica, reporting",
		},
		"no such destination": {
			[]string{"verify", "-config", file(t, exampleText(t)), "-destination", "x"}, 2, "", "use one of replica, reporting",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, test.args...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit code %d, want %d\nstdout %s\nwant %q\nstderr %s\nwant %q", code, test.code, stdout, test.stdout, stderr, test.stderr)
			}
			if test.code == 0 && stderr != "" {
				t.Errorf("success says %q", stderr)
			}
		})
	}
}

func exampleText(t *testing.T) string {
	t.Helper()
	code, stdout, _ := call(t, "config", "example")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	return stdout
}

// A first signal stops, a later one aborts, and one that comes at once is the
// same.
func TestSignals(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	// A broker that never answers keeps the command busy until it is stopped.
	path := pipeline(t, "x", "mongodb://127.0.0.1:1", []string{listener.Addr().String()}, "mongodb://127.0.0.1:2")
	p := newProgram(nil)
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGINT
	signals <- syscall.SIGTERM
	if code := attend(signals, p.app, []string{"capture", "-config", path}); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out := p.stderr.String(); !strings.Contains(out, "stopping (again to abort)") || strings.Contains(out, "aborted") {
		t.Errorf("stderr: %s", out)
	}
}

func TestSecondSignalAborts(t *testing.T) {
	path := pipeline(t, "${NAME}", "mongodb://127.0.0.1:1", []string{"127.0.0.1:3"}, "mongodb://127.0.0.1:2")
	synctest.Test(t, func(t *testing.T) {
		p := newProgram(nil)
		release := make(chan struct{})
		p.app.env = func(string) (string, bool) { // a command that does not listen
			<-release
			return "", false
		}
		signals := make(chan os.Signal)
		ended := make(chan int)
		go func() { ended <- attend(signals, p.app, []string{"config", "check", "-config", path}) }()
		signals <- syscall.SIGINT
		<-time.After(time.Second)
		signals <- syscall.SIGINT
		if code := <-ended; code != exitAborted || !strings.Contains(p.stderr.String(), "aborted") {
			t.Errorf("exit code %d, want %d\n%s", code, exitAborted, p.stderr)
		}
		close(release)
	})
}
