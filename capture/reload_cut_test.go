package capture

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestReloadCutShort kills capture behind each of the commits that a reload takes:
// its acceptance, its beginning, its reads and its end. Every image is the state
// at its place, and each reload ends once.
func TestReloadCutShort(t *testing.T) {
	s := newScript()
	images := newScriptImages(t, s)
	cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), s)
	cfg.seams.images = images
	var client atomic.Pointer[kgo.Client]
	cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
	h := newHammer(rand.New(rand.NewPCG(1, 2)), s)
	rounds := 0
	images.between = func() {
		images.mu.Lock()
		defer images.mu.Unlock()
		if rounds++; rounds < 4000 {
			h.write()
		}
	}
	service := start(t, cfg)
	until(t, cfg, s.last())
	images.mu.Lock()
	for range 60 {
		h.write()
	}
	images.mu.Unlock()
	until(t, cfg, s.last())
	service.stop()
	a := newAsker(t, cfg)
	const cuts = 5
	for cut := range cuts {
		images.mu.Lock()
		r := h.request(t, state.RequestReload, cut)
		r.DB, r.Coll, r.UUID = "shop", "orders", h.uuids["orders"]
		images.mu.Unlock()
		a.ask(r)
		killBehind(t, cfg, &client, cut+1)
		service = start(t, cfg)
		satisfied(t, a)
		service.stop()
	}
	service = start(t, cfg)
	until(t, cfg, s.last())
	service.stop()
	records := committed(t, cfg)
	replica, seen := checkImages(t, records)
	images.now(func(m *model) { equalModels(t, replica, m, cfg.Select.Match) })
	ends := 0
	for _, e := range inOrder(t, records) {
		if e.Op == event.OpReloadEnd {
			ends++
		}
	}
	if ends != cuts || seen.reloads < cuts {
		t.Errorf("%d reloads ended, %d began, want %d", ends, seen.reloads, cuts)
	}
}

// killBehind runs capture until it has committed n times, and kills it there.
func killBehind(t *testing.T, cfg Config, client *atomic.Pointer[kgo.Client], n int) {
	t.Helper()
	reached, killed := make(chan struct{}), make(chan struct{})
	left := n
	cfg.seams.committed = func(event.Position) {
		if left--; left == 0 {
			close(reached)
			<-killed
		}
	}
	service := start(t, cfg)
	testenv.Receive(t, 2*time.Minute, "the commit", reached)
	service.cancel()
	client.Load().Close()
	close(killed)
	if err := service.wait(); err != nil {
		t.Fatal(err)
	}
}
