package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// leaseTime is how long a claim of the group's next step or of a barrier
	// lasts by the destination's clock. It is longer than commandTime, so that
	// a command whose answer was lost is over, one way or the other, before
	// anyone may claim again.
	// A member that was killed in the middle of a step costs the others no more
	// than that.
	leaseTime   = 20 * time.Second
	commandTime = 8 * time.Second
	// renewTime is how often a claim is renewed during work that may take
	// longer than leaseTime (index builds, the preparation of a load).
	renewTime = 4 * time.Second
)

// errLate is returned when a claim took so long that it may not outlast a
// command: this process may have been frozen meanwhile.
var errLate = errors.New("the claim took too long to be of use")

// inTime checks a claim of leaseTime that was begun then.
func inTime(began time.Time) error {
	const margin = 2 * time.Second
	if time.Since(began) > leaseTime-commandTime-margin {
		return errLate
	}
	return nil
}

// errClaimLost is returned, wrapped, when another member took a step over.
var errClaimLost = errors.New("another member has taken the step over")

// keep runs work while renewing a claim. When the claim cannot be renewed, the
// context of work ends with errClaimLost as its cause.
func keep(ctx context.Context, renew func(context.Context) (bool, error), work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		return work(ctx)
	})
	g.Go(func() error {
		held := time.Now()
		tick := time.NewTicker(renewTime)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return nil
			case <-tick.C:
			}
			ok, err := renew(ctx)
			switch {
			case err == nil && ok:
				held = time.Now()
			case err == nil, time.Since(held) > leaseTime-renewTime:
				cancel(errClaimLost)
				return nil
			}
		}
	})
	err := g.Wait()
	if errors.Is(context.Cause(ctx), errClaimLost) {
		return fmt.Errorf("renew claim: %w", errClaimLost)
	}
	return err
}
