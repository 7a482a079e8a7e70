package bucket

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	kept "github.com/koios-metrics/koios/pkg/cache"
)

// itemType is a kind of thing that the index cache keeps. The texts are words of the configuration, and values of the
// label "item_type".
type itemType int

const (
	postingsItem itemType = iota // a posting list, as it stands in the index
	expandedItem                 // the series of a block that matchers select: see expanded.go
	seriesItem                   // index entries of neighbouring series: see entries.go
	itemTypes
)

func (t itemType) String() string { return IndexCacheItems[t] }

// IndexCacheItems are the names of what the index cache keeps.
var IndexCacheItems = [...]string{"Postings", "ExpandedPostings", "Series"}

// cacheKey names something of a block: where it is in the index, or a hash of what was asked.
type cacheKey struct {
	kind  itemType
	block ulid.ULID
	at    uint64
}

func (k cacheKey) remote() string { return fmt.Sprintf("%c:%s:%d", "PES"[k.kind], k.block, k.at) }

// indexCache keeps parts of indexes in memory, or in a cache outside of this process. Its methods may be called in
// parallel. What it hands out is shared and must not be changed.
type indexCache struct {
	lru     *lru
	outside kept.Cache // nil: what is kept is in memory
	enabled [itemTypes]bool
	metrics *cacheMetrics
}

func newIndexCache(cfg Config, reg prometheus.Registerer) *indexCache {
	l := newLRU(cfg.IndexCacheBytesMax, cfg.IndexCacheItemBytesMax)
	c := &indexCache{lru: l, outside: cfg.IndexCache, metrics: newCacheMetrics(l.max, l.itemMax, reg)}
	l.metrics = c.metrics
	for t := range itemTypes {
		c.enabled[t] = (c.outside != nil || l.max > 0) && (len(cfg.IndexCacheItems) == 0 || slices.Contains(cfg.IndexCacheItems, t.String()))
	}
	return c
}

// keeps tells whether things of a kind are kept at all.
func (c *indexCache) keeps(t itemType) bool { return c.enabled[t] }

// fetched is what a cache has, nil if there is nothing. What comes from outside is not trusted yet.
type fetched struct {
	data   []byte
	remote bool
}

// fetch looks for things of one kind.
func (c *indexCache) fetch(ctx context.Context, keys []cacheKey, tenant string) []fetched {
	all := make([]fetched, len(keys))
	if len(keys) == 0 || !c.keeps(keys[0].kind) {
		return all
	}
	if c.outside == nil {
		c.lru.get(keys, all)
		return all
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.remote()
	}
	start := time.Now()
	for i, v := range c.outside.Fetch(ctx, names) {
		all[i] = fetched{v, v != nil}
	}
	c.metrics.fetchDuration.WithLabelValues(keys[0].kind.String(), tenant).Observe(time.Since(start).Seconds())
	return all
}

// count notes how many things of a kind were looked for and found.
func (c *indexCache) count(t itemType, tenant string, asked, found int) {
	if c.keeps(t) {
		c.metrics.requests.WithLabelValues(t.String(), tenant).Add(float64(asked))
		c.metrics.hits.WithLabelValues(t.String(), tenant).Add(float64(found))
	}
}

// wants tells whether something of this length would be kept; if it is too long, that is counted.
func (c *indexCache) wants(t itemType, length int) bool {
	if !c.keeps(t) {
		return false
	}
	if c.outside == nil && int64(length)+cacheEntryOverhead > c.lru.itemMax {
		c.metrics.overflowed.WithLabelValues(t.String()).Inc()
		return false
	}
	return true
}

// keep keeps something that is wanted. The bytes belong to the cache from then on.
func (c *indexCache) keep(k cacheKey, data []byte, tenant string) {
	if c.outside == nil {
		c.lru.put(k, data)
		return
	}
	c.metrics.storedBytes.WithLabelValues(k.kind.String(), tenant).Observe(float64(len(data)))
	c.outside.Store(kept.Entry{Key: k.remote(), Value: data})
}

const (
	// What an entry takes beside its bytes: the key twice, the element of the list, the slot of the map.
	cacheEntryOverhead = 176
	// An entry takes no more than this part of the cache where nothing else is said, so that one list does not push out
	// all others.
	cacheItemPart = 8
)

// lru keeps things in memory and forgets those that were not used for the longest time.
type lru struct {
	max, itemMax int64
	metrics      *cacheMetrics

	mu    sync.Mutex
	size  int64
	sizes [itemTypes]int64
	items map[cacheKey]*list.Element
	order *list.List // the one used last in front
}

type lruItem struct {
	key  cacheKey
	data []byte
}

func (i *lruItem) size() int64 { return int64(len(i.data)) + cacheEntryOverhead }

// newLRU makes a cache of sizeMax bytes; one of 0 keeps nothing. Things of more than itemMax bytes are not kept; 0 is
// a part of sizeMax.
func newLRU(sizeMax, itemMax int64) *lru {
	if itemMax == 0 {
		itemMax = sizeMax / cacheItemPart
	}
	return &lru{max: sizeMax, itemMax: min(itemMax, sizeMax), items: map[cacheKey]*list.Element{}, order: list.New()}
}

// get fills in what is there.
func (c *lru) get(keys []cacheKey, all []fetched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range keys {
		if e := c.items[k]; e != nil {
			c.order.MoveToFront(e)
			all[i].data = e.Value.(*lruItem).data
		}
	}
}

// put keeps something of itemMax bytes at most.
func (c *lru) put(k cacheKey, data []byte) {
	item := &lruItem{k, data}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.items[k]; old != nil {
		c.remove(old)
	}
	for c.size+item.size() > c.max {
		oldest := c.order.Back()
		c.metrics.evicted.WithLabelValues(oldest.Value.(*lruItem).key.kind.String()).Inc()
		c.remove(oldest)
	}
	c.items[k] = c.order.PushFront(item)
	c.metrics.added.WithLabelValues(k.kind.String()).Inc()
	c.changed(item, 1)
}

func (c *lru) remove(e *list.Element) {
	item := c.order.Remove(e).(*lruItem)
	delete(c.items, item.key)
	c.changed(item, -1)
}

func (c *lru) changed(item *lruItem, sign int64) {
	t := item.key.kind
	c.size += sign * item.size()
	c.sizes[t] += sign * item.size()
	c.metrics.items.WithLabelValues(t.String()).Add(float64(sign))
	c.metrics.itemsBytes.WithLabelValues(t.String()).Add(float64(sign * int64(len(item.data))))
	c.metrics.totalSize.WithLabelValues(t.String()).Set(float64(c.sizes[t]))
}
