package throttle_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributarydb/tributary/internal/throttle"
)

// ask is one call of Wait.
type ask struct{ documents, bytes int64 }

func TestWorkPassesAtItsLimit(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits throttle.Limits
		asks   ask
		times  int
		want   time.Duration
	}{
		{"unlimited", throttle.Limits{}, ask{1 << 40, 1 << 50}, 100, 0},
		{"documents", throttle.Limits{Documents: 100}, ask{10, 1 << 30}, 102, 10 * time.Second},
		{"bytes", throttle.Limits{Bytes: 1 << 20}, ask{1, 1 << 18}, 40, 9800 * time.Millisecond},
		{"the tighter one", throttle.Limits{Documents: 1000, Bytes: 1000}, ask{1, 100}, 102, 10 * time.Second},
		{"one larger than a second's budget", throttle.Limits{Bytes: 10}, ask{1, 102}, 1, 10 * time.Second},
		{"many larger than a second's budget", throttle.Limits{Documents: 10}, ask{51, 0}, 2, 10 * time.Second},
		{"one a second", throttle.Limits{Documents: 1}, ask{1, 0}, 11, 10 * time.Second},
		{"another unit", throttle.Limits{Queries: 1}, ask{1000, 1000}, 10, 0},
		{"negative is unlimited", throttle.Limits{Documents: -1, Bytes: -5}, ask{1000, 1000}, 10, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(test.limits)
				begin := time.Now()
				for range test.times {
					if err := l.Wait(t.Context(), test.asks.documents, test.asks.bytes); err != nil {
						t.Fatal(err)
					}
				}
				near(t, time.Since(begin), test.want)
			})
		})
	}
}

// near allows for the microsecond by which timers are rounded up.
func near(t *testing.T, got, want time.Duration) {
	t.Helper()
	if got < want-time.Millisecond || got > want+10*time.Millisecond {
		t.Errorf("took %s, want %s", got, want)
	}
}

func TestQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Limits{Queries: 5})
		begin := time.Now()
		for range 51 {
			if err := l.WaitQuery(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		near(t, time.Since(begin), 10*time.Second)
	})
}

func TestNobodyWaitsForANilLimiter(t *testing.T) {
	var l *throttle.Limiter
	l.Set(throttle.Limits{Documents: 1})
	l.Share(2)
	if err := errors.Join(l.Wait(t.Context(), 100, 100), l.WaitQuery(t.Context())); err != nil {
		t.Error(err)
	}
	if got := l.Limits(); !got.Unlimited() {
		t.Errorf("limits %+v", got)
	}
}

func TestAPauseIsNotFollowedByABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Limits{Documents: 100})
		<-time.After(time.Hour)
		begin := time.Now()
		for range 1020 {
			if err := l.Wait(t.Context(), 1, 0); err != nil {
				t.Fatal(err)
			}
		}
		near(t, time.Since(begin), 10*time.Second)
	})
}

// A change is felt by who waits already: a minute's work goes on at the new
// pace from where it was.
func TestWaitersFeelAChange(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(*throttle.Limiter)
		want time.Duration
	}{
		{"faster", func(l *throttle.Limiter) { l.Set(throttle.Limits{Documents: 50}) }, 30*time.Second + 6*time.Second},
		{"slower", func(l *throttle.Limiter) { l.Set(throttle.Limits{Documents: 5}) }, 30*time.Second + 60*time.Second},
		{"off", func(l *throttle.Limiter) { l.Set(throttle.Limits{}) }, 30 * time.Second},
		{"shared", func(l *throttle.Limiter) { l.Share(2) }, 30*time.Second + 60*time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.New(throttle.Limits{Documents: 10})
				time.AfterFunc(30*time.Second, func() { test.then(l) })
				begin := time.Now()
				if err := l.Wait(t.Context(), 602, 0); err != nil {
					t.Fatal(err)
				}
				near(t, time.Since(begin), test.want)
			})
		})
	}
}

func TestALimitSetOnAnUnlimitedOneHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Limits{})
		<-time.After(time.Minute)
		l.Set(throttle.Limits{Bytes: 10})
		if got := l.Limits(); got.Bytes != 10 {
			t.Errorf("limits %+v", got)
		}
		begin := time.Now()
		for range 5 {
			if err := l.Wait(t.Context(), 1, 20); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(begin); got < 9*time.Second || got > 10*time.Second {
			t.Errorf("100 bytes at 10/s took %s", got)
		}
	})
}

// Who gives up takes nothing, and those behind it go on.
func TestEndOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.New(throttle.Limits{Documents: 10})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var g sync.WaitGroup
		g.Go(func() {
			if err := l.Wait(ctx, 1000, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		queued, give := context.WithCancel(t.Context())
		g.Go(func() {
			if err := l.Wait(queued, 1, 0); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		give()
		begin := time.Now()
		if err := l.Wait(t.Context(), 52, 0); err != nil {
			t.Fatal(err)
		}
		// The second that the first one waited has left what is kept for nobody.
		near(t, time.Since(begin), 6*time.Second)
		g.Wait()
	})
}

// Whatever is asked for by how many, no second gives more than its budget and
// what was kept, and nothing is left unused while somebody waits.
func TestManyAtOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const limit, each, workers = 1000, 50, 8
		l := throttle.New(throttle.Limits{Documents: limit})
		var (
			g     sync.WaitGroup
			mu    sync.Mutex
			total int64
			last  time.Duration
		)
		begin := time.Now()
		for w := range workers {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			g.Go(func() {
				for range each {
					n := 1 + r.Int64N(300)
					if err := l.Wait(t.Context(), n, 0); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					total += n
					last = time.Since(begin)
					if most := limit*last.Seconds() + 0.2*limit + 1; float64(total) > most {
						t.Errorf("%d documents after %s, more than %.0f", total, last, most)
					}
					mu.Unlock()
				}
			})
		}
		g.Wait()
		near(t, last, time.Duration(float64(total-limit/5)/limit*float64(time.Second)))
	})
}
