package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// startTimeout bounds the start of one server, and the build of one program.
const startTimeout = 3 * time.Minute

// shared is what the tests of this process have in common. It is made by Main
// and nowhere else.
//
//nolint:gochecknoglobals // A test process has one set of servers, and testing hands nothing from TestMain to tests.
var shared *environment

// environment is the servers of one test process.
type environment struct {
	dir string

	mu     sync.Mutex
	broker *engine.Broker
	// idle holds deployments that wait for their next test, by configuration.
	idle map[string][]*deployment
	// said holds the missing engines that were reported.
	said map[string]bool
	// serial numbers names and directories.
	serial int
}

// Main runs the tests of a package, then stops the servers that they shared and
// looks for leaked goroutines. It does not return.
func Main(m *testing.M, opts ...goleak.Option) {
	goleak.VerifyTestMain(&run{m: m}, opts...)
}

// run wraps testing.M so that servers stop before goroutines are counted.
type run struct{ m *testing.M }

// Run implements goleak.TestingM.
func (r *run) Run() int {
	dir, err := os.MkdirTemp("", "tributary-testenv-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv: create directory:", err)
		return 1
	}
	shared = &environment{dir: dir, idle: map[string][]*deployment{}, said: map[string]bool{}}
	code := r.m.Run()
	err = shared.stop()
	if os.Getenv("TRIBUTARY_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "testenv: data and logs are kept in", dir)
	} else {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv: stop servers:", err)
		return max(code, 1)
	}
	return code
}

// stop ends the servers that outlive single tests.
func (e *environment) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, deployments := range e.idle {
		for _, d := range deployments {
			errs = append(errs, d.stop())
		}
	}
	if e.broker != nil {
		// Its data is thrown away: no reason to wait for an orderly end.
		errs = append(errs, e.broker.Kill())
	}
	return errors.Join(errs...)
}

// environmentOf returns the environment, which Main must have made.
func environmentOf(t testing.TB) *environment {
	t.Helper()
	if shared == nil {
		t.Fatal("testenv: the package needs: func TestMain(m *testing.M) { testenv.Main(m) }")
	}
	return shared
}

// next returns a number that no earlier call of this process returned.
func (e *environment) next() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serial++
	return e.serial
}

// newDir makes a directory for a server. It is not t.TempDir, which would fail
// the test if the server still wrote when it is removed.
func (e *environment) newDir(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(e.dir, fmt.Sprintf("%s-%d", name, e.next()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("testenv: create directory: %v", err)
	}
	return dir
}

// starting is the context for the start of a server. It is not the test's own,
// which ends before cleanups run.
func starting() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), startTimeout, errors.New("server takes too long to start"))
}
