package apply

import (
	"context"

	"github.com/tributarydb/tributary/internal/throttle"
)

// pace waits until what was just committed is within the limits. Nothing is in
// hand meanwhile: the partition can be given up at any moment, which ends the
// wait, as the end of ctx does; whoever goes on looks at both.
func (w *worker) pace(ctx context.Context, l *throttle.Limiter, documents, bytes int64) {
	if l.Limits().Unlimited() {
		return
	}
	l.WaitOr(ctx, w.stop, documents, bytes)
}

// sizeOf sums up the records of changes.
func sizeOf(changes []change) int64 {
	var size int64
	for i := range changes {
		size += recordBytes(changes[i].record)
	}
	return size
}
