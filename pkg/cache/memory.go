package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// entryOverhead is what an entry in memory takes beside its key and value, in bytes: the element of the list, the item
// with its headers, and a slot of the map.
const entryOverhead = 200

// MemoryConfig bounds a cache in memory.
type MemoryConfig struct {
	// BytesMax bounds keys, values and what holds them, in bytes; 0 keeps nothing.
	BytesMax Bytes `yaml:"max_size"`
	// ItemBytesMax is the size past which a value is not kept, in bytes; 0 is half of BytesMax.
	ItemBytesMax Bytes `yaml:"max_item_size"`
	// ItemsMax bounds the number of entries; 0 is no bound.
	ItemsMax int `yaml:"-"`
}

// DefaultMemoryConfig is what holds where a configuration says nothing.
var DefaultMemoryConfig = MemoryConfig{BytesMax: 250 << 20}

// Validate tells what is wrong with the configuration.
func (c MemoryConfig) Validate() error {
	if c.ItemBytesMax > c.BytesMax {
		return fmt.Errorf("max_item_size: %d bytes are more than max_size, which is %d", c.ItemBytesMax, c.BytesMax)
	}
	return nil
}

func (c MemoryConfig) withDefaults() MemoryConfig {
	if c.ItemBytesMax == 0 {
		c.ItemBytesMax = c.BytesMax / 2
	}
	return c
}

// MemoryEvents are told what happens in a cache in memory. They are called while a lock is held: they must be quick
// and must not use the cache. Sizes are those of values, totals with key and overhead, in bytes.
type MemoryEvents interface {
	// Requested tells that a key was looked for.
	Requested(key string, found, expired bool)
	// Added and Removed tell of entries that come and go, one by one.
	Added(key string, bytes, totalBytes int64)
	Removed(key string, bytes, totalBytes int64, evicted bool)
	// Overflowed tells of a value that is too large to be kept.
	Overflowed(key string)
}

// Memory is a cache in the memory of the process. It forgets what was not used for the longest time.
//
// It is a list and a map under one lock, taken once for all keys of a Fetch. A library was measured in its place (otter
// v2.3): eight writers that replace each other's entries took it to 2.6 times its bound, and it stayed there.
type Memory struct {
	cfg    MemoryConfig
	events MemoryEvents

	mu    sync.Mutex
	total int64
	items map[string]*list.Element
	order *list.List // of *item, the one used last in front
}

type item struct {
	key     string
	value   []byte
	expires time.Time // zero: never
}

func totalBytes(key string, value []byte) int64 {
	return int64(len(key)) + int64(len(value)) + entryOverhead
}

// NewMemory makes a cache in memory with the metrics thanos_cache_inmemory_*, whose label "name" has the given value.
func NewMemory(name string, cfg MemoryConfig, reg prometheus.Registerer) (*Memory, error) {
	cfg = cfg.withDefaults()
	return NewMemoryWith(cfg, newMemoryMetrics(name, cfg, reg))
}

// NewMemoryWith makes a cache in memory that tells what happens.
func NewMemoryWith(cfg MemoryConfig, events MemoryEvents) (*Memory, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if events == nil {
		return nil, errors.New("BUG: a cache in memory needs somebody to tell what happens")
	}
	return &Memory{cfg: cfg, events: events, items: map[string]*list.Element{}, order: list.New()}, nil
}

// Fetch implements Cache.
func (m *Memory) Fetch(_ context.Context, keys []string) [][]byte {
	values := make([][]byte, len(keys))
	if m.cfg.BytesMax == 0 {
		return values
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, k := range keys {
		e := m.items[k]
		if e == nil {
			m.events.Requested(k, false, false)
			continue
		}
		it := e.Value.(*item)
		if !it.expires.IsZero() && !now.Before(it.expires) {
			m.events.Requested(k, false, true)
			m.remove(e, false)
			continue
		}
		m.order.MoveToFront(e)
		values[i] = it.value
		m.events.Requested(k, true, false)
	}
	return values
}

// Wants tells whether a value of so many bytes would be kept; if not, that is counted. It saves callers that have to
// copy a value first.
func (m *Memory) Wants(key string, bytes int) bool {
	if m.cfg.BytesMax == 0 {
		return false
	}
	if bytes > int(m.cfg.ItemBytesMax) || int64(len(key))+int64(bytes)+entryOverhead > int64(m.cfg.BytesMax) {
		m.events.Overflowed(key)
		return false
	}
	return true
}

// Store implements Cache.
func (m *Memory) Store(entries ...Entry) {
	for _, e := range entries {
		if !m.Wants(e.Key, len(e.Value)) {
			continue
		}
		it := &item{key: e.Key, value: e.Value}
		if it.value == nil {
			it.value = []byte{} // found and empty
		}
		if e.TTL > 0 {
			it.expires = time.Now().Add(e.TTL)
		}
		m.add(it)
	}
}

func (m *Memory) add(it *item) {
	total := totalBytes(it.key, it.value)
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.items[it.key]; old != nil {
		m.remove(old, false)
	}
	for m.total+total > int64(m.cfg.BytesMax) || m.cfg.ItemsMax > 0 && len(m.items) >= m.cfg.ItemsMax {
		m.remove(m.order.Back(), true)
	}
	m.items[it.key] = m.order.PushFront(it)
	m.total += total
	m.events.Added(it.key, int64(len(it.value)), total)
}

func (m *Memory) remove(e *list.Element, evicted bool) {
	it := m.order.Remove(e).(*item)
	delete(m.items, it.key)
	total := totalBytes(it.key, it.value)
	m.total -= total
	m.events.Removed(it.key, int64(len(it.value)), total, evicted)
}

// Close implements Cache.
func (m *Memory) Close() error { return nil }
