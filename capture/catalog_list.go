package capture

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// itemOf is what the pipeline is told of a listed collection or view.
func itemOf(e *mongodb.CatalogEntry) state.CatalogItem {
	item := state.CatalogItem{DB: e.NS.DB, Coll: e.NS.Coll, View: e.View, Options: e.Options}
	if !e.View {
		item.UUID = e.UUID
	}
	for _, spec := range e.Indexes {
		if name, _ := spec.Lookup("name").StringValueOK(); name != idIndex {
			item.Indexes = append(item.Indexes, spec)
		}
	}
	return item
}

// idIndex is the name of the index that every collection is created with.
const idIndex = "_id_"

// compare begins a list when it is time to, and compares one that the stream has
// passed: everything up to at, which is in the batch or was before. It blocks on
// nothing.
func (c *catalog) compare(ctx context.Context, t *streamTail, b *batch, at bson.Timestamp) error {
	if c.listing == nil && c.held == nil && !time.Now().Before(c.next) {
		c.list(ctx)
	}
	select {
	case l := <-c.listing:
		c.listing = nil
		if l.err != nil {
			return &sourceError{l.err}
		}
		c.held = &l
	default:
	}
	if c.held == nil || event.CompareTimes(c.held.through, at) > 0 {
		return nil
	}
	entries := c.held.entries
	c.held, c.next = nil, time.Now().Add(c.cfg.CatalogInterval)
	return c.differences(t, b, entries, at)
}

// list reads the catalogue beside the stream.
func (c *catalog) list(ctx context.Context) {
	clear(c.touched)
	if c.end == nil {
		ctx, c.end = context.WithCancel(ctx)
	} else {
		c.end()
		ctx, c.end = context.WithCancel(ctx)
	}
	results := make(chan listed, 1)
	c.listing = results
	c.work.Go(func() error {
		var l listed
		if l.entries, l.err = mongodb.ListCollections(ctx, c.client, c.cfg.Select.Match); l.err == nil {
			l.through, l.err = mongodb.LatestTime(ctx, c.client)
		}
		results <- l // never blocks
		return nil
	})
}

// differences adds an event for each difference between the list and what the
// pipeline was told: first what is gone, then what is new or changed.
func (c *catalog) differences(t *streamTail, b *batch, entries []mongodb.CatalogEntry, at bson.Timestamp) error {
	tell := func(doc bson.Raw) error { return t.add(b, doc, at) }
	listed := make(map[string]struct{}, len(entries))
	for i := range entries {
		item := itemOf(&entries[i])
		listed[item.Key()] = struct{}{}
	}
	for _, item := range c.gone(listed) {
		if !item.View {
			// The stream tells of every drop: this one was undone, or its UUID
			// has changed. Its next event decides.
			c.cfg.Log.Warn().Stringer(logfield.Namespace, item.Namespace()).Msg("collection is not listed any more, and no event said so")
			continue
		}
		if err := cmp.Or(tell(change("drop", item.Namespace(), event.UUID{}, at, nil)), c.drop(b, item)); err != nil {
			return err
		}
	}
	for i := range entries {
		e := &entries[i]
		if _, touched := c.touched[e.NS]; touched {
			continue
		}
		if err := c.difference(t, b, e, at, tell); err != nil {
			return err
		}
	}
	return nil
}

// gone returns what is not listed, in the order of names.
func (c *catalog) gone(listed map[string]struct{}) []*state.CatalogItem {
	var gone []*state.CatalogItem
	for key, item := range c.items {
		_, there := listed[key]
		_, touched := c.touched[item.Namespace()]
		if !there && !touched {
			gone = append(gone, item)
		}
	}
	slices.SortFunc(gone, func(a, b *state.CatalogItem) int {
		return cmp.Compare(a.Namespace().String(), b.Namespace().String())
	})
	return gone
}

func (c *catalog) difference(t *streamTail, b *batch, e *mongodb.CatalogEntry, at bson.Timestamp, tell func(bson.Raw) error) error {
	now := itemOf(e)
	held := c.items[now.Key()]
	if held == nil {
		if other := c.at(e.NS); other != nil {
			return nil // its next event, or its drop, decides
		}
		if err := c.create(t, b, e, at); err != nil {
			return err
		}
		held = c.items[now.Key()]
	}
	if held.Namespace() != e.NS {
		return nil // a rename that the stream is still to tell
	}
	changes, whole := changesOf(held, &now, at)
	for _, doc := range changes {
		if err := tell(doc); err != nil {
			return err
		}
	}
	if !whole {
		if err := c.reload(b, e.NS, e.UUID, "its options changed in a way that collMod cannot repeat"); err != nil {
			return err
		}
	}
	if len(changes) == 0 && whole && bytes.Equal(held.Options, now.Options) {
		return nil
	}
	return c.put(b, &now)
}
