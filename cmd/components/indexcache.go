package components

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/objstore/caching"
	"github.com/koios-metrics/koios/pkg/store/bucket"
)

// indexCacheConfig is the configuration of the index cache.
type indexCacheConfig struct {
	// bytes and itemBytes are the memory that the cache, and one part of an index in it, may take; 0 itemBytes is
	// unsaid.
	bytes, itemBytes uint64
	// items are what is kept; empty is everything.
	items []string
	// remote is the cache in another process; nil: it is in memory.
	remote  *cache.Backend
	unknown []string // keys that have no effect
}

// parseIndexCache reads the configuration of the index cache; without one it is in memory, and takes fallback bytes.
func parseIndexCache(text []byte, fallback uint64) (indexCacheConfig, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return indexCacheConfig{bytes: fallback}, nil
	}
	var top struct {
		Type         string        `yaml:"type"`
		Config       any           `yaml:"config"`
		EnabledItems []string      `yaml:"enabled_items"`
		TTL          time.Duration `yaml:"ttl"`
	}
	if err := yaml.UnmarshalStrict(text, &top); err != nil {
		return indexCacheConfig{}, fmt.Errorf("parse index cache config: %w", err)
	}
	for _, item := range top.EnabledItems {
		if !slices.Contains(bucket.IndexCacheItems[:], item) {
			return indexCacheConfig{}, fmt.Errorf("enabled_items has %q: want %s", item, strings.Join(bucket.IndexCacheItems[:], ", "))
		}
	}
	backend, unknown, err := cache.ParseBackend(top.Type, top.Config, cache.InMemory, cache.Memcached, cache.Redis)
	if err != nil {
		return indexCacheConfig{}, fmt.Errorf("index cache config: %w", err)
	}
	c := indexCacheConfig{items: top.EnabledItems, unknown: unknown}
	if backend.Type != cache.InMemory {
		if top.TTL > 0 {
			backend.Memcached.Expiration, backend.Redis.Expiration = top.TTL, top.TTL
		}
		c.remote = &backend
		return c, nil
	}
	m := backend.Memory
	if m.BytesMax <= 0 {
		m.BytesMax = cache.DefaultMemoryConfig.BytesMax
	}
	c.bytes = uint64(m.BytesMax)
	c.itemBytes = uint64(max(m.ItemBytesMax, 0))
	return c, nil
}

// openIndexCache opens the index cache in another process, nil if it is in memory. origin is what the bucket usually
// takes.
func openIndexCache(c indexCacheConfig, p *process, origin func() time.Duration) (cache.Cache, error) {
	cache.WarnUnknown(p.logger, "index cache", c.unknown)
	if c.remote == nil {
		return nil, nil
	}
	kept, err := cache.New(context.Background(), "index-cache", *c.remote, cache.Options{Logger: p.logger, Reg: p.reg, Origin: origin})
	if err != nil {
		return nil, fmt.Errorf("index cache: %w", err)
	}
	p.close(kept.Close)
	return kept, nil
}

// cached puts the configured cache before a bucket. Keys in shared servers carry the bucket's configuration, so
// that two buckets with objects of the same name may share one.
func (c *storeFlags) cached(p *process, bkt objstore.Bucket, origin func() time.Duration) (objstore.Bucket, error) {
	text, err := c.cachingBucket.read()
	if err != nil || len(strings.TrimSpace(string(text))) == 0 {
		return bkt, err
	}
	cfg, backend, unknown, err := caching.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.cachingBucket.name, err)
	}
	cache.WarnUnknown(p.logger, "caching bucket", unknown)
	where, err := c.objstore.read()
	if err != nil {
		return nil, err
	}
	kept, err := cache.New(context.Background(), "caching-bucket", backend, cache.Options{
		Logger: p.logger, Reg: p.reg, Origin: origin, Prefix: strconv.FormatUint(xxhash.Sum64(where), 36) + ":",
	})
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.cachingBucket.name, err)
	}
	p.close(kept.Close)
	if peers, ok := kept.(*cache.Peers); ok {
		c.peers = peers
	}
	return caching.New(bkt, kept, cfg, p.reg), nil
}
