package components

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"go.yaml.in/yaml/v2"
)

// indexCacheBytes reads the index cache configuration and returns the memory that the cache may take;
// without a configuration that is fallback. Caches in other processes are to come: a warning says that
// memory is used in their place.
func indexCacheBytes(text []byte, fallback uint64, logger log.Logger) (uint64, error) {
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
	if len(top.EnabledItems) > 0 {
		_ = level.Warn(logger).Log("msg", "index cache: enabled_items has no effect yet, postings are cached")
	}
	switch typ := strings.ToUpper(top.Type); typ {
	case "IN-MEMORY":
		return memoryCacheBytes(top.Config)
	case "MEMCACHED", "REDIS":
		_ = level.Warn(logger).Log("msg", "index cache: this type is to come, memory is used in its place", "type", typ, "bytes", fallback)
		return fallback, nil
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
