package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// memoryMetrics are the MemoryEvents of a cache that is nothing more than that.
type memoryMetrics struct {
	requests, hits, expired    prometheus.Counter
	added, evicted, overflowed prometheus.Counter
	items, bytes, total        prometheus.Gauge
}

func newMemoryMetrics(name string, cfg MemoryConfig, reg prometheus.Registerer) *memoryMetrics {
	f := promauto.With(reg)
	labels := prometheus.Labels{"name": name}
	counter := func(n, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "thanos_cache_inmemory_" + n, Help: help, ConstLabels: labels})
	}
	gauge := func(n, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "thanos_cache_inmemory_" + n, Help: help, ConstLabels: labels})
	}
	m := &memoryMetrics{
		requests:   counter("requests_total", "Keys looked for in the cache."),
		hits:       counter("hits_total", "Keys found in the cache."),
		expired:    counter("hits_on_expired_data_total", "Keys found in the cache whose time was over."),
		added:      counter("items_added_total", "Items put into the cache."),
		evicted:    counter("items_evicted_total", "Items forgotten to make room for others."),
		overflowed: counter("items_overflowed_total", "Items too large for the cache."),
		items:      gauge("items", "Items in the cache."),
		bytes:      gauge("items_size_bytes", "Bytes of the items in the cache."),
		total:      gauge("total_size_bytes", "Bytes of the items in the cache with what they take beside."),
	}
	gauge("max_size_bytes", "Bytes that the cache may take.").Set(float64(cfg.BytesMax))
	gauge("max_item_size_bytes", "Bytes that one item of the cache may take.").Set(float64(cfg.ItemBytesMax))
	return m
}

// Requested implements MemoryEvents.
func (m *memoryMetrics) Requested(_ string, found, expired bool) {
	m.requests.Inc()
	if found {
		m.hits.Inc()
	}
	if expired {
		m.expired.Inc()
	}
}

// Added implements MemoryEvents.
func (m *memoryMetrics) Added(_ string, bytes, total int64) {
	m.added.Inc()
	m.items.Inc()
	m.bytes.Add(float64(bytes))
	m.total.Add(float64(total))
}

// Removed implements MemoryEvents.
func (m *memoryMetrics) Removed(_ string, bytes, total int64, evicted bool) {
	if evicted {
		m.evicted.Inc()
	}
	m.items.Dec()
	m.bytes.Sub(float64(bytes))
	m.total.Sub(float64(total))
}

// Overflowed implements MemoryEvents.
func (m *memoryMetrics) Overflowed(string) { m.overflowed.Inc() }
