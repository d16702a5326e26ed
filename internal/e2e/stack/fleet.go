package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"github.com/tributarydb/tributary/internal/verify"
)

// Fleet runs the services of a pipeline, each as a process of its own.
type Fleet struct {
	// Members are capture, snapshot and one apply for each destination, in
	// this order.
	Members []*Member

	binary string
	config string
}

// Member is one service.
type Member struct {
	// Name is "capture", "snapshot", "apply-<destination>" or what Add was given.
	Name string
	// Destination is apply's.
	Destination string
	// Address is where it serves its status.
	Address string
	// Starts counts how often it was started.
	Starts int

	// service is the subcommand that it runs.
	service string
	command engine.Command
	process *engine.Process
}

// NewFleet prepares the services of a pipeline; dir takes the configuration
// file and the logs. Nothing is started.
func NewFleet(dir, binary string, p Pipeline) (*Fleet, error) {
	f := &Fleet{binary: binary, config: filepath.Join(dir, "pipeline.yml")}
	if err := p.Write(f.config); err != nil {
		return nil, err
	}
	add := func(name, destination string, args ...string) error {
		_, err := f.Add(name, destination, args...)
		return err
	}
	errs := []error{add("capture", "", "capture"), add("snapshot", "", "snapshot")}
	for _, d := range p.Destinations {
		errs = append(errs, add("apply-"+d.Name, d.Name, "apply", "-destination", d.Name))
	}
	return f, errors.Join(errs...)
}

// Add prepares one more member, which is not started: tributary with args, one
// of its services. The name must be a new one.
func (f *Fleet) Add(name, destination string, args ...string) (*Member, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	m := &Member{
		Name: name, Destination: destination, Address: address, service: args[0],
		command: engine.Command{
			Name: name, Path: f.binary, Args: append(args, "-config", f.config, "-http", address, "-instance", name),
			Log: filepath.Join(filepath.Dir(f.config), name+".log"),
		},
	}
	f.Members = append(f.Members, m)
	return m, nil
}

// Config is the path of the configuration file.
func (f *Fleet) Config() string { return f.config }

// freeAddress is a port of loopback that is free now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find free port: %w", err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", fmt.Errorf("find free port: %w", err)
	}
	return address, nil
}

// Member returns the member of that name, nil if there is none.
func (f *Fleet) Member(name string) *Member {
	for _, m := range f.Members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Start starts every member.
func (f *Fleet) Start() error {
	for _, m := range f.Members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Check returns an error if a member has ended by itself other than by
// finishing its work.
func (f *Fleet) Check() error {
	for _, m := range f.Members {
		if m.process == nil || m.process.Running() {
			continue
		}
		code, err := m.process.Wait(context.Background())
		if err != nil {
			return err
		}
		if code != 0 || m.service != "snapshot" {
			return fmt.Errorf("%s has ended with exit code %d:\n%s", m.Name, code, m.process.Tail(15))
		}
	}
	return nil
}

// Kill ends every member that runs as kill -9 does.
func (f *Fleet) Kill() error {
	var errs []error
	for _, m := range slices.Backward(f.Members) {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

// Start starts the member, or starts it again.
func (m *Member) Start() error {
	p, err := m.command.Start()
	if err != nil {
		return err
	}
	m.process = p
	m.Starts++
	return nil
}

// Kill ends the member as kill -9 does; one that does not run is left alone.
func (m *Member) Kill() error {
	p := m.process
	m.process = nil
	if p == nil || !p.Running() {
		return nil
	}
	return p.Kill()
}

// Stop asks the member to end in order and waits for it.
func (m *Member) Stop() error {
	p := m.process
	m.process = nil
	if p == nil {
		return nil
	}
	return p.Stop()
}

// Freeze stops the member from running until Thaw.
func (m *Member) Freeze() error { return m.process.Freeze() }

// Thaw lets a frozen member go on.
func (m *Member) Thaw() error { return m.process.Thaw() }

// Running reports whether the member runs.
func (m *Member) Running() bool { return m.process != nil && m.process.Running() }

// PID is the process id of a running member.
func (m *Member) PID() int { return m.process.PID() }

// Log is the path of the file with the member's output.
func (m *Member) Log() string { return m.command.Log }

// Tail returns the last lines that the member has printed.
func (m *Member) Tail(lines int) string {
	if m.process == nil {
		return ""
	}
	return m.process.Tail(lines)
}

// statusTimeout bounds a request for a status.
const statusTimeout = 2 * time.Second

// Status asks the member how it is.
func (m *Member) Status(ctx context.Context) (status state.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Address+"/status", nil)
	if err != nil {
		return state.Status{}, fmt.Errorf("ask %s for its status: %w", m.Name, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return state.Status{}, fmt.Errorf("ask %s for its status: %w", m.Name, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return state.Status{}, fmt.Errorf("ask %s for its status: %w", m.Name, err)
	}
	var services []state.Status
	if err := json.Unmarshal(body, &services); err != nil {
		return state.Status{}, fmt.Errorf("read status of %s: %w", m.Name, err)
	}
	if len(services) != 1 {
		return state.Status{}, fmt.Errorf("read status of %s: it runs %d services, want 1", m.Name, len(services))
	}
	return services[0], nil
}

// Verify runs `tributary verify` for a destination and returns what it found.
func (f *Fleet) Verify(ctx context.Context, destination string) (*verify.Result, error) {
	cmd := exec.CommandContext(ctx, f.binary, "verify", "-config", f.config, "-destination", destination, "-json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, fmt.Errorf("run verify: %w", err)
	}
	var r verify.Result
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("read result of verify for %s (exit code %d): %w\n%s", destination, cmd.ProcessState.ExitCode(), err, stderr.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != r.Verdict.ExitCode() {
		return nil, fmt.Errorf("verify for %s ended with exit code %d, its verdict is %s", destination, code, r.Verdict)
	}
	return &r, nil
}
