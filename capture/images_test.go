package capture

import (
	"context"
	"slices"
	"sort"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// scriptImages reads what a script's entries made.
type scriptImages struct {
	t      testing.TB
	script *script
	// between is called between any two documents that are read.
	between func()
	// natural says that the _id index is of no use.
	natural bool
	// past says that the state of any time can be told; told counts how often
	// it was.
	past bool
	told int

	mu      sync.Mutex
	decoder oplog.Decoder
	state   *model
	next    int
	// failures are returned by the next reads, one each.
	failures []error
}

func newScriptImages(t testing.TB, s *script) *scriptImages {
	return &scriptImages{t: t, script: s, state: newModel(t), between: func() {}}
}

// now brings the state up to date and lets fn look at it.
func (s *scriptImages) now(fn func(*model)) bson.Timestamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.mu.Lock()
	entries := s.script.entries[s.next:]
	through := s.script.times[len(s.script.times)-1]
	s.script.mu.Unlock()
	s.next += len(entries)
	for _, entry := range entries {
		events, err := s.decoder.Decode(entry, nil)
		if err != nil {
			s.t.Error(err)
		}
		for i := range events {
			s.state.apply(&events[i])
		}
	}
	fn(s.state)
	return through
}

func (s *scriptImages) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return nil
	}
	err := s.failures[0]
	s.failures = s.failures[1:]
	return err
}

func (s *scriptImages) list(context.Context, bson.Timestamp) (catalogue []mongodb.CatalogEntry, through bson.Timestamp, err error) {
	through = s.now(func(m *model) {
		for ns, c := range m.colls {
			catalogue = append(catalogue, mongodb.CatalogEntry{NS: ns, UUID: c.uuid, Options: c.options})
		}
	})
	return catalogue, through, nil
}

func (s *scriptImages) locate(_ context.Context, _ bson.Timestamp, ns event.Namespace, uuid event.UUID) (found *located, through bson.Timestamp, err error) {
	if err := s.failure(); err != nil {
		return nil, bson.Timestamp{}, err
	}
	s.now(func(m *model) {
		for name, c := range m.colls {
			if uuid.IsZero() && name == ns || !uuid.IsZero() && c.uuid == uuid {
				options := c.options
				if options == nil {
					options = bson.Raw{5, 0, 0, 0, 0}
				}
				found = &located{CatalogEntry: mongodb.CatalogEntry{NS: name, UUID: c.uuid, Options: options}, ranges: !s.natural}
			}
		}
	})
	s.between()
	return found, s.now(func(*model) {}), nil
}

func (s *scriptImages) read(_ context.Context, q *query) (*reading, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	if q.exact && s.past {
		return s.readPast(q)
	}
	r := &reading{}
	for _, id := range q.ids {
		key, err := keyOfID(id)
		if err != nil {
			return nil, err
		}
		s.now(func(m *model) { r.images = append(r.images, image{id: id, document: m.coll(q.at.NS).docs[key]}) })
		s.between()
	}
	if q.ids == nil {
		if err := s.readRange(q, r, min(q.documents, 7), func(m *model) *modelColl { return m.coll(q.at.NS) }); err != nil {
			return nil, err
		}
	}
	r.through = s.now(func(*model) {})
	return r, nil
}

// readPast reads what the entries up to a time made.
func (s *scriptImages) readPast(q *query) (*reading, error) {
	s.script.mu.Lock()
	entries := s.script.entries[:sort.Search(len(s.script.entries), func(i int) bool {
		return event.CompareTimes(s.script.times[i], q.after) > 0
	})]
	s.script.mu.Unlock()
	then, decoder := newModel(s.t), s.decoder
	for _, entry := range entries {
		events, err := decoder.Decode(entry, nil)
		if err != nil {
			return nil, err
		}
		for i := range events {
			then.apply(&events[i])
		}
	}
	r := &reading{exact: true, through: q.after}
	for _, id := range q.ids {
		key, err := keyOfID(id)
		if err != nil {
			return nil, err
		}
		r.images = append(r.images, image{id: id, document: then.coll(q.at.NS).docs[key]})
		s.between()
	}
	s.mu.Lock()
	s.told++
	s.mu.Unlock()
	return r, nil
}

// readRange reads the collection that of names now, in the order of the _ids'
// normal form. A cursor stays with its collection, a query by name does not.
func (s *scriptImages) readRange(q *query, r *reading, limit int, of func(*model) *modelColl) error {
	after := ""
	if q.next != nil {
		var err error
		if after, err = keyOfID(q.next); err != nil {
			return err
		}
	}
	for len(r.images) < limit {
		var document bson.Raw
		s.now(func(m *model) {
			c := of(m)
			var keys []string
			for key := range c.docs {
				if key > after {
					keys = append(keys, key)
				}
			}
			if len(keys) > 0 {
				after = slices.Min(keys)
				document = c.docs[after]
			}
		})
		if document == nil {
			r.last = true
			return nil
		}
		if err := r.add(document); err != nil {
			return err
		}
		s.between()
	}
	return nil
}

// scan reads in the same order as a range does, from one pass.
func (s *scriptImages) scan(_ context.Context, _ bson.Timestamp, at *located) (scanner, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return &scriptScan{images: s, query: query{at: at}}, nil
}

type scriptScan struct {
	images *scriptImages
	query  query
}

func (n *scriptScan) next(context.Context, int) (*reading, error) {
	if err := n.images.failure(); err != nil {
		return nil, err
	}
	r := &reading{}
	if err := n.images.readRange(&n.query, r, 5, func(m *model) *modelColl { return m.byUUID(n.query.at.UUID) }); err != nil {
		return nil, err
	}
	if len(r.images) > 0 {
		n.query.next = r.images[len(r.images)-1].id
	}
	moved := false
	r.through = n.images.now(func(m *model) {
		c := m.colls[n.query.at.NS]
		moved = r.last && (c == nil || c.uuid != n.query.at.UUID)
	})
	if moved {
		return nil, errMoved
	}
	return r, nil
}

func (n *scriptScan) close(context.Context) {}

// asker puts requests on a pipeline's control topic.
type asker struct {
	t      testing.TB
	cfg    Config
	client *kgo.Client
	// last is the offset of the last record.
	last int64
}

func newAsker(t testing.TB, cfg Config) *asker {
	t.Helper()
	client, err := kafka.NewClient(kafka.Config{Brokers: cfg.Kafka.Brokers, Log: zerolog.Nop()}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &asker{t: t, cfg: cfg, client: client, last: -1}
}

func (a *asker) produce(r *kgo.Record) {
	a.t.Helper()
	got, err := a.client.ProduceSync(a.t.Context(), r).First()
	if err != nil {
		a.t.Fatal(err)
	}
	a.last = got.Offset
}

func (a *asker) ask(r state.Request) {
	a.t.Helper()
	record, err := state.RequestRecord(a.cfg.Pipeline, &r)
	if err != nil {
		a.t.Fatal(err)
	}
	a.produce(record)
}

// raw puts a record on the topic that need not be a request.
func (a *asker) raw(topic, value string) {
	a.t.Helper()
	a.produce(&kgo.Record{Topic: topic, Value: []byte(value)})
}

func idDocuments(t testing.TB, ids ...any) (list [][]byte) {
	t.Helper()
	for _, id := range ids {
		raw, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, raw)
	}
	return list
}
