package progress

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tributarydb/tributary/internal/state"
)

// Metrics shows a load's totals; single collections are for the status alone.
// It is safe for concurrent use.
type Metrics struct {
	documents, documentsTotal, bytes, bytesTotal, chunks, chunksTotal, collections, collectionsTotal, eta prometheus.Gauge

	phase *prometheus.GaugeVec
	// phases are those that the side passes.
	phases []string
}

// NewMetrics makes the gauges tributary_SIDE_load_…; phases are those that the
// side passes.
func NewMetrics(side string, labels prometheus.Labels, phases ...string) *Metrics {
	opts := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "tributary", Subsystem: side, Name: "load_" + name, Help: help, ConstLabels: labels}
	}
	gauge := func(name, help string) prometheus.Gauge { return prometheus.NewGauge(opts(name, help)) }
	m := &Metrics{
		documents:        gauge("documents_done", "Documents of the load that are done, by all processes together."),
		documentsTotal:   gauge("documents", "Documents of the load: an estimate that is put right as chunks end."),
		bytes:            gauge("bytes_done", "Bytes of documents of the load that are done."),
		bytesTotal:       gauge("bytes", "Bytes of documents of the load: an estimate that is put right as chunks end."),
		chunks:           gauge("chunks_done", "Chunks of the load that are done."),
		chunksTotal:      gauge("chunks", "Chunks of the load."),
		collections:      gauge("collections_done", "Collections of the load that are done."),
		collectionsTotal: gauge("collections", "Collections of the load."),
		eta:              gauge("eta_seconds", "Time that the load will go on at the rate of the last minute; -1 where that is not known."),
		phase:            prometheus.NewGaugeVec(opts("phase", "1 for the load's present phase, 0 for the others."), []string{"phase"}),
		phases:           phases,
	}
	m.eta.Set(-1)
	for _, phase := range phases {
		m.phase.WithLabelValues(phase)
	}
	return m
}

// Register registers the gauges; r may be nil.
func (m *Metrics) Register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		m.documents, m.documentsTotal, m.bytes, m.bytesTotal, m.chunks, m.chunksTotal, m.collections, m.collectionsTotal, m.eta, m.phase,
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register load metrics: %w", err)
		}
	}
	return nil
}

// Set shows a progress.
func (m *Metrics) Set(p *state.Progress) {
	for _, g := range []struct {
		done, total prometheus.Gauge
		share       state.Share
	}{
		{m.documents, m.documentsTotal, p.Documents},
		{m.bytes, m.bytesTotal, p.Bytes},
		{m.chunks, m.chunksTotal, p.Chunks},
		{m.collections, m.collectionsTotal, p.Collections},
	} {
		g.done.Set(float64(g.share.Done))
		g.total.Set(float64(g.share.Total))
	}
	eta := -1.0
	if p.ETASeconds != nil {
		eta = *p.ETASeconds
	}
	m.eta.Set(eta)
	for _, phase := range m.phases {
		m.phase.WithLabelValues(phase).Set(0)
	}
	if slices.Contains(m.phases, p.Phase) {
		m.phase.WithLabelValues(p.Phase).Set(1)
	}
}
