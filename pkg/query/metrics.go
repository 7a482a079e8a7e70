package query

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	fallbacks prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		fallbacks: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "koios_query_engine_fallbacks_total",
			Help: "Queries that the engine asked for could not evaluate, so that Prometheus's engine did.",
		}),
	}
}
