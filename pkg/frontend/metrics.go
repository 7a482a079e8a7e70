package frontend

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the frontend counts.
type metrics struct {
	splits                     prometheus.Counter
	retries                    prometheus.Histogram
	uncacheable                prometheus.Counter
	unreadable                 prometheus.Counter
	cachedSteps, computedSteps prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"tripperware": "query_range"}, reg))
	steps := f.NewCounterVec(prometheus.CounterOpts{
		Name: "koios_frontend_steps_total", Help: "Steps of range queries, by where they came from.",
	}, []string{"from"})
	return &metrics{
		splits: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_frontend_split_queries_total", Help: "Parts that queries were split into.",
		}),
		retries: f.NewHistogram(prometheus.HistogramOpts{
			Name: "cortex_query_frontend_retries", Help: "How often a request was sent again.", Buckets: []float64{0, 1, 2, 3, 4, 5},
		}),
		uncacheable: f.NewCounter(prometheus.CounterOpts{
			Name: "koios_frontend_uncacheable_queries_total", Help: "Queries whose answers are not for keeping.",
		}),
		unreadable: f.NewCounter(prometheus.CounterOpts{
			Name: "koios_frontend_unreadable_entries_total", Help: "Entries of the results cache that could not be read and were dropped.",
		}),
		cachedSteps:   steps.WithLabelValues("cache"),
		computedSteps: steps.WithLabelValues("querier"),
	}
}
