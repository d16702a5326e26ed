package capture

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestBadRequestsBlockNothing: what cannot be served is answered, what is asked
// twice is served once, and what comes after is served.
func TestBadRequestsBlockNothing(t *testing.T) {
	s := newScript()
	images := newScriptImages(t, s)
	cfg := testConfig(t, testenv.StandIn(t), "requests", s)
	cfg.seams.images = images
	uuid, hidden := event.UUID{7}, event.UUID{8}
	service := start(t, cfg)
	until(t, cfg, s.last())
	s.create("orders", uuid)
	s.insertUUID("orders", 1, uuid)
	s.create("unselected", hidden)

	a := newAsker(t, cfg)
	images.mu.Lock()
	images.failures = []error{errNetwork, errNetwork}
	images.mu.Unlock()
	control := route.TopicsOf(cfg.Pipeline).Control
	a.raw(control, "{")
	a.raw(control, `{"kind":"pause"}`)
	a.raw(control, `{"kind":"refresh","id":"malformed","db":"shop","coll":"orders","ids":["AAAA"]}`)
	refresh := func(id, coll string, u event.UUID) state.Request {
		return state.Request{Kind: state.RequestRefresh, ID: id, DB: "shop", Coll: coll, UUID: u, IDs: idDocuments(t, 1, 2)}
	}
	a.ask(refresh("never existed", "orders", event.UUID{99}))
	a.ask(refresh("hidden", "unselected", hidden))
	a.ask(refresh("good", "orders", uuid))
	a.ask(refresh("good", "orders", uuid))
	a.ask(refresh("by name", "orders", event.UUID{}))
	view := satisfied(t, a)
	service.stop()

	answers := map[string]string{}
	for _, answer := range view.Answers() {
		answers[answer.ID] = answer.Cause
	}
	for id, cause := range map[string]string{"malformed": "document 0", "never existed": "does not exist", "hidden": "does not select"} {
		if !strings.Contains(answers[id], cause) {
			t.Errorf("request %q was answered %q, want %q", id, answers[id], cause)
		}
	}
	if len(answers) != 3 {
		t.Errorf("answers %v", answers)
	}
	_, seen := checkImages(t, committed(t, cfg))
	if seen.images < 4 || seen.images > 6 || 2*seen.missing != seen.images {
		t.Errorf("%+v, want two or three times a document and a missing one", seen)
	}
}

// TestRequestsAreBounded: no more are taken over than may be pending.
func TestRequestsAreBounded(t *testing.T) {
	r := newRequests("p.state", state.NewView(), zerolog.Nop())
	id := idDocuments(t, strings.Repeat("x", 1<<19))
	for i := 0; !r.full(); i++ {
		if i > 40 {
			t.Fatal("no end of it")
		}
		record, err := state.RequestRecord("p", &state.Request{Kind: state.RequestRefresh, ID: fmt.Sprint(i), DB: "a", Coll: "b", IDs: id})
		if err != nil {
			t.Fatal(err)
		}
		r.take(command{offset: int64(i), value: record.Value})
	}
	n := len(r.byID)
	r.remove(r.queue[0])
	if r.full() || len(r.byID) != n-1 {
		t.Error("room was not made")
	}
}

// TestAnswersAreBounded: the oldest refusals are removed.
func TestAnswersAreBounded(t *testing.T) {
	r := newRequests("p.state", state.NewView(), zerolog.Nop())
	for i := range keptAnswers + 3 {
		r.refuse(&state.PendingRequest{Request: state.Request{ID: fmt.Sprint(i)}}, "no")
	}
	removed := 0
	for key, v := range r.changed {
		if state.IsAnswer(key) && v == nil {
			removed++
		}
	}
	if len(r.answers) != keptAnswers || removed != 3 {
		t.Errorf("%d answers are kept and %d removed", len(r.answers), removed)
	}
}

// TestReadsThatFailForGood refuse a request, within the retry window.
func TestReadsThatFailForGood(t *testing.T) {
	s := newScript()
	images := newScriptImages(t, s)
	cfg := testConfig(t, testenv.StandIn(t), "failing", s)
	cfg.seams.images = images
	for range 1000 {
		images.failures = append(images.failures, &transientError{errors.New("no luck")})
	}
	cfg.Retry.Other, cfg.Retry.MaxBackoff = 100*time.Millisecond, 20*time.Millisecond
	service := start(t, cfg)
	a := newAsker(t, cfg)
	until(t, cfg, s.last())
	a.ask(state.Request{Kind: state.RequestReload, ID: "r", DB: "shop", Coll: "orders"})
	view := satisfied(t, a)
	service.stop()
	if got := view.Answers(); len(got) != 1 || !strings.Contains(got[0].Cause, "no luck") {
		t.Errorf("answers %v", got)
	}
}

// TestClassOfRenamedCollection: a capped collection that a rename brings into
// the selection, as a conversion does, keeps one order from its first event.
func TestClassOfRenamedCollection(t *testing.T) {
	s := newScript()
	cfg := testConfig(t, testenv.StandIn(t), "entering", s)
	cfg.seams.images = newScriptImages(t, s)
	uuid, old := event.UUID{5}, event.UUID{6}
	service := start(t, cfg)
	until(t, cfg, s.last())
	s.create("log", old)
	s.create("unselected", uuid, bson.E{Key: "capped", Value: true})
	h := &hammer{s: s}
	h.command(uuid, bson.D{
		{Key: "renameCollection", Value: "shop.unselected"},
		{Key: "to", Value: "shop.log"},
		{Key: "dropTarget", Value: bson.Binary{Subtype: 4, Data: old[:]}},
	})
	for i := range 20 {
		s.insertUUID("log", i, uuid)
	}
	until(t, cfg, s.last())
	service.stop()
	n := 0
	for _, r := range committed(t, cfg) {
		if r.event.Op != event.OpInsert {
			continue
		}
		if n++; r.key != "shop.log|" {
			t.Errorf("event of a capped collection has key %q", r.key)
		}
	}
	if n != 20 {
		t.Errorf("%d inserts", n)
	}
}
