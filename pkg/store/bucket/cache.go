package bucket

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	kept "github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// cacheKey names a posting list: its block, and where it starts in the index.
type cacheKey struct {
	block ulid.ULID
	off   int64
}

const (
	// What an entry takes beside its bytes: the key twice, the element of the list, the slot of the map.
	cacheEntryOverhead = 160
	// An entry takes no more than this part of the cache, so that one list does not push out all others.
	cacheItemPart = 8
	// What this cache keeps, as a value of the label "item_type".
	cachedPostings = "Postings"
)

// cache keeps posting lists in memory and forgets those that were not used for the longest time. Its methods may be
// called in parallel. What it hands out is shared and must not be changed.
type cache struct {
	max, itemMax int64
	metrics      *cacheMetrics

	mu    sync.Mutex
	size  int64
	items map[cacheKey]*list.Element
	order *list.List // the one used last in front
}

type cacheItem struct {
	key  cacheKey
	data []byte
}

func (i *cacheItem) size() int64 { return int64(len(i.data)) + cacheEntryOverhead }

type cacheMetrics struct {
	requests, hits               *prometheus.CounterVec
	added, evicted, overflowed   prometheus.Counter
	items, itemsBytes, totalSize prometheus.Gauge
	fetchDuration, storedBytes   *prometheus.HistogramVec
}

func newCacheMetrics(sizeMax, itemMax int64, reg prometheus.Registerer) *cacheMetrics {
	const prefix = "thanos_store_index_cache_"
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, []string{"item_type"}).WithLabelValues(cachedPostings)
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"item_type"}).WithLabelValues(cachedPostings)
	}
	counters := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"item_type", "tenant"})
	}
	m := &cacheMetrics{
		requests:   counters("requests_total", "Items looked for in the index cache."),
		hits:       counters("hits_total", "Items found in the index cache."),
		added:      counter("items_added_total", "Items put into the index cache."),
		evicted:    counter("items_evicted_total", "Items forgotten to make room for others."),
		overflowed: counter("items_overflowed_total", "Items too large for the index cache."),
		items:      gauge("items", "Items in the index cache."),
		itemsBytes: gauge("items_size_bytes", "Bytes of the items in the index cache."),
		totalSize:  gauge("total_size_bytes", "Bytes of the items in the index cache with what they take beside."),
	}
	f.NewGauge(prometheus.GaugeOpts{Name: prefix + "max_size_bytes", Help: "Bytes that the index cache may take."}).Set(float64(sizeMax))
	f.NewGauge(prometheus.GaugeOpts{Name: prefix + "max_item_size_bytes", Help: "Bytes that one item of the index cache may take."}).Set(float64(itemMax))
	m.fetchDuration = f.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "fetch_duration_seconds", Help: "Time taken to ask a cache in another process, in seconds.",
		Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.6, 1, 3},
	}, []string{"item_type", "tenant"})
	m.storedBytes = f.NewHistogramVec(prometheus.HistogramOpts{
		Name: prefix + "stored_data_size_bytes", Help: "Bytes of items that were put into a cache in another process.", Buckets: bytesBuckets,
	}, []string{"item_type", "tenant"})
	m.fetchDuration.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	m.storedBytes.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	m.requests.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	m.hits.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	return m
}

// newCache makes a cache of sizeMax bytes; one of 0 keeps nothing.
func newCache(sizeMax int64, reg prometheus.Registerer) *cache {
	itemMax := sizeMax / cacheItemPart
	return &cache{max: sizeMax, itemMax: itemMax, metrics: newCacheMetrics(sizeMax, itemMax, reg), items: map[cacheKey]*list.Element{}, order: list.New()}
}

// fetched is a posting list, nil if it is not there. What comes from outside is not trusted yet.
type fetched struct {
	data   []byte
	remote bool
}

func (k cacheKey) remote() string { return fmt.Sprintf("P:%s:%d", k.block, k.off) }

// fetch looks for posting lists in memory, or in a cache outside of this process if there is one.
func (c *cache) fetch(ctx context.Context, remote kept.Cache, keys []cacheKey, tenant string) []fetched {
	all := make([]fetched, len(keys))
	if remote == nil {
		for i, k := range keys {
			all[i].data = c.get(k, tenant)
		}
		return all
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.remote()
	}
	start := time.Now()
	c.metrics.requests.WithLabelValues(cachedPostings, tenant).Add(float64(len(keys)))
	hits := 0
	for i, v := range remote.Fetch(ctx, names) {
		if v != nil {
			all[i] = fetched{v, true}
			hits++
		}
	}
	c.metrics.hits.WithLabelValues(cachedPostings, tenant).Add(float64(hits))
	c.metrics.fetchDuration.WithLabelValues(cachedPostings, tenant).Observe(time.Since(start).Seconds())
	return all
}

// keep puts a posting list into memory, or into the cache outside. The bytes belong to the cache from then on.
func (c *cache) keep(remote kept.Cache, k cacheKey, data []byte, tenant string) {
	if remote == nil {
		c.put(k, data)
		return
	}
	c.metrics.storedBytes.WithLabelValues(cachedPostings, tenant).Observe(float64(len(data)))
	remote.Store(kept.Entry{Key: k.remote(), Value: data})
}

// get returns a posting list, nil if it is not there.
func (c *cache) get(k cacheKey, tenant string) []byte {
	if c.max <= 0 {
		return nil
	}
	c.metrics.requests.WithLabelValues(cachedPostings, tenant).Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.items[k]
	if e == nil {
		return nil
	}
	c.metrics.hits.WithLabelValues(cachedPostings, tenant).Inc()
	c.order.MoveToFront(e)
	return e.Value.(*cacheItem).data
}

// wants tells whether a posting list of this length would be kept.
func (c *cache) wants(length int) bool {
	if c.max <= 0 {
		return false
	}
	if int64(length)+cacheEntryOverhead > c.itemMax {
		c.metrics.overflowed.Inc()
		return false
	}
	return true
}

// put keeps a posting list that it wants. The bytes belong to the cache from then on.
func (c *cache) put(k cacheKey, data []byte) {
	item := &cacheItem{k, data}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items[k] != nil {
		return // somebody else was faster
	}
	for c.size+item.size() > c.max {
		oldest := c.order.Back()
		c.remove(oldest)
		c.metrics.evicted.Inc()
	}
	c.items[k] = c.order.PushFront(item)
	c.size += item.size()
	c.metrics.added.Inc()
	c.show(1, int64(len(data)))
}

func (c *cache) remove(e *list.Element) {
	item := c.order.Remove(e).(*cacheItem)
	delete(c.items, item.key)
	c.size -= item.size()
	c.show(-1, -int64(len(item.data)))
}

func (c *cache) show(items, bytes int64) {
	c.metrics.items.Add(float64(items))
	c.metrics.itemsBytes.Add(float64(bytes))
	c.metrics.totalSize.Set(float64(c.size))
}
