package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// diskInterval is how often is looked what waits on the snapshot topic.
	diskInterval = time.Second
	// diskShare is the part of the room found that one process takes before it
	// looks again: others take theirs meanwhile.
	diskShare = 4
	// diskProbe is how often is looked, while all is held back, whether what
	// waits can be read at all.
	diskProbe = 5 * time.Second
)

// disk bounds what waits on the snapshot topic: transactions are held back until
// the slowest destination has loaded enough, and what all of them have loaded is
// deleted. Bytes are counted as encoded, before compression. It is safe for
// concurrent use; a nil disk bounds nothing.
type disk struct {
	limit int64

	mu sync.Mutex
	// left is what may be committed before the next look.
	left int64
	// records and bytes were committed by this process: a record's average size.
	records, bytes int64
	// changed is closed when left has been set anew.
	changed chan struct{}
	// spent asks for a look at once.
	spent chan struct{}
	// probed is the one who looks's alone.
	probed time.Time
}

// newDisk starts with room for the average to be guessed from batchBytes.
func newDisk(limit, batchBytes int64) *disk {
	if limit <= 0 {
		return nil
	}
	return &disk{limit: limit, records: 1, bytes: batchBytes, changed: make(chan struct{}), spent: make(chan struct{}, 1)}
}

// await blocks until something may be committed, ctx ends or stop is closed.
func (d *disk) await(ctx context.Context, stop <-chan struct{}) error {
	if d == nil {
		return nil
	}
	for {
		d.mu.Lock()
		left, changed := d.left, d.changed
		d.mu.Unlock()
		if left > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-stop:
			return context.Canceled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// committed takes note of a transaction.
func (d *disk) committed(records, bytes int64) {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.records, d.bytes, d.left = d.records+records, d.bytes+bytes, d.left-bytes
	out := d.left <= 0
	d.mu.Unlock()
	if out {
		select {
		case d.spent <- struct{}{}:
		default: // a look is due already
		}
	}
}

// grant says how many records wait; it returns whether there is no room.
func (d *disk) grant(waiting int64) (held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	room := d.limit - waiting*d.average()
	d.left = 0
	if room > 0 {
		d.left = max(room/diskShare, 1)
	}
	close(d.changed)
	d.changed = make(chan struct{})
	return room <= 0
}

// average is a record's; the lock is held.
func (d *disk) average() int64 { return max(d.bytes/d.records, 1) }

// size is about what so many records take.
func (d *disk) size(records int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return records * d.average()
}

// keepDisk looks after the disk until ctx ends.
func (s *Service) keepDisk(ctx context.Context) error {
	if s.disk == nil {
		return nil
	}
	if err := s.board.wait(ctx, begun); err != nil {
		return err
	}
	return s.policy().Loop(ctx, kafka.Classify, func(ctx context.Context, alive func()) error {
		client, err := kafka.NewClient(s.cfg.Kafka)
		if err != nil {
			return err
		}
		defer client.Close()
		admin := kadm.NewClient(client)
		tick := time.NewTicker(diskInterval)
		defer tick.Stop()
		for {
			if err := s.lookAtDisk(ctx, admin); err != nil {
				return err
			}
			alive()
			select {
			case <-s.disk.spent:
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// lookAtDisk looks once: it deletes what every destination has loaded, when more
// than half of the limit is taken, and says how much may follow.
func (s *Service) lookAtDisk(ctx context.Context, admin *kadm.Client) error {
	m, groups := s.board.loading()
	log, err := listLog(ctx, admin, s.topics.Snapshot)
	if err != nil {
		return err
	}
	stands, slowest, err := s.slowest(ctx, admin, log, &m, groups)
	if err != nil {
		return err
	}
	var waiting, there int64
	loaded := kadm.Offsets{}
	for _, p := range log.partitions() {
		waiting += log.ends[p] - stands[p]
		there += log.ends[p] - log.starts[p]
		if stands[p] > log.starts[p] {
			loaded.AddOffset(s.topics.Snapshot, p, stands[p], -1)
		}
	}
	held := s.disk.grant(waiting)
	if held && time.Since(s.disk.probed) > diskProbe {
		s.disk.probed = time.Now()
		if waiting, err = s.readable(ctx, log, stands); err != nil {
			return err
		}
		held = s.disk.grant(waiting)
	}
	cause := ""
	if held {
		cause = fmt.Sprintf("%d MiB wait on topic %s, which is its limit: waiting for %s to load", s.disk.limit>>20, s.topics.Snapshot, slowest)
	}
	s.mood.held(cause)
	if len(loaded) == 0 || s.disk.size(there) <= s.disk.limit/2 {
		return nil
	}
	deleted, err := admin.DeleteRecords(ctx, loaded)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return fmt.Errorf("delete loaded records topic=%s: %w: hint: the Kafka user needs Delete on the topic", s.topics.Snapshot, err)
	}
	s.log.Debug().Str(logfield.Topic, s.topics.Snapshot).Msg("deleted what every destination has loaded")
	return nil
}

// readable counts the records that wait without those partitions in which
// nothing is left but what aborted transactions have left behind: groups do not
// move over it before more is committed.
func (s *Service) readable(ctx context.Context, log *topicLog, from map[int32]int64) (int64, error) {
	probe, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	left := map[int32]int64{}
	for p, offset := range from {
		if offset < log.ends[p] {
			left[p] = offset
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	var waiting int64
	reading := *log
	reading.cfg = s.cfg.Kafka
	err := reading.follow(probe, maps.Clone(left), func(r *kgo.Record) (bool, error) {
		offset, undecided := left[r.Partition]
		switch {
		case !undecided:
		case !r.Attrs.IsControl():
			waiting += log.ends[r.Partition] - offset
			delete(left, r.Partition)
		case r.Offset+1 >= log.ends[r.Partition]:
			delete(left, r.Partition)
		}
		return len(left) == 0, nil
	})
	if err != nil && (ctx.Err() != nil || probe.Err() == nil) {
		return 0, err
	}
	for p, offset := range left { // transactions are open there
		waiting += log.ends[p] - offset
	}
	return waiting, nil
}

// slowest returns, by partition, the offset up to which every destination that
// loads the run has loaded, as their groups tell Kafka, which is never ahead of
// what a majority of the destination has. A configured destination that has not
// begun stands at the run's first offset; a registered one that the configuration
// does not have counts as well. The name is the slowest one's.
func (s *Service) slowest(ctx context.Context, admin *kadm.Client, log *topicLog, m *state.Manifest, groups []state.GroupRegistration) (map[int32]int64, string, error) {
	type reader struct {
		name    string
		offsets kadm.OffsetResponses
		// former says that it loads a run before this one.
		former bool
	}
	var readers []reader
	loading, absent := state.StillLoading(groups, s.cfg.Destinations)
	for _, g := range loading {
		group := route.ApplyGroup(s.cfg.Pipeline, g.Destination, g.Group)
		offsets, err := admin.FetchOffsets(ctx, group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, "", fmt.Errorf("read offsets of group %s: %w", group, err)
		}
		name := g.Destination
		if !slices.Contains(s.cfg.Destinations, name) {
			name += " (which the configuration does not have: hint: if it is given up, take its registration off the state topic)"
		}
		readers = append(readers, reader{name, offsets, g.Run != "" && g.Run != m.Run})
	}
	for _, name := range absent {
		readers = append(readers, reader{name: name + " (which has not begun)"})
	}
	stands, behind := map[int32]int64{}, map[string]int64{}
	for i, p := range log.partitions() {
		first := log.starts[p]
		if i < len(m.SnapshotOffsets) {
			first = max(first, m.SnapshotOffsets[i])
		}
		stands[p] = log.ends[p]
		if len(readers) == 0 && len(s.cfg.Destinations) == 0 {
			stands[p] = first
		}
		for _, r := range readers {
			at := first
			if r.former {
				at = log.starts[p]
			}
			if o, ok := r.offsets.Lookup(s.topics.Snapshot, p); ok && o.Err == nil && o.At > at {
				at = min(o.At, log.ends[p])
			}
			stands[p] = min(stands[p], at)
			behind[r.name] += log.ends[p] - at
		}
	}
	return stands, mostBehind(behind), nil
}

// mostBehind names the destinations that have the most records to load.
func mostBehind(behind map[string]int64) string {
	if len(behind) == 0 {
		return "a destination"
	}
	most := slices.Max(slices.Collect(maps.Values(behind)))
	var names []string
	for name, n := range behind {
		if n == most {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
