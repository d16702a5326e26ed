package state

import (
	"context"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// loadTimeout bounds one Load. Transactions that were open when it began are
// ended by then; a client that still waits for something is better replaced.
const loadTimeout = time.Minute

// Load reads the committed state as of the call: everything that was written
// before it, also by transactions that were still open then, which Load waits
// for (the broker ends an abandoned one after its transaction timeout). It
// blocks until it is done, ctx ends or a minute is over, and may be repeated.
func Load(ctx context.Context, cfg kafka.Config, topic string) (*View, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	// Control records are kept because the last offset may be the mark of a
	// transaction; without them the end would never be seen.
	client, err := kafka.NewClient(cfg, append(fromStart(topic), kgo.KeepControlRecords())...)
	if err != nil {
		return nil, fmt.Errorf("load state topic=%s: %w", topic, err)
	}
	defer client.Close()
	end, empty, err := bounds(ctx, client, topic)
	if err != nil {
		return nil, fmt.Errorf("load state topic=%s: %w", topic, err)
	}
	view, parts := NewView(), newJoiner()
	for next := int64(0); !empty && next < end; {
		records, err := poll(ctx, client)
		if err != nil {
			return nil, fmt.Errorf("load state topic=%s: %w", topic, err)
		}
		for _, r := range records {
			next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			value, whole, err := parts.add(string(r.Key), r.Value)
			if err == nil && whole {
				err = view.Apply(string(r.Key), value)
			}
			if err != nil {
				return nil, fmt.Errorf("load state topic=%s offset=%d: %w", topic, r.Offset, err)
			}
		}
	}
	return view, nil
}

// Watch calls onChange for every committed record of the topic from its start
// and goes on following it; a nil value removes the key. It blocks until ctx
// ends, onChange or reading fails. The value belongs to onChange, which runs on
// Watch's goroutine. After an error Watch may be called again; it then starts
// over.
func Watch(ctx context.Context, cfg kafka.Config, topic string, onChange func(key string, value []byte) error) error {
	return Follow(ctx, cfg, topic, onChange, nil)
}

// Follow is Watch that calls current, unless it is nil, once everything that
// stood in the topic at its beginning was handed over, on the same goroutine.
func Follow(ctx context.Context, cfg kafka.Config, topic string, onChange func(key string, value []byte) error, current func()) error {
	fail := func(err error) error { return fmt.Errorf("watch state topic=%s: %w", topic, err) }
	// The last record of then may be the mark of a transaction.
	client, err := kafka.NewClient(cfg, append(fromStart(topic), kgo.KeepControlRecords())...)
	if err != nil {
		return fail(err)
	}
	defer client.Close()
	var end int64
	parts := newJoiner()
	behind := current != nil
	if behind {
		var empty bool
		if end, empty, err = bounds(ctx, client, topic); err != nil {
			return fail(err)
		}
		if empty {
			behind = false
			current()
		}
	}
	for {
		records, err := poll(ctx, client)
		if err != nil {
			return fail(err)
		}
		for _, r := range records {
			if !r.Attrs.IsControl() {
				value, whole, err := parts.add(string(r.Key), r.Value)
				if err == nil && whole {
					err = onChange(string(r.Key), value)
				}
				if err != nil {
					return fmt.Errorf("watch state topic=%s offset=%d: %w", topic, r.Offset, err)
				}
			}
			if behind && r.Offset+1 >= end {
				behind = false
				current()
			}
		}
	}
}

// fromStart consumes the only partition from its first offset, committed
// records alone.
func fromStart(topic string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}
}

// bounds returns the offset after the last record written so far, whether it is
// committed or not, and whether there is none.
func bounds(ctx context.Context, client *kgo.Client, topic string) (end int64, empty bool, err error) {
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, false, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, false, fmt.Errorf("list end offsets: %w", err)
	}
	first, err := offsetOf(starts, topic)
	if err != nil {
		return 0, false, err
	}
	end, err = offsetOf(ends, topic)
	if err != nil {
		return 0, false, err
	}
	return end, first >= end, nil
}

func offsetOf(offsets kadm.ListedOffsets, topic string) (int64, error) {
	o, ok := offsets.Lookup(topic, 0)
	if !ok {
		return 0, fmt.Errorf("list offsets topic=%s: the topic does not exist", topic)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("list offsets topic=%s: %w", topic, o.Err)
	}
	return o.Offset, nil
}

// poll blocks until records come and returns them in the order of the log.
func poll(ctx context.Context, client *kgo.Client) ([]*kgo.Record, error) {
	fetches := client.PollFetches(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := fetches.Err(); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return fetches.Records(), nil
}
