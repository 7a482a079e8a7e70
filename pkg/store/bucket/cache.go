package bucket

import (
	"container/list"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

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
	m.requests.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	m.hits.WithLabelValues(cachedPostings, tenancy.DefaultTenant)
	return m
}

// newCache makes a cache of sizeMax bytes; one of 0 keeps nothing.
func newCache(sizeMax int64, reg prometheus.Registerer) *cache {
	itemMax := sizeMax / cacheItemPart
	return &cache{max: sizeMax, itemMax: itemMax, metrics: newCacheMetrics(sizeMax, itemMax, reg), items: map[cacheKey]*list.Element{}, order: list.New()}
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
