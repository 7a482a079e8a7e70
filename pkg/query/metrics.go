package query

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	fallbacks *prometheus.CounterVec
	scans     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		fallbacks: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "koios_query_engine_fallbacks_total",
			Help: "Queries that Prometheus's engine evaluated, as the engine asked for can't or is known to be wrong about them.",
		}, []string{"reason"}),
		scans: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "koios_query_streamed_aggregations_total",
			Help: "Aggregations that were evaluated series by series as they came from the stores, by how that ended: done, failed, or unfit data, over which the query was evaluated again the other way.",
		}, []string{"outcome"}),
	}
	for _, r := range routes() {
		m.fallbacks.WithLabelValues(r.name)
	}
	for _, outcome := range []string{scanDone, scanFailed, scanUnfit} {
		m.scans.WithLabelValues(outcome)
	}
	return m
}

// How scans end.
const (
	scanDone   = "done"
	scanFailed = "failed"
	scanUnfit  = "unfit"
)
