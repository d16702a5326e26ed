package apply

import "context"

// step is a point in the life of a barrier.
type step int

const (
	// stepMet: a worker has met the DDL event and committed its offset at it.
	stepMet step = iota
	// stepArrived: its arrival is recorded.
	stepArrived
	// stepClaimed: all have arrived, and this member executes.
	stepClaimed
	// stepHeld: the claim was looked at once more, the command goes out next.
	stepHeld
	// stepExecuted: the DDL was executed, and nobody knows yet.
	stepExecuted
	// stepDone: everybody may pass.
	stepDone
)

// reach tells the seam about a step.
func (s *Service) reach(ctx context.Context, at step) {
	if s.seam != nil {
		s.seam(ctx, at)
	}
}
