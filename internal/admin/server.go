package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/state"
	"golang.org/x/sync/errgroup"
)

// The server's bounds.
const (
	requestTimeout  = 10 * time.Second
	shutdownTimeout = 3 * time.Second
	maxHeaderBytes  = 16 << 10
)

// Config configures a Server.
type Config struct {
	// Address is host:port; port 0 takes a free one. Empty means no server:
	// Run then only waits for the end of its context.
	Address string
	// Gatherer is where metrics come from.
	Gatherer prometheus.Gatherer
	// Statuses returns the present status of every service in the process. It
	// must not block and is called from many goroutines.
	Statuses func() []state.Status
	Log      zerolog.Logger
}

// Server answers operators.
type Server struct {
	cfg      Config
	listener net.Listener
}

// Listen takes the address, so that a port in use is an error at once. The
// caller calls Run, which gives it back, or Close.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Address == "" {
		return &Server{cfg: cfg}, nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w: hint: give this process another address with -http HOST:PORT or http.address (off for none)", err)
	}
	return &Server{cfg: cfg, listener: listener}, nil
}

// Address is where the server listens, with the port it took; empty for none.
func (s *Server) Address() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Close gives the address back if Run was not called.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Run serves until ctx ends, then lets requests under way finish, 3 s at most.
// It returns nil after a stop, an error when serving fails.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      2 * requestTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	s.cfg.Log.Info().Str(logfield.Address, s.Address()).Msg("serving metrics and status")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			return errors.Join(fmt.Errorf("stop HTTP: %w", err), server.Close())
		}
		return nil
	})
	return g.Wait()
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{Timeout: requestTimeout}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		waiting := notReady(s.cfg.Statuses())
		if len(waiting) > 0 {
			s.write(w, http.StatusServiceUnavailable, waiting)
			return
		}
		s.write(w, http.StatusOK, waiting)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, http.StatusOK, s.cfg.Statuses())
	})
	return mux
}

// write answers with JSON. A client that is gone is its own affair.
func (s *Server) write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		s.cfg.Log.Debug().Err(err).Msg("answer was not sent")
	}
}

// notReady returns the statuses of services that do not do their work: a
// process without any is not ready either.
func notReady(statuses []state.Status) []state.Status {
	waiting := []state.Status{}
	for _, status := range statuses {
		switch status.State {
		case state.StateRunning, state.StateCatchingUp, state.StateReplaying, state.StatePaused, state.StateFinished:
		default:
			waiting = append(waiting, status)
		}
	}
	if len(statuses) == 0 {
		waiting = append(waiting, state.Status{State: state.StateStarting})
	}
	return waiting
}
