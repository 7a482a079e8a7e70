package cache

import (
	"github.com/groupcache/groupcache-go/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// groupMetrics are thanos_cache_groupcache_*, without a name, as there they have none. What the library counts is read
// from it at each scrape.
type groupMetrics struct {
	gets, backendLoads                              prometheus.Counter
	loads, peerLoads, peerLoadErrors, backendErrors prometheus.Counter
	server                                          *groupServer

	hits, items, bytes, evictions *prometheus.Desc
}

var groupCaches = map[string]groupcache.CacheType{"main": groupcache.MainCache, "hot": groupcache.HotCache}

func newGroupMetrics(s *groupServer, reg prometheus.Registerer) *groupMetrics {
	const prefix = "thanos_cache_groupcache_"
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	m := &groupMetrics{
		gets:           counter("get_requests_total", "Keys asked for by this process."),
		loads:          counter("loads_total", "Keys asked for that were not in the memory of this process."),
		peerLoads:      counter("peer_loads_total", "Keys found in the memory of a peer."),
		peerLoadErrors: counter("peer_load_errors_total", "Keys that a peer was asked for and did not answer about."),
		backendLoads:   counter("backend_loads_total", "Keys that nobody had and that were read from the storage."),
		backendErrors:  counter("backend_load_errors_total", "Always 0: the storage is read by whoever asks for a key."),
		server:         s,
		hits:           prometheus.NewDesc(prefix+"hits_total", "Keys found in the memory of this process.", []string{"type"}, nil),
		items:          prometheus.NewDesc(prefix+"items", "Items in the memory of this process.", []string{"cache"}, nil),
		bytes:          prometheus.NewDesc(prefix+"bytes", "Bytes of the items in the memory of this process.", []string{"cache"}, nil),
		evictions:      prometheus.NewDesc(prefix+"evictions_total", "Items forgotten to make room for others.", []string{"cache"}, nil),
	}
	f.NewGauge(prometheus.GaugeOpts{Name: prefix + "max_bytes", Help: "Bytes that the cache may take in this process."}).Set(float64(s.cfg.MaxSize))
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *groupMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.hits
	ch <- m.items
	ch <- m.bytes
	ch <- m.evictions
}

// Collect implements prometheus.Collector.
func (m *groupMetrics) Collect(ch chan<- prometheus.Metric) {
	for name, typ := range groupCaches {
		st := m.server.group.CacheStats(typ)
		ch <- prometheus.MustNewConstMetric(m.hits, prometheus.CounterValue, float64(st.Hits), name)
		ch <- prometheus.MustNewConstMetric(m.items, prometheus.GaugeValue, float64(st.Items), name)
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(st.Bytes), name)
		ch <- prometheus.MustNewConstMetric(m.evictions, prometheus.CounterValue, float64(st.Evictions), name)
	}
}
