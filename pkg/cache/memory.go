package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// entryOverhead is what an entry in memory takes beside its key and value, in bytes: a node of the cache with two
// headers, its place in the queues, and a slot of the table.
const entryOverhead = 160

// entryBytesMax is the largest entry that can be weighed.
const entryBytesMax = 1<<31 - 1

// MemoryConfig bounds a cache in memory.
type MemoryConfig struct {
	// BytesMax bounds keys, values and what holds them, in bytes; 0 keeps nothing.
	BytesMax Bytes `yaml:"max_size"`
	// ItemBytesMax is the size past which a value is not kept, in bytes; 0 is half of BytesMax.
	ItemBytesMax Bytes `yaml:"max_item_size"`
}

// DefaultMemoryConfig is what holds where a configuration says nothing.
var DefaultMemoryConfig = MemoryConfig{BytesMax: 250 << 20, ItemBytesMax: 125 << 20}

// Validate tells what is wrong with the configuration.
func (c MemoryConfig) Validate() error {
	if c.ItemBytesMax > c.BytesMax {
		return fmt.Errorf("max_item_size: %d bytes are more than max_size, which is %d", c.ItemBytesMax, c.BytesMax)
	}
	return nil
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

// Memory is a cache in the memory of the process. It forgets what is used least, by age and frequency.
type Memory struct {
	cfg    MemoryConfig
	events MemoryEvents
	items  *otter.Cache[string, *item]
}

type item struct {
	value   []byte
	expires time.Time // zero: never
}

func totalBytes(key string, value []byte) int64 {
	return int64(len(key)) + int64(len(value)) + entryOverhead
}

// NewMemory makes a cache in memory with the metrics thanos_cache_inmemory_*, whose label "name" has the given value.
func NewMemory(name string, cfg MemoryConfig, reg prometheus.Registerer) (*Memory, error) {
	return NewMemoryWith(cfg, newMemoryMetrics(name, cfg, reg))
}

// NewMemoryWith makes a cache in memory that tells what happens.
func NewMemoryWith(cfg MemoryConfig, events MemoryEvents) (*Memory, error) {
	if cfg.ItemBytesMax == 0 {
		cfg.ItemBytesMax = cfg.BytesMax / 2
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if events == nil {
		return nil, errors.New("BUG: a cache in memory needs somebody to tell what happens")
	}
	m := &Memory{cfg: cfg, events: events}
	if cfg.BytesMax == 0 {
		return m, nil
	}
	items, err := otter.New(&otter.Options[string, *item]{
		MaximumWeight: uint64(cfg.BytesMax),
		Weigher:       func(k string, i *item) uint32 { return uint32(totalBytes(k, i.value)) },
		// What has to go goes within the call that is over the bound, so that the bound holds when it returns.
		Executor: func(f func()) { f() },
		OnAtomicDeletion: func(e otter.DeletionEvent[string, *item]) {
			m.events.Removed(e.Key, int64(len(e.Value.value)), totalBytes(e.Key, e.Value.value), e.Cause == otter.CauseOverflow)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a cache in memory: %w", err)
	}
	m.items = items
	return m, nil
}

// Fetch implements Cache.
func (m *Memory) Fetch(_ context.Context, keys []string) [][]byte {
	values := make([][]byte, len(keys))
	if m.items == nil {
		return values
	}
	for i, k := range keys {
		it, found := m.items.GetIfPresent(k)
		expired := found && !it.expires.IsZero() && !time.Now().Before(it.expires)
		if found && !expired {
			values[i] = it.value
		}
		m.events.Requested(k, found && !expired, expired)
	}
	return values
}

// Wants tells whether a value of so many bytes would be kept; if not, that is counted. It saves callers that have to
// copy a value first.
func (m *Memory) Wants(key string, bytes int) bool {
	if m.items == nil {
		return false
	}
	total := int64(len(key)) + int64(bytes) + entryOverhead
	if bytes > int(m.cfg.ItemBytesMax) || total > int64(m.cfg.BytesMax) || total > entryBytesMax {
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
		it := &item{value: e.Value}
		if it.value == nil {
			it.value = []byte{} // found and empty
		}
		if e.TTL > 0 {
			it.expires = time.Now().Add(e.TTL)
		}
		m.events.Added(e.Key, int64(len(e.Value)), totalBytes(e.Key, e.Value))
		m.items.Set(e.Key, it)
	}
}

// Close implements Cache.
func (m *Memory) Close() error {
	if m.items != nil {
		m.items.StopAllGoroutines()
	}
	return nil
}
