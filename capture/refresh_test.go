package capture

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// satisfied waits until every request that was asked for is over, and returns
// what the state topic says then.
func satisfied(t testing.TB, a *asker) *state.View {
	t.Helper()
	var view *state.View
	testenv.Eventually(t, 60*time.Second, func() error {
		var err error
		if view, err = state.Load(t.Context(), a.cfg.Kafka, route.TopicsOf(a.cfg.Pipeline).State); err != nil {
			return err
		}
		if view.ControlOffset() <= a.last {
			return fmt.Errorf("control offset is %d, a request is at %d", view.ControlOffset(), a.last)
		}
		if n := len(view.Requests()); n > 0 {
			return fmt.Errorf("%d requests are pending, one is %s", n, view.Requests()[0].ID)
		}
		return nil
	})
	return view
}

// hammer is a script's workload on few documents of a few collections.
type hammer struct {
	r     *rand.Rand
	s     *script
	uuids map[string]event.UUID
	made  byte
	n     int32
	// ddl allows drops, renames and conversions.
	ddl bool
}

func newHammer(r *rand.Rand, s *script) *hammer {
	h := &hammer{r: r, s: s, uuids: map[string]event.UUID{}}
	h.create("orders")
	h.create("items")
	return h
}

func (h *hammer) create(coll string) {
	h.made++
	h.uuids[coll] = event.UUID{h.made, 1}
	h.s.create(coll, h.uuids[coll])
}

func (h *hammer) entry(op, coll string, fields ...bson.E) {
	u := h.uuids[coll]
	h.s.append(append(bson.D{
		{Key: "op", Value: op}, {Key: "ns", Value: "shop." + coll}, {Key: "ui", Value: bson.Binary{Subtype: 4, Data: u[:]}},
	}, fields...))
}

func (h *hammer) command(uuid event.UUID, o bson.D) {
	h.s.append(bson.D{
		{Key: "op", Value: "c"}, {Key: "ns", Value: "shop.$cmd"}, {Key: "ui", Value: bson.Binary{Subtype: 4, Data: uuid[:]}}, {Key: "o", Value: o},
	})
}

// write appends one random entry.
func (h *hammer) write() {
	coll := []string{"orders", "items"}[h.r.IntN(2)]
	id, k := h.r.IntN(12), h.r.IntN(600)
	h.n++
	if h.r.IntN(2) == 0 {
		coll, id = "orders", 0 // never left alone for long
	}
	switch {
	case k < 2 && h.ddl:
		h.command(h.uuids[coll], bson.D{{Key: "drop", Value: coll}})
		h.create(coll)
	case k < 4 && h.ddl: // exchange names
		a, b := h.uuids["orders"], h.uuids["items"]
		for _, n := range []struct {
			uuid     event.UUID
			from, to string
		}{{a, "orders", "between"}, {b, "items", "orders"}, {a, "between", "items"}} {
			h.command(n.uuid, bson.D{{Key: "renameCollection", Value: "shop." + n.from}, {Key: "to", Value: "shop." + n.to}})
		}
		h.uuids["orders"], h.uuids["items"] = b, a
	case k < 90:
		h.entry("d", coll, bson.E{Key: "o", Value: bson.D{{Key: "_id", Value: id}}})
	case k < 270:
		h.entry("u", coll,
			bson.E{Key: "o", Value: bson.D{{Key: "$v", Value: int32(2)}, {Key: "diff", Value: bson.D{{Key: "u", Value: bson.D{{Key: "n", Value: h.n}}}}}}},
			bson.E{Key: "o2", Value: bson.D{{Key: "_id", Value: id}}})
	default:
		h.entry("i", coll, bson.E{Key: "o", Value: bson.D{{Key: "_id", Value: id}, {Key: "n", Value: h.n}}})
	}
}

// request asks for random documents of a collection.
func (h *hammer) request(t testing.TB, kind string, i int) state.Request {
	coll := []string{"orders", "items"}[h.r.IntN(2)]
	r := state.Request{Kind: kind, ID: fmt.Sprintf("%s-%d", kind, i), DB: "shop", Coll: coll, UUID: h.uuids[coll], Asked: time.Now().UTC()}
	if kind == state.RequestRefresh {
		for range 1 + h.r.IntN(4) {
			r.IDs = append(r.IDs, idDocuments(t, h.r.IntN(14))...)
		}
	}
	return r
}

// scripted is a capture of a script whose documents are asked for, killed now
// and then.
func scripted(t *testing.T, broker testenv.Broker, seeded *rand.Rand, change func(*hammer, *scriptImages)) (Config, *asker, *scriptImages) {
	s := newScript()
	images := newScriptImages(t, s)
	cfg := testConfig(t, broker, testenv.NewPipeline(t), s)
	cfg.seams.images = images
	var client atomic.Pointer[kgo.Client]
	cfg.seams.producer = func(c *kgo.Client) { client.Store(c) }
	h := newHammer(seeded, s)
	change(h, images)
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
	a := newAsker(t, cfg)
	for i := range 25 {
		images.mu.Lock() // the reader writes too
		for range seeded.IntN(30) {
			h.write()
		}
		kind := state.RequestRefresh
		if seeded.IntN(8) == 0 {
			kind = state.RequestReload
		}
		r, kill := h.request(t, kind, i), seeded.IntN(10) == 0
		images.mu.Unlock()
		a.ask(r)
		if kill {
			client.Load().Close() // as a killed process
			service.cancel()
			if err := service.wait(); err != nil {
				t.Fatal(err)
			}
			service = start(t, cfg)
			testenv.Eventually(t, 20*time.Second, func() error {
				if client.Load() == nil {
					return errors.New("no producer yet")
				}
				return nil
			})
		}
	}
	satisfied(t, a)
	until(t, cfg, s.last())
	service.stop()
	return cfg, a, images
}

// TestImagesAreExact has documents asked for that are written all the time, from
// captures that are killed: each image is the state at its place.
func TestImagesAreExact(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, broker testenv.Broker) {
		exact(t, broker, func(*hammer, *scriptImages) {})
	})
}

// TestImagesAreExactBesideDDL drops the collections and exchanges their names
// meanwhile.
func TestImagesAreExactBesideDDL(t *testing.T) {
	for name, change := range map[string]func(*scriptImages){
		"ranges":        func(*scriptImages) {},
		"natural order": func(i *scriptImages) { i.natural = true },
		"past":          func(i *scriptImages) { i.past = true },
	} {
		t.Run(name, func(t *testing.T) {
			exact(t, testenv.StandIn(t), func(h *hammer, i *scriptImages) {
				h.ddl = true
				change(i)
			})
		})
	}
}

// TestImagesOfThePast: where the source can tell the state at a time, documents
// that are never left alone need no image of a later one.
func TestImagesOfThePast(t *testing.T) {
	told := 0
	for range 5 { // until some were never left alone
		seen, images := exact(t, testenv.StandIn(t), func(_ *hammer, i *scriptImages) { i.past = true })
		if seen.later > 0 {
			t.Fatalf("%d images of a later state, want none", seen.later)
		}
		if told += images.told; told > 0 {
			return
		}
	}
	t.Error("the past was never read")
}

func exact(t *testing.T, broker testenv.Broker, change func(*hammer, *scriptImages)) (exactness, *scriptImages) {
	cfg, _, images := scripted(t, broker, newRand(t), change)
	replica, seen := checkImages(t, committed(t, cfg))
	images.now(func(m *model) { equalModels(t, replica, m, cfg.Select.Match) })
	t.Logf("%+v", seen)
	if seen.images == 0 {
		t.Error("no image was published")
	}
	return seen, images
}
