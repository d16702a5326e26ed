package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// childVariable makes the test's own program run as the embedded program.
const childVariable = "TRIBUTARY_EMBEDDED_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// stand is a running embedded process.
type stand struct {
	announcement
	cmd *exec.Cmd
}

// start runs the program and waits until it has announced itself. The test's end
// kills it.
func start(t *testing.T, args ...string) *stand {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"serve"}, args...)...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &stand{cmd: cmd}
	t.Cleanup(s.kill)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("read announcement: %v", err)
	}
	if err := json.Unmarshal(line, &s.announcement); err != nil {
		t.Fatalf("decode announcement %s: %v", line, err)
	}
	return s
}

// kill ends the process as kill -9 does; a second time does nothing.
func (s *stand) kill() {
	// An error says that it has ended already.
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// connect returns a client of one of the servers.
func (s *stand) connect(t *testing.T, name string) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(s.MongoDB[name]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client
}

// source starts one server with an oplog.
func source(t *testing.T) *mongo.Client {
	t.Helper()
	return start(t, "--dir", t.TempDir(), "--mongo", "source=127.0.0.1:0").connect(t, "source")
}

func TestStopsCleanly(t *testing.T) {
	s := start(t, "--dir", t.TempDir(), "--kafka", "127.0.0.1:0", "--mongo", "a=127.0.0.1:0")
	s.connect(t, "a")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("end after SIGTERM: %v", err)
	}
}

func TestRefusesADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	start(t, "--dir", dir, "--kafka", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := run(ctx, []string{"serve", "--dir", dir, "--kafka", "127.0.0.1:0"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is another process using it") {
		t.Errorf("second process on one directory: %v, want a refusal", err)
	}
}

func TestReportsAPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, flag := range []string{"--kafka=", "--mongo=a="} {
		err := run(t.Context(), []string{"serve", "--dir", t.TempDir(), flag + l.Addr().String()}, io.Discard, io.Discard)
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s on a port in use: %v, want EADDRINUSE", flag, err)
		}
	}
}

func TestParseReportsEveryFault(t *testing.T) {
	tests := map[string]struct {
		args []string
		want []string
	}{
		"nothing":   {nil, []string{"--dir is required", "nothing to run"}},
		"names":     {[]string{"--dir=d", "--mongo=a=:0", "--mongo=a=:0", "--mongo=b/c=:0"}, []string{"given twice", "want letters"}},
		"oplog":     {[]string{"--dir=d", "--mongo=a=:0", "--oplog=b", "--oplog-mb=0"}, []string{"no --mongo declares", "at least 1"}},
		"arguments": {[]string{"--dir=d", "--kafka=:0", "more"}, []string{`unexpected argument "more"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, io.Discard)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v lacks %q", err, want)
				}
			}
		})
	}
}
