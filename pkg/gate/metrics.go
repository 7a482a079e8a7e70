package gate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	max, inFlight prometheus.Gauge
	total         prometheus.Counter
	duration      prometheus.Histogram
}

func newMetrics(prefix string, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		max: f.NewGauge(prometheus.GaugeOpts{
			Name: prefix + "_max",
			Help: "How many may pass the gate at once.",
		}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: prefix + "_in_flight",
			Help: "How many are inside the gate now.",
		}),
		total: f.NewCounter(prometheus.CounterOpts{
			Name: prefix + "_total",
			Help: "How many have entered the gate.",
		}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "_duration_seconds",
			Help:    "How long they waited at the gate.",
			Buckets: []float64{0.01, 0.1, 0.3, 0.6, 1, 2, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720},
		}),
	}
}
