package snapshot

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/state"
)

// metrics are those of one process. The methods are safe for concurrent use.
type metrics struct {
	documents, bytes prometheus.Counter
	committedBytes   prometheus.Counter
	commits          prometheus.Histogram
	retries          prometheus.Counter
	partitions       prometheus.Gauge
	chunksDone       prometheus.Gauge
	chunksTotal      prometheus.Gauge
	progress         *progress.Metrics
}

// newMetrics makes the metrics and registers them; r may be nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tributary_snapshot_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tributary_snapshot_" + name, Help: help})
	}
	m := &metrics{
		documents:      counter("read_documents_total", "Documents read from the source by this process."),
		bytes:          counter("read_bytes_total", "Bytes of documents read from the source by this process."),
		committedBytes: counter("committed_bytes_total", "Encoded bytes of batches committed to Kafka by this process."),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_snapshot_transaction_seconds", Help: "Time from a transaction's first batch to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
		retries:     counter("retries_total", "Failures of source or broker that were tried again."),
		partitions:  gauge("owned_partitions", "Partitions of the chunks topic that this process owns."),
		chunksDone:  gauge("run_chunks_done", "Chunks of the run that are done, by whomever."),
		chunksTotal: gauge("run_chunks_total", "Chunks of the run."),
		progress:    progress.NewMetrics("snapshot", nil, state.LoadPlanning, state.LoadReading, state.LoadCatchingUp, state.LoadDone),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.documents, m.bytes, m.committedBytes, m.commits, m.retries, m.partitions, m.chunksDone, m.chunksTotal,
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register snapshot metrics: %w", err)
		}
	}
	return m, m.progress.Register(r)
}

func (m *metrics) read(documents, bytes int64) {
	m.documents.Add(float64(documents))
	m.bytes.Add(float64(bytes))
}

func (m *metrics) committed(bytes int, took time.Duration) {
	m.committedBytes.Add(float64(bytes))
	m.commits.Observe(took.Seconds())
}
