package stack

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// NewSingle prepares a fleet of one member, "run", which is all services of the
// pipeline in one process; dir takes the configuration file and the log.
// Nothing is started.
func NewSingle(dir, binary string, p Pipeline) (*Fleet, error) {
	f := &Fleet{binary: binary, config: filepath.Join(dir, p.Name+".yml")}
	if err := p.Write(f.config); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	f.Members = []*Member{{Name: "run", Address: address, service: "run", command: engine.Command{
		Name: "run", Path: binary, Args: []string{"run", "-config", f.config, "-http", address},
		Log: filepath.Join(dir, p.Name+".log"),
	}}}
	return f, nil
}

// watchInterval is how often Guard looks at the members.
const watchInterval = 100 * time.Millisecond

// Guard calls do with a context that ends, with its cause, when a member has
// ended by itself other than by finishing its work. It returns do's error, or
// the member's end if that came first.
func (f *Fleet) Guard(ctx context.Context, do func(ctx context.Context) error) error {
	guarded, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-guarded.Done():
				return
			}
			if err := f.Check(); err != nil {
				cancel(err)
				return
			}
		}
	}()
	err := do(guarded)
	cause := context.Cause(guarded)
	cancel(nil)
	<-watched
	if err != nil && cause != nil && ctx.Err() == nil {
		return fmt.Errorf("service has ended: %w", cause)
	}
	return err
}
