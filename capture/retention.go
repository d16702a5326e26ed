package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// retentionInterval is how often the active capture looks whether a group
	// is about to be overtaken by the change topic's retention.
	retentionInterval = 10 * time.Minute
	// retentionTimeout bounds one look.
	retentionTimeout = time.Minute
)

// keepRetention stretches the change topic's retention while a registered group
// stands before what it is about to delete, until ctx ends. Failures are logged
// and made good by the next look: there is half of the retention for that.
func (s *Service) keepRetention(ctx context.Context) {
	tick := time.NewTicker(min(retentionInterval, s.cfg.Topics.Retention/8))
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, retentionTimeout)
		err := s.stretchRetention(look, time.Now())
		cancel()
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn().Err(err).Msg("the change topic's retention was not looked after; it is tried again")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stretchRetention looks once. A group that is further behind than half of the
// retention doubles it, up to the configured maximum; once all are within a
// quarter of the configured retention, that is put back.
func (s *Service) stretchRetention(ctx context.Context, now time.Time) error {
	client, err := kafka.NewClient(s.cfg.Kafka)
	if err != nil {
		return err
	}
	defer client.Close()
	present, err := kafka.Retention(ctx, client, s.topics.Changes)
	if err != nil || present < 0 {
		return err
	}
	s.metrics.retention.Set(present.Seconds())
	view, err := state.Load(ctx, s.cfg.Kafka, s.topics.State)
	if err != nil {
		return err
	}
	usual, most := s.cfg.Topics.Retention, s.cfg.MaxRetention
	who, err := s.behind(ctx, client, view, now.Add(-present/2))
	if err != nil {
		return err
	}
	next := present
	switch {
	case who != "":
		next = max(min(2*present, most), present)
	case present > usual:
		if late, err := s.behind(ctx, client, view, now.Add(-usual/4)); err != nil || late != "" {
			return err
		}
		next = usual
	}
	log := s.cfg.Log.Warn().Str(logfield.Group, who).Stringer(logfield.Retention, next)
	switch {
	case next == present && who != "":
		log.Msg("a group is far behind and the change topic's retention is at its maximum: what it has not read will be deleted: " +
			"hint: let the group catch up, or raise kafka.max_retention")
		return nil
	case next == present:
		return nil
	}
	if err := kafka.SetRetention(ctx, client, s.topics.Changes, next); err != nil {
		return err
	}
	s.metrics.retention.Set(next.Seconds())
	if who != "" {
		log.Msg("a group is far behind: the change topic keeps its records longer for it")
		return nil
	}
	s.cfg.Log.Info().Stringer(logfield.Retention, next).Msg("every group has come through: the change topic has its usual retention again")
	return nil
}

// behind names a registered group that has not read everything that was written
// to the change topic before a time; empty if there is none. A group that has
// not begun with the changes stands where its load will have it begin. What the
// groups mirror to Kafka is never ahead of where they stand.
func (s *Service) behind(ctx context.Context, client *kgo.Client, view *state.View, before time.Time) (string, error) {
	admin := kadm.NewClient(client)
	offsets, err := admin.ListOffsetsAfterMilli(ctx, before.UnixMilli(), s.topics.Changes)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return "", fmt.Errorf("list offsets of topic %s: %w", s.topics.Changes, err)
	}
	run, loaded := view.LatestRun()
	if loaded && run.State == state.RunLoading && stands(offsets, run.ChangeOffsets) {
		return "the full load", nil // whoever joins it begins there, and so does its own end
	}
	for _, g := range view.Groups() {
		if g.Phase == state.PhaseDone {
			continue // a one-off copy that has come to its end
		}
		starts := g.ChangeOffsets
		if len(starts) == 0 && loaded {
			starts = run.ChangeOffsets
		}
		name := route.ApplyGroup(s.cfg.Pipeline, g.Destination, g.Group)
		committed, err := admin.FetchOffsets(ctx, name)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return "", fmt.Errorf("read offsets of group %s: %w", name, err)
		}
		late := slices.ContainsFunc(offsets.Offsets().Sorted(), func(o kadm.Offset) bool {
			if stands, ok := committed.Lookup(o.Topic, o.Partition); ok && stands.At >= 0 {
				return stands.At < o.At
			}
			return int(o.Partition) < len(starts) && starts[o.Partition] < o.At
		})
		if late {
			return name, nil
		}
	}
	return "", nil
}

// stands reports whether the starting offsets of a reader are before those in
// any partition.
func stands(before kadm.ListedOffsets, starts []int64) bool {
	return slices.ContainsFunc(before.Offsets().Sorted(), func(o kadm.Offset) bool {
		return int(o.Partition) < len(starts) && starts[o.Partition] < o.At
	})
}
