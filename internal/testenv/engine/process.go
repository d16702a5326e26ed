package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// ErrExited is in the chain of errors that say that a server has ended by
// itself.
var ErrExited = errors.New("process has exited")

// stopGrace is how long Stop waits for a process that was asked to end before
// it is killed.
const stopGrace = 30 * time.Second

// Command says what to run.
type Command struct {
	// Name is for messages.
	Name string
	// Path and Args are those of the program; Args is without its name.
	Path string
	Args []string
	// Env is added to this process's environment.
	Env []string
	// Log is the file that takes standard output and standard error; it is
	// appended to, and its directory is made.
	Log string
}

// Process is one running program.
type Process struct {
	name string
	log  string
	proc *os.Process
	done chan struct{}
	// err and code are set before done is closed.
	err  error
	code int
}

// Start runs the command. The process outlives no crash of this one on Linux:
// the kernel kills it when its parent ends.
func (c Command) Start() (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(c.Log), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: create log directory: %w", c.Name, err)
	}
	out, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open log: %w", c.Name, err)
	}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attributes()

	p := &Process{name: c.Name, log: c.Log, done: make(chan struct{})}
	started := make(chan error)
	go p.own(cmd, started)
	err = <-started
	// The child has its own descriptor.
	return p, errors.Join(err, out.Close())
}

// own starts cmd and waits for its end, on one thread that lives as long as the
// child: the kernel's parent-death signal is tied to the thread that forked.
func (p *Process) own(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		close(p.done)
		started <- fmt.Errorf("start %s: %w", p.name, err)
		return
	}
	p.proc = cmd.Process
	started <- nil
	p.err = cmd.Wait()
	p.code = cmd.ProcessState.ExitCode()
	close(p.done)
}

// PID is the process id.
func (p *Process) PID() int { return p.proc.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait returns the exit code of the ended process, -1 if a signal ended it, or
// the error of ctx.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for %s (pid %d): %w", p.name, p.PID(), context.Cause(ctx))
	}
}

// Signal sends s; an ended process is no error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.proc.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s (pid %d): %w", p.name, p.PID(), err)
	}
	return nil
}

// Kill ends the process as kill -9 does and returns when it is gone.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// Stop asks the process to end, waits, and kills it if it will not. A frozen
// process is thawed first. An exit code other than 0 is an error, since a
// server that cannot stop cleanly has a fault.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	if err := errors.Join(p.Signal(syscall.SIGTERM), p.Thaw()); err != nil {
		return err
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C:
		return errors.Join(fmt.Errorf("stop %s (pid %d): still running after %s", p.name, p.PID(), stopGrace), p.Kill())
	}
	if p.code > 0 && p.code != 128+int(syscall.SIGTERM) {
		return fmt.Errorf("stop %s: exit code %d\n%s", p.name, p.code, p.Tail(20))
	}
	return nil
}

// Freeze stops the process from running (SIGSTOP) until Thaw.
func (p *Process) Freeze() error { return p.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

// Output is everything that the process has printed.
func (p *Process) Output() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("(read output of %s: %v)", p.name, err)
	}
	return string(content)
}

// Tail is the last lines that the process has printed.
func (p *Process) Tail(lines int) string {
	out := bytes.TrimRight([]byte(p.Output()), "\n")
	from := len(out)
	for range lines {
		from = bytes.LastIndexByte(out[:from], '\n')
		if from < 0 {
			break
		}
	}
	return string(out[from+1:])
}

// await polls ready until it succeeds. It gives up when ctx ends or the process
// does, and then reports what ready last said and the end of the log.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("await %s: %w (code %d); last: %w\n%s", p.name, ErrExited, p.code, err, p.Tail(30))
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w; last: %w\n%s", p.name, context.Cause(ctx), err, p.Tail(30))
		}
	}
}
