package query

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	fallbacks *prometheus.CounterVec
	scans     *prometheus.CounterVec
	shadows   *prometheus.CounterVec
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
	m.shadows = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "koios_query_shadow_total",
		Help: "Queries answered by the fast engine that Prometheus's engine evaluated again afterwards, by what came out. Skipped are those for which there was no place, memory or time, and those whose data changed meanwhile.",
	}, []string{"result"})
	for _, result := range []string{shadowEqual, shadowDifferent, shadowFailed, shadowSkipped} {
		m.shadows.WithLabelValues(result)
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

// How shadow evaluations end.
const (
	shadowEqual     = "equal"
	shadowDifferent = "different"
	shadowFailed    = "failed"
	shadowSkipped   = "skipped"
)
