package apply

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/progress"
	"github.com/tributarydb/tributary/internal/state"
)

// metrics counts what the service does. All are per process.
type metrics struct {
	events     *prometheus.CounterVec
	documents  prometheus.Counter
	bytes      prometheus.Counter
	batches    prometheus.Counter
	batchTime  prometheus.Histogram
	retries    prometheus.Counter
	lost       prometheus.Counter
	unexpected prometheus.Counter
	barriers   prometheus.Counter
	refreshes  prometheus.Counter
	reloads    prometheus.Counter
	skipped    prometheus.Counter
	// pendingRefreshes and pendingReloads are what is needed whole and has not
	// come.
	pendingRefreshes, pendingReloads prometheus.Gauge

	partitions prometheus.Gauge
	failed     prometheus.Gauge
	builds     prometheus.Gauge
	letters    prometheus.Counter
	dead       prometheus.Gauge
	// barrierWait is set by the report.
	barrierWait prometheus.Gauge
	queued      prometheus.GaugeFunc
	lag         prometheus.Gauge

	// What follows is set by the surveyor.
	load                                    *progress.Metrics
	serverBuilds, serverBuildShare          prometheus.Gauge
	indexCollections, indexCollectionsBuilt prometheus.Gauge
	deferredIndexes                         *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer, destination, group string, queued func() float64) (*metrics, error) {
	const space, part = "tributary", "apply"
	labels := prometheus.Labels{"destination": destination, "group": group}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Subsystem: part, Name: name, Help: help, ConstLabels: labels})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: space, Subsystem: part, Name: name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: space, Subsystem: part, Name: "events_total", Help: "Change events that took effect, by operation.", ConstLabels: labels,
		}, []string{"op"}),
		documents: counter("documents_total", "Documents of full loads that were written."),
		bytes:     counter("bytes_total", "Bytes of records that took effect."),
		batches:   counter("batches_total", "Batches that took effect."),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: space, Subsystem: part, Name: "batch_seconds", Help: "Time from the first try of a batch until it took effect.",
			ConstLabels: labels, Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		retries:          counter("retries_total", "Tries that failed and were repeated."),
		lost:             counter("lost_partitions_total", "Partitions found to belong to another owner."),
		unexpected:       counter("unexpected_batches_total", "Batches that met other documents than the events said, and were written after looking everything up."),
		barriers:         counter("barriers_total", "Barriers passed, counted per partition."),
		partitions:       gauge("partitions", "Partitions that this process owns."),
		barrierWait:      gauge("barrier_wait_seconds", "How long partitions of this process have waited at a barrier by now; zero where none waits."),
		letters:          counter("dead_letters_total", "Events that went to the dead-letter topic."),
		dead:             gauge("dead_documents", "Documents of the group that wait for an image because of a dead letter, without those that were discarded."),
		failed:           gauge("failed_partitions", "Partitions of this process that stopped because of an event that cannot be applied."),
		builds:           gauge("index_builds", "Index builds behind their barriers that this process looks after."),
		lag:              gauge("lag_seconds", "Age of the oldest watermark among this process's partitions."),
		refreshes:        counter("refreshes_total", "Documents that were asked for whole."),
		reloads:          counter("reloads_total", "Collections that were asked for whole."),
		skipped:          counter("skipped_events_total", "Change events passed over because the whole document or collection was asked for."),
		pendingRefreshes: gauge("pending_refreshes", "Documents that are needed whole and have not come yet."),
		pendingReloads:   gauge("pending_reloads", "Collections that are needed whole and have not come yet."),
	}
	m.load = progress.NewMetrics(part, labels, state.LoadPlanning, state.LoadLoading, state.LoadIndexes, state.LoadCatchingUp, state.LoadDone)
	m.serverBuilds = gauge("destination_index_builds", "Index builds that the destination's server shows as under way, whoever began them.")
	m.serverBuildShare = gauge("destination_index_build_ratio", "Least share, 0 to 1, that one of them has done of its present step; 1 where there is none.")
	m.indexCollections = gauge("index_collections", "Collections of the load whose indexes this process builds.")
	m.indexCollectionsBuilt = gauge("index_collections_built", "Those of them whose indexes are built.")
	m.deferredIndexes = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: space, Subsystem: part, Name: "deferred_indexes", Help: "Indexes that wait for finalize, by reason.", ConstLabels: labels,
	}, []string{"reason"})
	for _, reason := range []string{deferredUnique, deferredTTL, deferredFailed} {
		m.deferredIndexes.WithLabelValues(reason)
	}
	m.queued = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: space, Subsystem: part, Name: "queued_bytes", Help: "Bytes fetched and not yet taken.", ConstLabels: labels,
	}, queued)
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.events, m.documents, m.bytes, m.batches, m.batchTime, m.retries, m.lost, m.unexpected, m.barriers, m.barrierWait, m.refreshes, m.reloads, m.skipped,
		m.pendingRefreshes, m.pendingReloads, m.partitions, m.failed, m.builds, m.letters, m.dead, m.queued, m.lag,
		m.serverBuilds, m.serverBuildShare, m.indexCollections, m.indexCollectionsBuilt, m.deferredIndexes,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, m.load.Register(registerer)
}

func (m *metrics) count(op event.Op, n int) { m.events.WithLabelValues(string(op)).Add(float64(n)) }
