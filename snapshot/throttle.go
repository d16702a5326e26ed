package snapshot

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// due waits until a packed batch may be counted as read; the source is told
// meanwhile that its cursor is still wanted.
func (r *reader) due(ctx context.Context, docs documents) error {
	if r.throttle.Limits().Unlimited() {
		return nil
	}
	passed := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(passed)
		return r.throttle.Wait(ctx, int64(r.pack.count), int64(len(r.pack.buf)))
	})
	g.Go(func() error {
		tick := time.NewTicker(keepAliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-passed:
				return nil
			case <-tick.C:
				if err := docs.KeepAlive(ctx); err != nil {
					r.log.Warn().Err(err).Msg("source cursor may end while a limit holds its documents back")
				}
			}
		}
	})
	return g.Wait()
}
