package snapshot

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/throttle"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// alivePass counts how often its cursor was kept.
type alivePass struct {
	scriptPass
	kept atomic.Int32
}

func (p *alivePass) KeepAlive(context.Context) error {
	p.kept.Add(1)
	return nil
}

// A batch that a limit holds back for longer than cursors live keeps its own.
func TestReadsWaitForTheirLimit(t *testing.T) {
	doc, err := bson.Marshal(bson.D{{Key: "_id", Value: int32(1)}})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Limits{Bytes: 1})
		r := reader{throttle: l, pack: newPacker(500), log: zerolog.Nop()}
		for range 1000 / len(doc) {
			r.pack.add(doc)
		}
		docs := &alivePass{}
		begin := time.Now()
		if err := r.due(t.Context(), docs); err != nil {
			t.Fatal(err)
		}
		due := time.Duration(len(r.pack.buf)-1) * time.Second
		if took := time.Since(begin).Round(time.Millisecond); took != due {
			t.Errorf("waited %s, want %s", took, due)
		}
		if got, want := docs.kept.Load(), int32(due/keepAliveEvery); got != want {
			t.Errorf("the cursor was kept %d times, want %d", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := r.due(ctx, docs); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		l.Set(throttle.Limits{})
		begin = time.Now()
		if err := r.due(t.Context(), docs); err != nil || time.Since(begin) != 0 {
			t.Errorf("without a limit: waited %s, error %v", time.Since(begin), err)
		}
	})
}
