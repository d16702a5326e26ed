package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/capture/changestream"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"
)

// catalog is what the pipeline was told of the source's collections and views,
// where a change stream does not report their creation and changes. It finds
// them out: a collection's creation when the first event of its UUID comes, in
// its place before that event, and everything else by comparing lists. It is
// used from the goroutine that fetches.
//
// A list is true at some time between its begin and its end R. It counts once
// the stream has passed R, and not for names of which the stream showed a drop or
// a rename since the list was begun, so that no event that it leads to can come
// before one that the stream still had to tell.
type catalog struct {
	cfg    *Config
	client *mongo.Client
	topics route.Topics

	items map[string]*state.CatalogItem
	// names are the keys of items by namespace.
	names map[event.Namespace]string
	// begun is what a new pipeline starts with.
	begun []state.CatalogItem

	// next is when to list again, touched what must not be compared then.
	next    time.Time
	touched map[event.Namespace]struct{}
	// listing hands over the list under way; held is one that waits for the
	// stream.
	listing chan listed
	held    *listed
	work    errgroup.Group
	end     context.CancelFunc
}

// listed is the result of a list.
type listed struct {
	entries []mongodb.CatalogEntry
	// through is a time not earlier than the list.
	through bson.Timestamp
	err     error
}

func newCatalog(cfg *Config, client *mongo.Client, known []state.CatalogItem) *catalog {
	c := &catalog{
		cfg: cfg, client: client, topics: route.TopicsOf(cfg.Pipeline), items: make(map[string]*state.CatalogItem, len(known)),
		names: make(map[event.Namespace]string, len(known)), touched: map[event.Namespace]struct{}{},
		next: time.Now().Add(cfg.CatalogInterval),
	}
	for i := range known {
		c.hold(&known[i])
	}
	return c
}

// begin writes down what a new pipeline starts with.
func (c *catalog) begin(b *batch) error {
	for i := range c.begun {
		if err := c.put(b, &c.begun[i]); err != nil {
			return err
		}
	}
	c.begun = nil
	return nil
}

func (c *catalog) hold(item *state.CatalogItem) {
	key := item.Key()
	if old := c.items[key]; old != nil {
		delete(c.names, old.Namespace())
	}
	c.items[key], c.names[item.Namespace()] = item, key
}

// at returns what the pipeline knows under a name, or nil.
func (c *catalog) at(ns event.Namespace) *state.CatalogItem { return c.items[c.names[ns]] }

// of returns what the pipeline knows under a UUID, or nil.
func (c *catalog) of(uuid event.UUID) *state.CatalogItem {
	return c.items[(&state.CatalogItem{UUID: uuid}).Key()]
}

// put writes an item down with the batch.
func (c *catalog) put(b *batch, item *state.CatalogItem) error {
	c.hold(item)
	return c.write(b, item.Key(), item)
}

// drop forgets an item with the batch; nil is none.
func (c *catalog) drop(b *batch, item *state.CatalogItem) error {
	if item == nil {
		return nil
	}
	key := item.Key()
	delete(c.items, key)
	if c.names[item.Namespace()] == key {
		delete(c.names, item.Namespace())
	}
	return c.write(b, key, nil)
}

func (c *catalog) write(b *batch, key string, item *state.CatalogItem) error {
	var value any
	if item != nil {
		value = item
	}
	record, err := state.Record(c.topics.State, key, value)
	if err != nil {
		return &finalError{err}
	}
	b.stream.records = append(b.stream.records, *record)
	return nil
}

// observe takes an event before it is added to the batch.
func (c *catalog) observe(ctx context.Context, t *streamTail, b *batch, h *changestream.Header) error {
	switch h.Kind {
	case "insert", "update", "replace", "delete":
		return c.introduce(ctx, t, b, h)
	case "drop":
		c.touched[h.Namespace] = struct{}{}
		item := c.of(h.UUID)
		if item == nil {
			item = c.at(h.Namespace)
		}
		return c.drop(b, item)
	case "rename":
		if err := c.introduce(ctx, t, b, h); err != nil {
			return err
		}
		return c.rename(b, h)
	}
	return nil
}

// introduce tells of a collection before the first event of its UUID.
func (c *catalog) introduce(ctx context.Context, t *streamTail, b *batch, h *changestream.Header) error {
	ns := h.Namespace
	if h.UUID.IsZero() || c.of(h.UUID) != nil || !c.cfg.Select.Match(ns.DB, ns.Coll) {
		return nil
	}
	if held := c.at(ns); held != nil {
		// No drop came in between: the collection was given another UUID, as
		// resharding does.
		item := *held
		item.UUID = h.UUID
		c.cfg.Log.Info().Stringer(logfield.Namespace, ns).Msg("collection has another UUID")
		return errors.Join(c.drop(b, held), c.put(b, &item))
	}
	entry, err := mongodb.FindCollection(ctx, c.client.Database(ns.DB), ns.Coll, h.UUID)
	if err != nil {
		return &sourceError{err}
	}
	if entry == nil {
		// It is gone, as an event that is still to come says.
		entry = &mongodb.CatalogEntry{UUID: h.UUID, Options: bson.Raw{5, 0, 0, 0, 0}}
	}
	entry.NS = ns
	return c.create(t, b, entry, h.Time)
}

// create tells of a collection or view without its indexes, which come with the
// next list: what they are built over now may not be what they hold for.
func (c *catalog) create(t *streamTail, b *batch, entry *mongodb.CatalogEntry, at bson.Timestamp) error {
	doc := createChange(entry, at)
	if err := t.add(b, doc, at); err != nil {
		return err
	}
	c.cfg.Log.Info().Stringer(logfield.Namespace, entry.NS).Msg("found a collection that the change stream did not report")
	if entry.Capped() {
		// Change streams do not show what cloneCollectionAsCapped copies.
		if err := c.reload(b, entry.NS, entry.UUID, "capped collections may be filled without events of a change stream"); err != nil {
			return err
		}
	}
	item := itemOf(entry)
	item.Indexes = nil
	return c.put(b, &item)
}

// rename follows a collection to its new name.
func (c *catalog) rename(b *batch, h *changestream.Header) error {
	c.touched[h.Namespace], c.touched[h.To] = struct{}{}, struct{}{}
	item := c.of(h.UUID)
	if item == nil {
		item = c.at(h.Namespace)
	}
	if replaced := c.at(h.To); replaced != item {
		if err := c.drop(b, replaced); err != nil {
			return err
		}
	}
	switch {
	case item == nil: // it comes into the selection: apply asks for its documents
		return nil
	case !c.cfg.Select.Match(h.To.DB, h.To.Coll):
		return c.drop(b, item)
	}
	moved := *item
	moved.DB, moved.Coll = h.To.DB, h.To.Coll
	return c.put(b, &moved)
}

// reload asks for a collection's documents, options and indexes.
func (c *catalog) reload(b *batch, ns event.Namespace, uuid event.UUID, reason string) error {
	record, err := state.RequestRecord(c.cfg.Pipeline, &state.Request{
		Kind: state.RequestReload, ID: "capture/reload/" + uuid.String(), DB: ns.DB, Coll: ns.Coll, UUID: uuid,
		Reason: reason, Asked: time.Now().UTC(),
	})
	if err != nil {
		return &finalError{fmt.Errorf("ask for collection ns=%s: %w", ns, err)}
	}
	b.stream.records = append(b.stream.records, *record)
	return nil
}

// close ends a list under way.
func (c *catalog) close() {
	if c.end != nil {
		c.end()
	}
	// A list hands its error over; its goroutine has none.
	_ = c.work.Wait()
}
