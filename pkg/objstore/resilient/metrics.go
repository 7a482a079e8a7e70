package resilient

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
)

type metrics struct {
	retries, retriesWithheld          *prometheus.CounterVec
	hedges, hedgesWon, hedgesWithheld *prometheus.CounterVec
	resumed                           *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help string, ops ...string) *prometheus.CounterVec {
		c := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "koios_objstore_" + name, Help: help}, []string{"operation"})
		for _, op := range ops {
			c.WithLabelValues(op)
		}
		return c
	}
	retried := append([]string{objstore.OpIter}, hedged...)
	return &metrics{
		retries:         counters("retries_total", "Requests to object storage that were repeated because they failed.", retried...),
		retriesWithheld: counters("retries_withheld_total", "Requests to object storage that failed and were not repeated, because too many of the others failed too.", retried...),
		hedges:          counters("hedges_total", "Second requests to object storage, because the first was later than most.", hedged...),
		hedgesWon:       counters("hedges_won_total", "Second requests to object storage that were answered before the first.", hedged...),
		hedgesWithheld:  counters("hedges_withheld_total", "Late requests to object storage that were not asked a second time, because there were too many of them.", hedged...),
		resumed:         counters("resumed_bodies_total", "Bodies from object storage that broke off and were read on by another request.", objstore.OpGet, objstore.OpGetRange),
	}
}
