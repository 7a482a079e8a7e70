package frontend

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/size"
)

// CacheConfig is a cache of answers as configured.
type CacheConfig struct {
	Backend cache.Backend
	// TTL is how long an entry is kept; 0 is as long as the backend does.
	TTL time.Duration
	// expirationUnset is true where a server in another process was given no time after which to forget.
	expirationUnset bool
}

// What holds for caches of answers where a configuration says nothing, or nothing sensible.
const (
	cacheWriters     = 10
	cacheDNSInterval = 10 * time.Second
	cacheExpiration  = 24 * time.Hour
)

// ParseCache reads the configuration of a cache of answers, nil if there is none. Keys that are unknown are errors but in
// the configuration of a cache in memory, as in Thanos.
func ParseCache(text []byte) (*CacheConfig, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil, nil
	}
	var top struct {
		Type   string        `yaml:"type"`
		Config yaml.MapSlice `yaml:"config"`
	}
	if err := yaml.UnmarshalStrict(text, &top); err != nil {
		return nil, fmt.Errorf("parse response cache config: %w", err)
	}
	if strings.EqualFold(top.Type, string(cache.InMemory)) {
		return parseMemory(top.Config)
	}
	c := &CacheConfig{}
	config := c.filled(top.Config)
	b, unknown, err := cache.ParseBackend(top.Type, config, cache.InMemory, cache.Memcached, cache.Redis)
	if err != nil {
		return nil, fmt.Errorf("parse response cache config: %w", err)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("parse response cache config: config: unknown key %s", strings.Join(unknown, ", "))
	}
	if b.Type == cache.Redis {
		// One time is for everything that is asked of a server, and one number for those who write.
		b.Redis.DialTimeout, b.Redis.WriteTimeout = b.Redis.ReadTimeout, b.Redis.ReadTimeout
		b.Redis.MaxAsyncConcurrency = max(1, b.Redis.MaxSetMultiConcurrency)
		b.Redis.MaxAsyncBufferSize = max(1, b.Redis.MaxSetMultiConcurrency*b.Redis.SetMultiBatchSize)
	}
	c.Backend = b
	return c, nil
}

// filled replaces what makes no sense by what holds then.
func (c *CacheConfig) filled(config yaml.MapSlice) yaml.MapSlice {
	var out yaml.MapSlice
	writers, expiration := false, false
	for _, kv := range config {
		switch text := fmt.Sprint(kv.Value); kv.Key {
		case "max_async_concurrency":
			writers = true
			if n, err := strconv.Atoi(text); err == nil && n <= 0 {
				kv.Value = cacheWriters
			}
		case "dns_provider_update_interval":
			if d, err := time.ParseDuration(text); err == nil && d <= 0 || text == "0" {
				kv.Value = cacheDNSInterval.String()
			}
		case "expiration":
			expiration = true
			if d, err := time.ParseDuration(text); err == nil && d <= 0 || text == "0" {
				kv.Value, c.expirationUnset = cacheExpiration.String(), true
			}
		}
		out = append(out, kv)
	}
	if !writers {
		out = append(out, yaml.MapItem{Key: "max_async_concurrency", Value: cacheWriters})
	}
	if !expiration {
		out = append(out, yaml.MapItem{Key: "expiration", Value: cacheExpiration.String()})
	}
	return out
}

func parseMemory(config yaml.MapSlice) (*CacheConfig, error) {
	text, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("parse response cache config: config: %w", err)
	}
	var m struct {
		MaxSize  string        `yaml:"max_size"`
		MaxItems int           `yaml:"max_size_items"`
		Validity time.Duration `yaml:"validity"`
	}
	if err := yaml.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("parse response cache config: config: %w", err)
	}
	bytesMax := int64(0)
	if m.MaxSize != "" {
		// Here, unlike anywhere else, users know KB, MB and so on as powers of 1000.
		if bytesMax, err = size.Parse(m.MaxSize, size.Decimal); err != nil {
			return nil, fmt.Errorf("parse response cache config: max_size: %w", err)
		}
	}
	if m.MaxItems < 0 || m.Validity < 0 {
		return nil, fmt.Errorf("parse response cache config: max_size_items (%d) and validity (%s) must not be negative", m.MaxItems, m.Validity)
	}
	if bytesMax == 0 && m.MaxItems > 0 {
		bytesMax = math.MaxInt64
	}
	return &CacheConfig{
		Backend: cache.Backend{Type: cache.InMemory, Memory: cache.MemoryConfig{BytesMax: cache.Bytes(bytesMax), ItemsMax: m.MaxItems}},
		TTL:     m.Validity,
	}, nil
}

// Open makes the cache. What for is the kind of requests whose answers are kept: query_range or labels. The caller closes
// the cache.
func (c *CacheConfig) Open(ctx context.Context, what string, logger log.Logger, reg prometheus.Registerer) (cache.Cache, error) {
	if c.expirationUnset {
		level.Warn(logger).Log("msg", "entries of a response cache without an expiration are kept for a day", "cache", what)
	}
	o := cache.Options{Logger: logger, Reg: reg, Prefix: "fe:"}
	own := prometheus.WrapRegistererWith(prometheus.Labels{"tripperware": what}, reg)
	if c.Backend.Type == cache.InMemory {
		o.MemoryEvents = newMemoryEvents(prometheus.WrapRegistererWith(prometheus.Labels{"cache": what}, own))
	}
	backend, err := cache.New(ctx, "frontend-"+what, c.Backend, o)
	if err != nil {
		return nil, fmt.Errorf("open response cache: %w", err)
	}
	name := prometheus.WrapRegistererWith(prometheus.Labels{"name": strings.ToLower(string(c.Backend.Type))}, own)
	return &countedCache{Cache: backend, metrics: newCacheMetrics(name), remote: showRemote(c.Backend.Type, backend, own, name)}, nil
}
