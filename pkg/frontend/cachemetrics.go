package frontend

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/cache"
)

// cacheMetrics are those of a cache of answers, whatever it is made of.
type cacheMetrics struct {
	fetched, hits  prometheus.Counter
	duration       *prometheus.HistogramVec
	fetches, sends prometheus.Observer
}

func newCacheMetrics(reg prometheus.Registerer) *cacheMetrics {
	f := promauto.With(reg)
	size := f.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cortex_cache_value_size_bytes", Help: "Size of the entries of a response cache, in bytes.", Buckets: prometheus.ExponentialBuckets(1024, 4, 7),
	}, []string{"method"})
	m := &cacheMetrics{
		fetched: f.NewCounter(prometheus.CounterOpts{Name: "cortex_cache_fetched_keys_total", Help: "Keys looked for in a response cache."}),
		hits:    f.NewCounter(prometheus.CounterOpts{Name: "cortex_cache_hits_total", Help: "Keys found in a response cache."}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cortex_cache_request_duration_seconds", Help: "Time taken by calls of a response cache, in seconds.",
			Buckets: []float64{0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10},
		}, []string{"method", "status_code"}),
		fetches: size.WithLabelValues("fetch"),
		sends:   size.WithLabelValues("store"),
	}
	m.duration.WithLabelValues("fetch", "200")
	m.duration.WithLabelValues("store", "200")
	return m
}

// remoteCache is a cache in servers outside of this process.
type remoteCache interface {
	Servers() int
	Waiting() int
	Dropped() int64
	TooLarge() int64
}

// showRemote makes the metrics of caches outside of this process; named is a Registerer that adds the kind as a name. It
// returns what the time of calls is told to, nil if nothing is.
func showRemote(kind cache.Type, backend cache.Cache, reg, named prometheus.Registerer) *prometheus.HistogramVec {
	r, ok := backend.(remoteCache)
	if !ok {
		return nil
	}
	f, n := promauto.With(reg), promauto.With(named)
	n.NewGaugeFunc(prometheus.GaugeOpts{Name: "cortex_cache_background_queue_length", Help: "Entries that wait to be written to a response cache."},
		func() float64 { return float64(r.Waiting()) })
	n.NewCounterFunc(prometheus.CounterOpts{Name: "cortex_cache_dropped_background_writes_total", Help: "Entries not written to a response cache because too many waited."},
		func() float64 { return float64(r.Dropped()) })
	calls := prometheus.HistogramOpts{Help: "Time taken by calls of a response cache, in seconds.", Buckets: []float64{0.0001, 0.001, 0.01, 0.1, 1, 10}}
	switch kind {
	case cache.Memcached:
		memcached := prometheus.Labels{"name": "memcached"}
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "cortex_memcache_client_servers", Help: "Memcached servers known.", ConstLabels: memcached},
			func() float64 { return float64(r.Servers()) })
		f.NewCounterFunc(prometheus.CounterOpts{Name: "cortex_memcache_client_set_skip_total", Help: "Entries not written because they are too large.", ConstLabels: memcached},
			func() float64 { return float64(r.TooLarge()) })
		calls.Name = "cortex_memcache_request_duration_seconds"
	case cache.Redis:
		calls.Name = "cortex_rediscache_request_duration_seconds"
	default:
		return nil
	}
	h := n.NewHistogramVec(calls, []string{"method", "status_code"})
	h.WithLabelValues("fetch", "200")
	h.WithLabelValues("store", "200")
	return h
}

// countedCache counts what is asked of a cache.
type countedCache struct {
	cache.Cache
	metrics *cacheMetrics
	remote  *prometheus.HistogramVec // nil for a cache in this process
}

func (c *countedCache) took(method string, since time.Time) {
	seconds := time.Since(since).Seconds()
	c.metrics.duration.WithLabelValues(method, "200").Observe(seconds)
	if c.remote != nil {
		c.remote.WithLabelValues(method, "200").Observe(seconds)
	}
}

// uncounted is a cache for lookups that say nothing about how much is found of what is asked for.
func uncounted(c cache.Cache) cache.Cache {
	if counted, ok := c.(*countedCache); ok {
		return counted.Cache
	}
	return c
}

// Fetch implements cache.Cache.
func (c *countedCache) Fetch(ctx context.Context, keys []string) [][]byte {
	begin := time.Now()
	found := c.Cache.Fetch(ctx, keys)
	c.took("fetch", begin)
	c.metrics.fetched.Add(float64(len(keys)))
	for _, b := range found {
		if b != nil {
			c.metrics.hits.Inc()
			c.metrics.fetches.Observe(float64(len(b)))
		}
	}
	return found
}

// Store implements cache.Cache.
func (c *countedCache) Store(es ...cache.Entry) {
	begin := time.Now()
	c.Cache.Store(es...)
	c.took("store", begin)
	for i := range es {
		c.metrics.sends.Observe(float64(len(es[i].Value)))
	}
}

// memoryEvents are the metrics of a cache of answers in memory.
type memoryEvents struct {
	gets, misses, stale, added, addedNew, evicted prometheus.Counter
	entries, bytes                                prometheus.Gauge
	// replaced is the key whose entry goes to make room for another of the same key; expired the one whose time was over.
	replaced, expired string
}

func newMemoryEvents(reg prometheus.Registerer) *memoryEvents {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "querier_cache_" + name, Help: help})
	}
	return &memoryEvents{
		gets:     counter("gets_total", "Keys looked for in a response cache in memory."),
		misses:   counter("misses_total", "Keys not found in a response cache in memory."),
		stale:    counter("stale_gets_total", "Keys found in a response cache in memory whose time was over."),
		added:    counter("added_total", "Entries put into a response cache in memory."),
		addedNew: counter("added_new_total", "Entries put into a response cache in memory that replace no other."),
		evicted:  counter("evicted_total", "Entries forgotten to make room for others."),
		entries:  f.NewGauge(prometheus.GaugeOpts{Name: "querier_cache_entries", Help: "Entries of a response cache in memory."}),
		bytes:    f.NewGauge(prometheus.GaugeOpts{Name: "querier_cache_memory_bytes", Help: "Bytes that a response cache in memory takes."}),
	}
}

// Requested implements cache.MemoryEvents.
func (m *memoryEvents) Requested(key string, found, expired bool) {
	m.gets.Inc()
	if !found {
		m.misses.Inc()
	}
	if expired {
		m.stale.Inc()
		m.expired = key
	}
}

// Added implements cache.MemoryEvents.
func (m *memoryEvents) Added(key string, _, total int64) {
	m.added.Inc()
	if m.replaced != key {
		m.addedNew.Inc()
	}
	m.replaced = ""
	m.entries.Inc()
	m.bytes.Add(float64(total))
}

// Removed implements cache.MemoryEvents.
func (m *memoryEvents) Removed(key string, _, total int64, evicted bool) {
	switch {
	case evicted:
		m.evicted.Inc()
	case m.expired == key:
		m.expired = ""
	default:
		m.replaced = key
	}
	m.entries.Dec()
	m.bytes.Sub(float64(total))
}

// Overflowed implements cache.MemoryEvents.
func (m *memoryEvents) Overflowed(string) {}
