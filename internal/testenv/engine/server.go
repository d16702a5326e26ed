package engine

import (
	"context"
	"errors"
)

// startTries is how often a server is started anew on other ports when it ends
// at once, as it does when somebody took a port in between.
const startTries = 3

// Server is a program that is ready when a check succeeds, and that can be
// started again on the same ports and data.
type Server struct {
	*Process
	command Command
	ready   func(context.Context) error
}

// launch starts the program and waits until ready succeeds.
func launch(ctx context.Context, command Command, ready func(context.Context) error) (*Server, error) {
	s := &Server{command: command, ready: ready}
	return s, s.start(ctx)
}

// start runs the program and waits until it is ready; one that does not get
// there is killed.
func (s *Server) start(ctx context.Context) error {
	p, err := s.command.Start()
	if err != nil {
		return err
	}
	s.Process = p
	if err := p.await(ctx, s.ready); err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

// Restart starts a server that was stopped or killed again, with its ports and
// data; one that still runs is stopped first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	// Its port may be another connection's for a moment.
	var err error
	for range startTries {
		if err = s.start(ctx); err == nil || !errors.Is(err, ErrExited) {
			return err
		}
	}
	return err
}

// onFreePorts calls start with n free ports, again with others while the
// program ends at once.
func onFreePorts(n int, start func(ports []int) error) error {
	var err error
	for range startTries {
		var ports []int
		if ports, err = freePorts(n); err != nil {
			return err
		}
		if err = start(ports); err == nil || !errors.Is(err, ErrExited) {
			return err
		}
	}
	return err
}
