package caching

import (
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/cache"
)

// Config says what is kept of a bucket, and for how long.
type Config struct {
	// ChunkSubrangeSize is the size of the pieces that chunk objects are kept in, in bytes.
	ChunkSubrangeSize int64 `yaml:"chunk_subrange_size"`
	// MaxChunksGetRangeRequests bounds the requests that one read of chunks becomes; pieces between are read again.
	MaxChunksGetRangeRequests int           `yaml:"max_chunks_get_range_requests"`
	ChunkObjectAttrsTTL       time.Duration `yaml:"chunk_object_attrs_ttl"`
	ChunkSubrangeTTL          time.Duration `yaml:"chunk_subrange_ttl"`
	// BlocksIterTTL is how long a listing of the root is kept.
	BlocksIterTTL time.Duration `yaml:"blocks_iter_ttl"`
	// The TTLs of what is known of meta.json and deletion marks, and the size past which they are not kept, in bytes.
	MetafileExistsTTL      time.Duration `yaml:"metafile_exists_ttl"`
	MetafileDoesntExistTTL time.Duration `yaml:"metafile_doesnt_exist_ttl"`
	MetafileContentTTL     time.Duration `yaml:"metafile_content_ttl"`
	MetafileMaxSize        cache.Bytes   `yaml:"metafile_max_size"`
}

// DefaultConfig is what holds where a configuration says nothing.
var DefaultConfig = Config{
	ChunkSubrangeSize: 16_000, MaxChunksGetRangeRequests: 3, ChunkObjectAttrsTTL: 24 * time.Hour, ChunkSubrangeTTL: 24 * time.Hour,
	BlocksIterTTL: 5 * time.Minute, MetafileExistsTTL: 2 * time.Hour, MetafileDoesntExistTTL: 15 * time.Minute,
	MetafileContentTTL: 24 * time.Hour, MetafileMaxSize: 1 << 20,
}

// Validate tells what is wrong with the configuration.
func (c Config) Validate() error {
	if c.ChunkSubrangeSize <= 0 {
		return fmt.Errorf("chunk_subrange_size: %d must be more than 0", c.ChunkSubrangeSize)
	}
	if c.MaxChunksGetRangeRequests < 0 {
		return errors.New("max_chunks_get_range_requests: it is negative")
	}
	return nil
}

// Parse reads the YAML of a caching bucket: what is kept and where. Keys below "config" that are unknown are returned.
func Parse(text []byte) (cfg Config, backend cache.Backend, unknown []string, err error) {
	top := struct {
		Type   string `yaml:"type"`
		Config any    `yaml:"config"`
		Keep   Config `yaml:",inline"`
	}{Keep: DefaultConfig}
	if err := yaml.UnmarshalStrict(text, &top); err != nil {
		return Config{}, cache.Backend{}, nil, fmt.Errorf("parse caching bucket config: %w", err)
	}
	if err := top.Keep.Validate(); err != nil {
		return Config{}, cache.Backend{}, nil, fmt.Errorf("caching bucket config: %w", err)
	}
	backend, unknown, err = cache.ParseBackend(top.Type, top.Config, cache.InMemory, cache.Memcached, cache.Redis, cache.Groupcache)
	if err != nil {
		return Config{}, cache.Backend{}, nil, fmt.Errorf("caching bucket config: %w", err)
	}
	return top.Keep, backend, unknown, nil
}
