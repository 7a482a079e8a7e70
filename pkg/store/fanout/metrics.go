package fanout

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	emptyStreams                 prometheus.Counter
	hedges, overtaken, takeovers prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		hedges:    counter("koios_fanout_hedges_total", "Requests to a second endpoint that holds the same, because the first was late."),
		overtaken: counter("koios_fanout_overtaken_total", "Late endpoints that a second one was faster than."),
		takeovers: counter("koios_fanout_takeovers_total", "Requests to a second endpoint, because the first failed."),
		emptyStreams: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "thanos_proxy_store_empty_stream_responses_total",
			Help: "Answers of a single store that held no series.",
		}),
	}
}
