package state

import (
	"context"
	"fmt"
	"slices"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Loading reports whether the group may still read records of the snapshot
// topic: it loads documents and has not come to the end of its run.
func (g *GroupRegistration) Loading() bool {
	past := g.Phase == PhaseIndexes || g.Phase == PhaseChanges || g.Phase == PhaseDone
	return !g.WithoutFull && (g.Run == "" || !past)
}

// StillLoading returns the registered groups that may still read records of the
// snapshot topic, and those of the destinations that load documents of which no
// group has registered yet. Groups count whether their destination is among
// these or not.
func StillLoading(registered []GroupRegistration, destinations []string) (groups []GroupRegistration, absent []string) {
	for _, g := range registered {
		if g.Loading() {
			groups = append(groups, g)
		}
	}
	for _, name := range destinations {
		if !slices.ContainsFunc(registered, func(g GroupRegistration) bool { return g.Destination == name }) {
			absent = append(absent, name)
		}
	}
	return groups, absent
}

// DeleteLoaded deletes what lies on the snapshot topic when the latest run is
// complete and has been loaded by every registered group and by all of the
// destinations, which are those that load documents. It returns the run of which
// it has deleted something, and nothing while somebody still loads or when
// nothing is left. It may be repeated.
//
// Groups register a phase behind the load when the destination's majority has
// it, so none of them reads again what is deleted here.
func DeleteLoaded(ctx context.Context, cfg kafka.Config, topics route.Topics, destinations []string) (run string, err error) {
	client, err := kafka.NewClient(cfg)
	if err != nil {
		return "", err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// In this order: a run that begins after the ends were listed lies behind
	// them, and one that began before shows in the state.
	loaded, err := everything(ctx, admin, topics.Snapshot)
	if err != nil || len(loaded) == 0 {
		return "", err
	}
	view, err := Load(ctx, cfg, topics.State)
	if err != nil {
		return "", err
	}
	m, ok := view.LatestRun()
	if !ok || m.State != RunComplete {
		return "", nil
	}
	if groups, absent := StillLoading(view.Groups(), destinations); len(groups)+len(absent) > 0 {
		return "", nil
	}
	deleted, err := admin.DeleteRecords(ctx, loaded)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return "", fmt.Errorf("delete loaded records topic=%s: %w: hint: the Kafka user needs Delete on the topic", topics.Snapshot, err)
	}
	return m.Run, nil
}

// everything lists how far the partitions that hold anything may be deleted. The
// last offset of each is that of the mark which ends the transaction of the
// run's end: it stays, so that a reader that has met the run's end and not gone
// on stands in the topic.
func everything(ctx context.Context, admin *kadm.Client, topic string) (kadm.Offsets, error) {
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets topic=%s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets topic=%s: %w", topic, err)
	}
	offsets := kadm.Offsets{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(topic, end.Partition); ok && start.Offset < end.Offset-1 {
			offsets.AddOffset(topic, end.Partition, end.Offset-1, -1)
		}
	})
	return offsets, nil
}
