package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The states of a dead letter: those of its document.
const (
	// DeadAsked: an image was asked for, and updates follow the letter.
	DeadAsked = "asked"
	// DeadGivenUp: the image could not be applied either.
	DeadGivenUp = "given up"
	// DeadDiscarded: the operator knows, and does not want to hear of it; the
	// document's updates are dead letters until an image comes by itself.
	DeadDiscarded = "discarded"
	// DeadSettled: an image, or the document's end, has been applied since.
	DeadSettled = "settled"
)

// DeadConfig names a destination's dead letters.
type DeadConfig struct {
	// Pipeline, Destination and Group name the group; Group is empty for a
	// destination's only one.
	Pipeline, Destination, Group string
	Kafka                        kafka.Config
	// Client reaches the destination; the caller disconnects it.
	Client *mongo.Client
}

// DeadLetter is one letter.
type DeadLetter struct {
	// Letter is its offset in the dead-letter topic, which names it.
	Letter int64  `json:"letter"`
	State  string `json:"state"`
	Op     string `json:"op"`
	NS     string `json:"ns"`
	// ID is the document's _id as Extended JSON.
	ID       string `json:"id"`
	Reason   string `json:"reason"`
	Position string `json:"position"`
	// Partition and Offset name the event in the change topic: a letter that is
	// there twice has the same.
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"`
	// Event is the event; nil where this version cannot decode it.
	Event *event.Event `json:"-"`

	entry requestID
}

// DeadLetters returns a destination's letters in their order, as far as the
// topic still has them. It blocks until the topic was read to its present end.
// A topic that does not exist holds none.
func DeadLetters(ctx context.Context, cfg DeadConfig) ([]DeadLetter, error) {
	topic := route.DeadTopic(cfg.Pipeline, cfg.Destination)
	client, err := kafka.NewClient(cfg.Kafka, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	first, end, err := bounds(ctx, client, topic)
	if err != nil || first >= end {
		return nil, err
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	store := cfg.store()
	entries, err := store.deadEntries(ctx)
	if err != nil {
		return nil, err
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(first)}})
	var list []DeadLetter
	for next := first; next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read dead letters topic=%s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if r.Offset < end {
				list = append(list, readLetter(r, codec, store, entries))
			}
		})
	}
	return list, nil
}

func (c *DeadConfig) store() *store {
	group := (&Config{Destination: c.Destination, Group: c.Group}).groupName()
	return newStore(c.Client, groupID{Pipeline: c.Pipeline, Group: group}, "", topicNames{})
}

// bounds returns the first and the next offset of the topic's partition.
func bounds(ctx context.Context, client *kgo.Client, topic string) (first, end int64, err error) {
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("look for topic %s: %w", topic, err)
	}
	if !topics.Has(topic) {
		return 0, 0, nil
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets topic=%s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets topic=%s: %w", topic, err)
	}
	s, _ := starts.Lookup(topic, 0)
	e, ok := ends.Lookup(topic, 0)
	if err := errors.Join(s.Err, e.Err); err != nil || !ok {
		return 0, 0, fmt.Errorf("list offsets topic=%s: %w", topic, errors.Join(err, errors.New("no partition 0")))
	}
	return s.Offset, e.Offset, nil
}

// deadEntries reads the entries of documents with dead letters, by document.
func (s *store) deadEntries(ctx context.Context) (map[string]requestRecord, error) {
	list, err := s.requests(ctx, 0, field("dead", true))
	if err != nil {
		return nil, err
	}
	entries := make(map[string]requestRecord, len(list))
	for _, r := range list {
		entries[entryKey(r.ID)] = r
	}
	return entries, nil
}

func entryKey(id requestID) string { return id.Coll + "\x00" + string(id.Key) }

// readLetter reads what a letter says of itself.
func readLetter(r *kgo.Record, codec *wire.Codec, s *store, entries map[string]requestRecord) DeadLetter {
	said := map[string]string{}
	for _, h := range r.Headers {
		said[h.Key] = string(h.Value)
	}
	l := DeadLetter{
		Letter: r.Offset, State: DeadSettled, NS: said[headerNamespace], ID: said[headerID], Reason: said[headerReason],
		Position: said[headerPosition], Partition: -1, Offset: -1, Time: r.Timestamp.UTC(),
	}
	if n, err := strconv.ParseInt(said[headerPartition], 10, 32); err == nil {
		l.Partition = int32(n)
	}
	if n, err := strconv.ParseInt(said[headerOffset], 10, 64); err == nil {
		l.Offset = n
	}
	e, err := codec.DecodeEvent(r.Value)
	if err != nil {
		return l
	}
	l.Op, l.Event = string(e.Op), &e
	kept, err := keptKey(change{Event: &e}.docID())
	if err != nil {
		return l
	}
	l.entry = s.requestID(e.NS, e.UUID, kept)
	entry, there := entries[entryKey(l.entry)]
	switch {
	case !there:
	case entry.Discarded:
		l.State = DeadDiscarded
	case entry.State == requestDead:
		l.State = DeadGivenUp
	default:
		l.State = DeadAsked
	}
	return l
}

// RetryDead has the images of letters' documents asked for again, of all that
// are not settled for no letters; it returns how many documents that are. That
// is always right, which applying the letters again is not: the document has
// moved on. A running apply sends the requests within half a minute.
func RetryDead(ctx context.Context, cfg DeadConfig, letters []int64) (int, error) {
	return cfg.mark(ctx, letters, func(*requestRecord) bool { return true },
		field("state", requestWanted), field("sent", int64(0)), field("discarded", false))
}

// DiscardDead marks the documents of letters as known to the operator: status
// and metrics do not count them any more. It returns how many documents that
// are.
func DiscardDead(ctx context.Context, cfg DeadConfig, letters []int64) (int, error) {
	return cfg.mark(ctx, letters, func(e *requestRecord) bool { return !e.Discarded }, field("discarded", true))
}

// mark changes the entries of letters, or of all.
func (c *DeadConfig) mark(ctx context.Context, letters []int64, which func(*requestRecord) bool, fields ...bson.E) (n int, err error) {
	s := c.store()
	entries, err := s.deadEntries(ctx)
	if err != nil {
		return 0, err
	}
	wanted := map[string]bool{}
	if len(letters) > 0 {
		list, err := DeadLetters(ctx, *c)
		if err != nil {
			return 0, err
		}
		for _, number := range letters {
			i := slices.IndexFunc(list, func(l DeadLetter) bool { return l.Letter == number })
			if i < 0 {
				return 0, fmt.Errorf("find dead letter %d: the topic %s does not have it", number, route.DeadTopic(c.Pipeline, c.Destination))
			}
			wanted[entryKey(list[i].entry)] = true
		}
	}
	for key, e := range entries {
		if len(letters) > 0 && !wanted[key] || !which(&e) {
			continue
		}
		res, err := s.db.Collection(requestsCollection).UpdateOne(ctx, bson.D{{Key: "_id", Value: e.ID}, {Key: "dead", Value: true}}, set(fields...))
		if err != nil {
			return n, fmt.Errorf("mark request ns=%s: %w", e.NS, sanitize(err))
		}
		n += int(res.MatchedCount)
	}
	return n, nil
}
