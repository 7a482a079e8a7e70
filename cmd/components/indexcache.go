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
)

// indexCacheBytes reads the index cache configuration and returns the memory that the cache may take;
// without a configuration that is fallback, and with a cache in another process 0.
func indexCacheBytes(text []byte, fallback uint64) (uint64, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return fallback, nil
	}
	var top struct {
		Type         string        `yaml:"type"`
		Config       yaml.MapSlice `yaml:"config"`
		EnabledItems []string      `yaml:"enabled_items"`
		TTL          time.Duration `yaml:"ttl"`
	}
	if err := yaml.UnmarshalStrict(text, &top); err != nil {
		return 0, fmt.Errorf("parse index cache config: %w", err)
	}
	for _, item := range top.EnabledItems {
		switch item {
		case "Postings", "ExpandedPostings", "Series":
		default:
			return 0, fmt.Errorf("enabled_items has %q: want Postings, ExpandedPostings or Series", item)
		}
	}
	switch typ := strings.ToUpper(top.Type); typ {
	case "IN-MEMORY":
		if len(top.EnabledItems) > 0 && !slices.Contains(top.EnabledItems, "Postings") {
			return 0, nil
		}
		return memoryCacheBytes(top.Config)
	case "MEMCACHED", "REDIS":
		return 0, nil // see remoteIndexCache
	}
	return 0, fmt.Errorf("index cache of type %q: want IN-MEMORY, MEMCACHED or REDIS", top.Type)
}

// memoryCacheBytesMax is the size of a cache in memory whose configuration names none.
const memoryCacheBytesMax = 250 << 20

func memoryCacheBytes(config yaml.MapSlice) (uint64, error) {
	for _, kv := range config {
		if kv.Key != "max_size" {
			continue
		}
		n, err := parseBytes(fmt.Sprint(kv.Value))
		if err != nil {
			return 0, fmt.Errorf("index cache: max_size: %w", err)
		}
		if n == 0 {
			break
		}
		return n, nil
	}
	return memoryCacheBytesMax, nil
}

// remoteIndexCache opens the index cache in another process, nil if none is configured, or if posting lists are not
// among what is to be kept there.
func remoteIndexCache(text []byte, p *process, origin func() time.Duration) (cache.Cache, error) {
	var top struct {
		Type         string        `yaml:"type"`
		Config       any           `yaml:"config"`
		EnabledItems []string      `yaml:"enabled_items"`
		TTL          time.Duration `yaml:"ttl"`
	}
	if err := yaml.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("parse index cache config: %w", err)
	}
	if top.Type == "" || strings.EqualFold(top.Type, string(cache.InMemory)) {
		return nil, nil
	}
	backend, unknown, err := cache.ParseBackend(top.Type, top.Config, cache.Memcached, cache.Redis)
	if err != nil {
		return nil, fmt.Errorf("index cache config: %w", err)
	}
	cache.WarnUnknown(p.logger, "index cache", unknown)
	if top.TTL > 0 {
		backend.Memcached.Expiration, backend.Redis.Expiration = top.TTL, top.TTL
	}
	if len(top.EnabledItems) > 0 && !slices.Contains(top.EnabledItems, "Postings") {
		return nil, nil
	}
	c, err := cache.New(context.Background(), "index-cache", backend, cache.Options{Logger: p.logger, Reg: p.reg, Origin: origin})
	if err != nil {
		return nil, fmt.Errorf("index cache: %w", err)
	}
	p.close(c.Close)
	return c, nil
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
