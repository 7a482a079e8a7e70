package server

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The reasons that requests are dropped for.
const (
	droppedSeries = "series"
	droppedChunks = "chunks"
)

type metrics struct {
	series  prometheus.Histogram
	chunks  prometheus.Histogram
	pending prometheus.Gauge
	dropped *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		series: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "thanos_store_server_series_requested",
			Help:    "Number of series sent for a Series call.",
			Buckets: prometheus.ExponentialBuckets(1, 10, 7), // 1 to 1e6
		}),
		chunks: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "thanos_store_server_chunks_requested",
			Help:    "Number of chunks sent for a Series call.",
			Buckets: prometheus.ExponentialBuckets(1, 10, 9), // 1 to 1e8
		}),
		pending: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_store_server_pending_series_requests",
			Help: "Number of Series calls being answered.",
		}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "thanos_store_selects_dropped_total",
			Help: "Number of Series calls ended because their answer went over a limit.",
		}, []string{"reason"}),
	}
	m.dropped.WithLabelValues(droppedSeries)
	m.dropped.WithLabelValues(droppedChunks)
	return m
}
