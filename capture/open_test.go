package capture

import (
	"context"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/testenv"
)

// TestOpenTransactionHoldsReadingBack: the position that is read from is the
// first fragment's until the end, that which is published goes on; and a
// transaction that began before the pipeline is found by its links.
func TestOpenTransactionHoldsReadingBack(t *testing.T) {
	s := newScript()
	before := s.chain(1, "before.")
	before.write(3, "partialTxn")
	before.write(3, "prepare")
	cfg := testConfig(t, testenv.StandIn(t), testenv.NewPipeline(t), s)
	report, err := state.NewReporter(state.ReporterConfig{Kafka: cfg.Kafka, Topic: route.TopicsOf(cfg.Pipeline).State, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ended, end := context.WithCancel(t.Context())
		end()
		if err := report.Run(ended); err != nil {
			t.Error(err)
		}
	}()
	cfg.Report = report
	from := s.last()
	service := start(t, cfg)
	until(t, cfg, from)
	open := s.chain(1, "open.")
	first := open.write(2, "partialTxn")
	open.write(2, "prepare")
	before.commit()
	until(t, cfg, s.insert("orders", 1))
	testenv.Eventually(t, time.Minute, func() error {
		want := &state.OpenTransactions{Count: 1, Oldest: time.Unix(int64(first.T), 0).UTC(), Session: hex.EncodeToString([]byte("open.")), Number: 1, Prepared: true}
		got := report.Status().Open
		ignored := cmpopts.IgnoreFields(state.OpenTransactions{}, "AgeSeconds", "HeldBytes")
		if diff := cmp.Diff(want, got, ignored); diff != "" {
			return fmt.Errorf("open transactions (-want +got):\n%s", diff)
		}
		return nil
	})
	service.stop()
	if p := position(t, cfg); p.ReadFrom.Time != first || event.CompareTimes(p.PublishedThrough.Time, s.last()) != 0 {
		t.Errorf("reads from %s, published through %s, want %v and %v", p.ReadFrom, p.PublishedThrough, first, s.last())
	}
	service = start(t, cfg)
	open.commit()
	until(t, cfg, s.insert("orders", 2))
	testenv.Eventually(t, time.Minute, func() error {
		if got := report.Status().Open; got != nil {
			return fmt.Errorf("still open: %+v", got)
		}
		return nil
	})
	service.stop()
	if p := position(t, cfg); p.ReadFrom != p.PublishedThrough {
		t.Errorf("reads from %s with nothing open, published through %s", p.ReadFrom, p.PublishedThrough)
	}
	checkExactlyOnce(t, cfg, s, from)
}
