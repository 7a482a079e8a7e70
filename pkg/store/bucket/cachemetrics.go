package bucket

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/tenancy"
)

// cacheMetrics are those of the index cache. Requests and hits count series one by one; where items are counted, the
// entries of neighbouring series are one.
type cacheMetrics struct {
	requests, hits               *prometheus.CounterVec
	added, evicted, overflowed   *prometheus.CounterVec
	items, itemsBytes, totalSize *prometheus.GaugeVec
	fetchDuration, storedBytes   *prometheus.HistogramVec
	// Of references of series, which are kept as differences: what writing and checking them took, and the bytes that
	// they take in a posting list, and as they are kept.
	packed, packFailures, packSeconds *prometheus.CounterVec
	plainBytes, packedBytes           *prometheus.CounterVec
}

// What is done with references: values of the label "op".
const (
	packing   = "encode"
	unpacking = "decode"
)

func newCacheMetrics(sizeMax, itemMax int64, reg prometheus.Registerer) *cacheMetrics {
	const prefix = "thanos_store_index_cache_"
	byType, byTenant := []string{"item_type"}, []string{"item_type", "tenant"}
	f := promauto.With(reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, byType)
	}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	m := &cacheMetrics{
		requests:   counter("requests_total", "Items looked for in the index cache.", byTenant),
		hits:       counter("hits_total", "Items found in the index cache.", byTenant),
		added:      counter("items_added_total", "Items put into the index cache.", byType),
		evicted:    counter("items_evicted_total", "Items forgotten to make room for others.", byType),
		overflowed: counter("items_overflowed_total", "Items too large for the index cache.", byType),
		items:      gauge("items", "Items in the index cache."),
		itemsBytes: gauge("items_size_bytes", "Bytes of the items in the index cache."),
		totalSize:  gauge("total_size_bytes", "Bytes of the items in the index cache with what they take beside."),
		fetchDuration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "fetch_duration_seconds", Help: "Time taken to ask a cache in another process, in seconds.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.6, 1, 3},
		}, byTenant),
		storedBytes: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "stored_data_size_bytes", Help: "Bytes of items that were put into a cache in another process.", Buckets: bytesBuckets,
		}, byTenant),
	}
	postings := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_bucket_store_cached_postings_" + name, Help: help}, labels)
	}
	m.packed = postings("compressions_total", "Lists of series packed for the index cache, and lists of it that were looked into.", "op", "tenant")
	m.packFailures = postings("compression_errors_total", "Lists of series in the index cache that were damaged.", "op", "tenant")
	m.packSeconds = postings("compression_time_seconds_total", "Time taken to pack lists of series, and to check packed ones, in seconds.", "op", "tenant")
	m.plainBytes = postings("original_size_bytes_total", "Bytes of the lists of series before they were packed.", "tenant")
	m.packedBytes = postings("compressed_size_bytes_total", "Bytes of the lists of series once they were packed.", "tenant")
	for _, v := range []*prometheus.CounterVec{m.packed, m.packFailures, m.packSeconds} {
		for _, op := range []string{packing, unpacking} {
			v.WithLabelValues(op, tenancy.DefaultTenant)
		}
	}
	m.plainBytes.WithLabelValues(tenancy.DefaultTenant)
	m.packedBytes.WithLabelValues(tenancy.DefaultTenant)
	f.NewGauge(prometheus.GaugeOpts{Name: prefix + "max_size_bytes", Help: "Bytes that the index cache may take."}).Set(float64(sizeMax))
	f.NewGauge(prometheus.GaugeOpts{Name: prefix + "max_item_size_bytes", Help: "Bytes that one item of the index cache may take."}).Set(float64(itemMax))
	for _, t := range IndexCacheItems {
		for _, v := range []*prometheus.CounterVec{m.added, m.evicted, m.overflowed} {
			v.WithLabelValues(t)
		}
		for _, v := range []*prometheus.GaugeVec{m.items, m.itemsBytes, m.totalSize} {
			v.WithLabelValues(t)
		}
		for _, v := range []*prometheus.CounterVec{m.requests, m.hits} {
			v.WithLabelValues(t, tenancy.DefaultTenant)
		}
		for _, v := range []*prometheus.HistogramVec{m.fetchDuration, m.storedBytes} {
			v.WithLabelValues(t, tenancy.DefaultTenant)
		}
	}
	return m
}
