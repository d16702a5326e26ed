package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// manyCollections is a manifest of several MiB.
func manyCollections() *Manifest {
	m := &Manifest{Run: "r", State: RunLoading, Started: time.Unix(1, 0).UTC(), ChangeOffsets: []int64{1, 2}, SnapshotOffsets: []int64{3}, Chunks: 5000}
	for i := range 5000 {
		m.Collections = append(m.Collections, Collection{
			DB: "shop", Coll: fmt.Sprintf("c%04d", i), UUID: event.UUID{byte(i >> 8), byte(i)}, Options: []byte{5, 0, 0, 0, 0},
			Indexes: [][]byte{bytes.Repeat([]byte{byte(i)}, 100)}, Chunks: 1,
		})
	}
	return m
}

// TestManifestInParts writes a manifest that no record holds to a topic that
// takes small records, in one transaction, and reads it whole; also after the
// run's end, which writes the small record alone.
func TestManifestInParts(t *testing.T) {
	const most = 256 << 10
	broker := testenv.StandIn(t)
	cfg, topic := kafka.Config{Brokers: broker.Brokers, Log: zerolog.Nop()}, testenv.NewPipeline(t)+".state"
	compact, limit := "compact", fmt.Sprint(most)
	_, err := kadm.NewClient(newClient(t, cfg)).CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": &compact, "max.message.bytes": &limit}, topic)
	if err != nil {
		t.Fatal(err)
	}
	limits := &kafka.Limits{}
	client := newClient(t, cfg, kgo.TransactionalID(topic), limits.Option())
	if err := limits.Learn(t.Context(), client, topic); err != nil {
		t.Fatal(err)
	}
	write := func(m *Manifest, how kgo.TransactionEndTry) (n int) {
		t.Helper()
		records, err := ManifestRecords(topic, m, limits.Record(topic))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if size := len(r.Key) + len(r.Value); size > limits.Record(topic) {
				t.Fatalf("record %s has %d bytes", r.Key, size)
			}
		}
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		end(t, client, how)
		return len(records)
	}
	m := manyCollections()
	write(m, kgo.TryAbort)
	if _, found := load(t, cfg, topic).Manifest("r"); found {
		t.Fatal("a manifest that was not committed is there")
	}
	if n := write(m, kgo.TryCommit); n < 5 {
		t.Errorf("the manifest took %d records", n)
	}
	whole := func(want *Manifest) Manifest {
		t.Helper()
		got, _ := load(t, cfg, topic).Manifest("r")
		wanted, errWanted := json.Marshal(want.Collections)
		read, errRead := json.Marshal(got.Collections)
		if err := errors.Join(errWanted, errRead); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(wanted, read) || got.State != want.State || got.Parts == 0 {
			t.Fatalf("state %s, %d parts, %d collections", got.State, got.Parts, len(got.Collections))
		}
		return got
	}
	held := whole(m)
	held.State = RunComplete
	if n := write(&held, kgo.TryCommit); n != 1 {
		t.Errorf("the end of the run took %d records", n)
	}
	whole(&held)
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = Watch(ctx, cfg, topic, func(key string, value []byte) error {
		var got Manifest
		if err := json.Unmarshal(value, &got); err != nil || key != KeyRun("r") || len(got.Collections) != len(m.Collections) {
			return fmt.Errorf("heard %s with %d collections: %w", key, len(got.Collections), err)
		}
		if got.State == RunComplete {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestJoiner passes over a manifest whose parts are not there: the topic is
// being compacted, and the record comes again.
func TestJoiner(t *testing.T) {
	records, err := ManifestRecords("t", manyCollections(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	j := newJoiner()
	feed := func(list ...*kgo.Record) (whole int) {
		t.Helper()
		for _, r := range list {
			_, ok, err := j.add(string(r.Key), r.Value)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				whole++
			}
		}
		return whole
	}
	if n := feed(records[1:]...); n != 0 {
		t.Errorf("%d manifests without their first part", n)
	}
	if n := feed(records...); n != 1 {
		t.Errorf("%d manifests", n)
	}
	if _, _, err := j.add(prefixPart+"run/r/x", nil); err == nil {
		t.Error("a part without a number is taken")
	}
}
