package prom

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	frames prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		frames: promauto.With(reg).NewHistogram(prometheus.HistogramOpts{
			Name:    "prometheus_store_received_frames",
			Help:    "Number of frames received per streamed remote read.",
			Buckets: prometheus.ExponentialBuckets(10, 10, 5),
		}),
	}
}
