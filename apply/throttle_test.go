package apply

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributarydb/tributary/internal/throttle"
)

// What was committed is paid for before the next batch; a partition that is
// given up, or the end, does not wait.
func TestPace(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(stop chan struct{}, cancel func())
		want time.Duration
	}{
		{"until it is due", func(chan struct{}, func()) {}, 10 * time.Second},
		{"until the partition goes", func(stop chan struct{}, _ func()) { close(stop) }, 3 * time.Second},
		{"until the end", func(_ chan struct{}, cancel func()) { cancel() }, 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop := make(chan struct{})
				time.AfterFunc(3*time.Second, func() { test.end(stop, cancel) })
				w := &worker{stop: stop}
				begin := time.Now()
				w.pace(ctx, throttle.New(throttle.Limits{Documents: 100}), 1020, 0)
				w.pace(ctx, nil, 1<<40, 1<<40)
				if got := time.Since(begin).Round(time.Millisecond); got != test.want {
					t.Errorf("waited %s, want %s", got, test.want)
				}
			})
		})
	}
}
