package capture

import "github.com/prometheus/client_golang/prometheus"

// metrics are the numbers of one service.
type metrics struct {
	entries      prometheus.Counter
	events       prometheus.Counter
	bytes        prometheus.Counter
	transactions prometheus.Counter
	watermarks   prometheus.Counter
	lives        prometheus.Counter
	queueBytes   prometheus.Gauge
	openBytes    prometheus.Gauge
	reread       prometheus.Gauge
	open         prometheus.Gauge
	openAge      prometheus.Gauge
	lag          prometheus.Gauge
	active       prometheus.Gauge
	oplogWindow  prometheus.Gauge
	oplogGrowth  prometheus.Gauge
	retention    prometheus.Gauge
	images       prometheus.Counter
	discarded    prometheus.Counter
	pending      prometheus.Gauge
	commit       prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	const namespace, subsystem = "tributary", "capture"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	m := &metrics{
		entries:      counter("entries_total", "Oplog entries passed, selected or not."),
		events:       counter("events_total", "Change events committed."),
		bytes:        counter("entry_bytes_total", "Bytes of oplog entries passed."),
		transactions: counter("transactions_total", "Kafka transactions committed."),
		watermarks:   counter("watermarks_total", "Watermarks committed."),
		lives:        counter("lives_total", "Times that capture began at its committed position."),
		queueBytes:   gauge("queue_bytes", "Bytes of entries and events under way."),
		openBytes:    gauge("open_transaction_bytes", "Bytes held of transactions of the source that are open over several entries."),
		open:         gauge("open_transactions", "Transactions of the source of which a part was read and not the end."),
		openAge:      gauge("open_transaction_age_seconds", "How far before the last entry passed the oldest open transaction began; 0 where none is open."),
		reread:       gauge("reread_seconds", "Stretch of the source's history that a restart reads again because a transaction is open."),
		lag:          gauge("lag_seconds", "Age of the last entry passed, 0 when nothing is waiting."),
		active:       gauge("active", "1 while this instance is the active capture, 0 while it stands by."),
		oplogWindow:  gauge("oplog_window_seconds", "How far back the source's oplog reaches once it is full, measured hourly; 0 where that is not known."),
		oplogGrowth:  gauge("oplog_growth_bytes_per_second", "How many bytes the source's oplog takes a second, over all that it holds."),
		images:       counter("refreshed_total", "Whole documents and reload events put into transactions because they were asked for."),
		discarded:    counter("refresh_discarded_total", "Reads of documents that were of no use because their collection changed meanwhile."),
		pending:      gauge("requests_pending", "Requests for whole documents taken over and not satisfied."),
		retention:    gauge("topic_retention_seconds", "The change topic's retention, stretched while a group is far behind; 0 where it is not looked after."),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "commit_seconds",
			Help: "Time to flush and commit a Kafka transaction.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if r != nil {
		r.MustRegister(m.entries, m.events, m.bytes, m.transactions, m.watermarks, m.lives,
			m.queueBytes, m.openBytes, m.open, m.openAge, m.reread, m.lag, m.active, m.oplogWindow, m.oplogGrowth, m.retention, m.commit,
			m.images, m.discarded, m.pending)
	}
	return m
}
