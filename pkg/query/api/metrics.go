package api

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/query"
)

type metrics struct {
	timespan prometheus.Histogram
	duration *prometheus.HistogramVec

	seriesLE, samplesLE []float64
}

func newMetrics(cfg *Config, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	const hour, day = 3600.0, 24 * 3600.0
	return &metrics{
		timespan: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "thanos_query_range_requested_timespan_duration_seconds",
			Help:    "Time between start and end of range queries, in seconds.",
			Buckets: []float64{hour / 4, hour, 6 * hour, 12 * hour, day, 2 * day, 7 * day, 30 * day, 90 * day, 180 * day, 365 * day},
		}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "thanos_store_api_query_duration_seconds",
			Help:    "Time to evaluate queries, by the least bounds over the series and samples read from stores.",
			Buckets: cfg.DurationQuantiles,
		}, []string{"series_le", "samples_le", "tenant"}),
		seriesLE:  cfg.SeriesQuantiles,
		samplesLE: cfg.SampleQuantiles,
	}
}

func (m *metrics) observe(d time.Duration, f query.Fetched, tenant string) {
	m.duration.WithLabelValues(leastBound(m.seriesLE, f.Series), leastBound(m.samplesLE, f.Samples), tenant).Observe(d.Seconds())
}

// leastBound writes the least of the rising bounds that n does not exceed, as Prometheus writes them.
func leastBound(bounds []float64, n int64) string {
	for _, b := range bounds {
		if float64(n) <= b {
			return strconv.FormatFloat(b, 'f', -1, 64)
		}
	}
	return strconv.FormatFloat(math.Inf(1), 'f', -1, 64)
}
