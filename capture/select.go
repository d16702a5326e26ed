package capture

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/state"
)

// reselect takes over the selection with which this capture was started. What it
// adds to that of the events so far is missing from them for every group that
// took it for selected meanwhile: their reloads are asked for here. A group that
// has not changed its own selection yet asks by itself when it does.
func (s *Service) reselect(p *publisher, view *state.View) error {
	held, _ := view.Position()
	p.patterns = s.cfg.Patterns
	if held.Select == nil || held.Select.Equal(p.patterns) {
		return nil
	}
	s.cfg.Log.Info().Strs("include", p.patterns.Include).Strs("exclude", p.patterns.Exclude).Stringer(logfield.Position, p.position).
		Msg("the selection was changed: it holds from here on")
	for _, g := range view.Groups() {
		if len(g.Select) == 0 || !g.Select[0].Equal(p.patterns) || g.Phase == state.PhaseDone {
			continue
		}
		change := state.SelectChange{Now: g.Select, Was: append(rules.Layers{*held.Select}, g.Select[1:]...)}
		asked, err := change.Request(g.Destination, g.Group)
		if err != nil {
			return &finalError{err}
		}
		if err := asked.Validate(); err != nil {
			return &finalError{err}
		}
		p.refresher.ask(asked)
	}
	return nil
}

// ask makes a request pending with the next commit, unless it is already.
func (r *requests) ask(asked *state.Request) {
	if r.byID[asked.ID] != nil {
		return
	}
	if asked.Kind == state.RequestSelect {
		r.succeed(asked)
	}
	q := &request{PendingRequest: state.PendingRequest{Request: *asked, Now: asked.Namespace()}}
	r.add(q)
	r.change(q)
	log := r.log.Info().Str(logfield.Request, q.ID).Str(logfield.Reason, q.Reason)
	if q.Kind != state.RequestSelect {
		log = log.Stringer(logfield.Namespace, q.Now)
	}
	log.Msg(q.Kind + " was asked for")
}

// succeed has a changed selection take the place of an earlier change of the same
// group that is still pending: what that has added is added by both together.
func (r *requests) succeed(asked *state.Request) {
	for _, q := range r.queue {
		if q.Kind != state.RequestSelect || q.Destination != asked.Destination || q.Group != asked.Group {
			continue
		}
		// Not selected before the one, or not before the other.
		asked.Select = &state.SelectChange{Was: q.Select.Was.And(asked.Select.Was), Now: asked.Select.Now}
		r.remove(q)
		return
	}
}

// postponed reports whether a request has to wait for a capture with the
// selection that it was made for: what a collection added to this one were
// loaded with, its later changes would miss.
func (f *refresher) postponed(q *request) bool {
	return q.Kind == state.RequestSelect && !q.Select.Now[0].Equal(f.publisher.patterns)
}

// warnPostponed says what requests wait for.
func (f *refresher) warnPostponed() {
	for _, q := range f.queue {
		if f.postponed(q) && !q.said {
			q.said = true
			f.log.Warn().Str(logfield.Request, q.ID).Str(logfield.Destination, q.Destination).
				Msg("a destination was started with another selection than this capture: what it has added waits: hint: restart capture with the same configuration")
		}
	}
}

// added asks for the reloads of what a changed selection has added: of every
// collection that was listed. One that came later is told by its create event,
// since this capture selects it.
func (f *refresher) added(r *round) error {
	q := r.of[0]
	if f.byID[q.ID] != q {
		return nil // another change has taken its place
	}
	added, err := q.Select.Added()
	if err != nil {
		return &finalError{err}
	}
	n := 0
	for i := range r.result.catalogue {
		c := &r.result.catalogue[i]
		if !added(c.NS.DB, c.NS.Coll) || !f.publisher.cfg.Select.Match(c.NS.DB, c.NS.Coll) {
			continue
		}
		asked := &state.Request{
			Kind: state.RequestReload, ID: fmt.Sprintf("%s/%s", q.ID, idOf(c.NS, c.UUID)), Destination: q.Destination, Group: q.Group,
			DB: c.NS.DB, Coll: c.NS.Coll, UUID: c.UUID, Reason: "the selection was changed", Asked: q.Asked,
		}
		if f.awaits(asked) {
			continue
		}
		f.ask(asked)
		n++
	}
	f.remove(q)
	f.log.Info().Str(logfield.Request, q.ID).Str(logfield.Destination, q.Destination).Int("collections", n).
		Msg("the selection was changed: what it has added is loaded beside the changes")
	return nil
}

// awaits reports whether a reload that would do for another one is pending and
// has not begun.
func (r *requests) awaits(asked *state.Request) bool {
	for _, q := range r.queue {
		if q.Kind == state.RequestReload && q.Reload == nil && q.UUID == asked.UUID && q.Now == asked.Namespace() &&
			(q.Destination == "" || q.Destination == asked.Destination) {
			return true
		}
	}
	return false
}

// covered reports whether a group asks for a collection that its changed
// selection has asked for already: events that come before the reload do so. If
// the group still lacks it behind that, it asks again.
func (r *requests) covered(asked *state.Request) bool {
	if asked.Kind != state.RequestReload || !strings.Contains(asked.ID, "/") {
		return false // what an operator asks for has no such ID
	}
	return slices.ContainsFunc(r.queue, func(q *request) bool {
		return q.Kind == state.RequestReload && strings.Contains(q.ID, state.SelectIDs) && q.Destination == asked.Destination && q.Group == asked.Group &&
			!q.UUID.IsZero() && q.UUID == asked.UUID
	})
}

// idOf names a collection in a request's ID.
func idOf(ns event.Namespace, uuid event.UUID) string {
	if uuid.IsZero() {
		return ns.String()
	}
	return uuid.String()
}
