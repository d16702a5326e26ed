package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// Binary is the tributary program, built from this tree.
type Binary struct{ path string }

// Tributary builds the program, once for all test processes.
func Tributary(t testing.TB) Binary {
	t.Helper()
	ctx, cancel := starting()
	defer cancel()
	path, err := engine.Build(ctx, "tributary", ".", "./cmd/tributary")
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return Binary{path: path}
}

// Child is a running tributary. It is killed when the test ends.
type Child struct{ *engine.Process }

// Start runs the program with env added to the environment, in the form
// NAME=value.
func (b Binary) Start(t testing.TB, env []string, args ...string) *Child {
	t.Helper()
	e := environmentOf(t)
	log := filepath.Join(e.newDir(t, "tributary"), "output.log")
	p, err := engine.Command{Name: "tributary", Path: b.path, Args: args, Env: env, Log: log}.Start()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Errorf("testenv: %v", err)
		}
		if t.Failed() {
			t.Logf("output of tributary %v:\n%s", args, p.Tail(60))
		}
	})
	return &Child{Process: p}
}

// StartSelf runs this test binary as a process of its own, with env, in the form
// NAME=value, added to the environment. It is killed when the test ends.
func StartSelf(t testing.TB, name, env string) *engine.Process {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	p, err := engine.Command{
		Name: name, Path: path, Env: []string{env}, Log: filepath.Join(t.TempDir(), "output.log"),
	}.Start()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Errorf("testenv: %v", err)
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, p.Tail(40))
		}
	})
	return p
}

// Run runs the program to its end and returns its exit code and output.
func (b Binary) Run(t testing.TB, timeout time.Duration, env []string, args ...string) (int, string) {
	t.Helper()
	c := b.Start(t, env, args...)
	code := c.Exit(t, timeout)
	return code, c.Output()
}

// Exit waits for the program's end and returns its exit code.
func (c *Child) Exit(t testing.TB, timeout time.Duration) int {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, fmt.Errorf("still running after %s", timeout))
	defer cancel()
	code, err := c.Wait(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Tail(60))
	}
	return code
}
