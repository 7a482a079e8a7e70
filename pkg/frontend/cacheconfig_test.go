package frontend

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/koios-metrics/koios/pkg/cache"
)

// Shows how the configurations of response caches are read: types in any case, sizes of memory in powers of 1000 unless
// they say otherwise, what holds where nothing is said, and what is refused.
func TestParseCache(t *testing.T) {
	f := func(text string, want func(*CacheConfig) bool) {
		t.Helper()
		c, err := ParseCache([]byte(text))
		if err != nil || !want(c) {
			t.Errorf("%s: %+v %v", text, c, err)
		}
	}
	f("", func(c *CacheConfig) bool { return c == nil })
	f("  \n", func(c *CacheConfig) bool { return c == nil })
	memory := func(bytes int64, items int, ttl time.Duration) func(*CacheConfig) bool {
		return func(c *CacheConfig) bool {
			return c.Backend.Type == cache.InMemory && c.Backend.Memory.BytesMax == cache.Bytes(bytes) && c.Backend.Memory.ItemsMax == items && c.TTL == ttl
		}
	}
	f("type: in-memory", memory(0, 0, 0))
	f("type: IN-MEMORY\nconfig: {max_size: 1GB, max_size_items: 0, validity: 0s}", memory(1e9, 0, 0))
	f("type: IN-MEMORY\nconfig: {max_size: 1GiB, validity: 6h}", memory(1<<30, 0, 6*time.Hour))
	f("type: IN-MEMORY\nconfig: {max_size: '0', max_size_items: 2048}", memory(math.MaxInt64, 2048, 0))
	f("type: IN-MEMORY\nconfig: {max_size: 5000, unknown: 1}", memory(5000, 0, 0))
	f("\"config\":\n  \"addresses\":\n  - \"a:1\"\n\"type\": \"memcached\"", func(c *CacheConfig) bool {
		m := c.Backend.Memcached
		return c.Backend.Type == cache.Memcached && m.MaxAsyncConcurrency == 10 && m.Expiration == 24*time.Hour && m.Addresses[0] == "a:1" && !c.expirationUnset
	})
	f("type: MEMCACHED\nconfig: {addresses: ['a:1'], expiration: 0s, max_async_concurrency: -1, dns_provider_update_interval: 0s}", func(c *CacheConfig) bool {
		m := c.Backend.Memcached
		return m.MaxAsyncConcurrency == 10 && m.Expiration == 24*time.Hour && m.DNSProviderUpdateInterval == 10*time.Second && c.expirationUnset
	})
	f("type: REDIS\nconfig: {addr: 'a:1', read_timeout: 1s, max_set_multi_concurrency: 3, set_multi_batch_size: 5}", func(c *CacheConfig) bool {
		r := c.Backend.Redis
		return r.DialTimeout == time.Second && r.WriteTimeout == time.Second && r.MaxAsyncConcurrency == 3 && r.MaxAsyncBufferSize == 15
	})
	for text, want := range map[string]string{
		"type: TAPE":      `"TAPE"`,
		"a: 1":            "field a not found",
		"type: [":         "yaml",
		"type: MEMCACHED": "addresses",
		"type: REDIS\nconfig: {addr: a, color: red}":         "unknown key color",
		"type: IN-MEMORY\nconfig: {max_size: 1XB}":           "no size",
		"type: IN-MEMORY\nconfig: {max_size: big}":           "no size",
		"type: IN-MEMORY\nconfig: {max_size_items: -1}":      "negative",
		"type: IN-MEMORY\nconfig: {validity: soon}":          "yaml",
		"type: IN-MEMORY\nconfig: {max_size: 99999999999GB}": "too large",
	} {
		if _, err := ParseCache([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseCache(f *testing.F) {
	f.Add([]byte("type: IN-MEMORY\nconfig: {max_size: 1GB}"))
	f.Add([]byte("type: MEMCACHED\nconfig: {addresses: [a], expiration: 0}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseCache(b)
		_, _ = ParseTransport(b)
	})
}

// Shows that a cache in memory counts what it is asked and what it holds.
func TestCacheMetrics(t *testing.T) {
	cfg, err := ParseCache([]byte("type: IN-MEMORY\nconfig: {max_size_items: 2, validity: 1h}"))
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	c, err := cfg.Open(context.Background(), "query_range", log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "a", "b", "c"} {
		c.Store(cache.Entry{Key: k, Value: []byte("v")})
	}
	c.Fetch(t.Context(), []string{"a", "b", "c", "d"})
	want := `
# HELP cortex_cache_fetched_keys_total Keys looked for in a response cache.
# TYPE cortex_cache_fetched_keys_total counter
cortex_cache_fetched_keys_total{name="in-memory",tripperware="query_range"} 4
# HELP cortex_cache_hits_total Keys found in a response cache.
# TYPE cortex_cache_hits_total counter
cortex_cache_hits_total{name="in-memory",tripperware="query_range"} 2
# HELP querier_cache_added_new_total Entries put into a response cache in memory that replace no other.
# TYPE querier_cache_added_new_total counter
querier_cache_added_new_total{cache="query_range",tripperware="query_range"} 3
# HELP querier_cache_added_total Entries put into a response cache in memory.
# TYPE querier_cache_added_total counter
querier_cache_added_total{cache="query_range",tripperware="query_range"} 4
# HELP querier_cache_entries Entries of a response cache in memory.
# TYPE querier_cache_entries gauge
querier_cache_entries{cache="query_range",tripperware="query_range"} 2
# HELP querier_cache_evicted_total Entries forgotten to make room for others.
# TYPE querier_cache_evicted_total counter
querier_cache_evicted_total{cache="query_range",tripperware="query_range"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "cortex_cache_fetched_keys_total", "cortex_cache_hits_total", "querier_cache_added_new_total",
		"querier_cache_added_total", "querier_cache_entries", "querier_cache_evicted_total"); err != nil {
		t.Error(err)
	}
}

// Shows how connections to the queriers are configured, and what is refused.
func TestParseTransport(t *testing.T) {
	tr, err := ParseTransport(nil)
	if err != nil || tr.MaxIdleConnsPerHost != 100 || tr.IdleConnTimeout == 0 {
		t.Errorf("%+v %v", tr, err)
	}
	tr, err = ParseTransport([]byte("{idle_conn_timeout: 1m, response_header_timeout: 1d, tls_handshake_timeout: 2s, expect_continue_timeout: 3s, max_idle_conns: 7, max_idle_conns_per_host: 8, max_conns_per_host: 9, tls_config: {server_name: x, insecure_skip_verify: true}}"))
	if err != nil || tr.IdleConnTimeout != time.Minute || tr.ResponseHeaderTimeout != 24*time.Hour || tr.TLSHandshakeTimeout != 2*time.Second || tr.ExpectContinueTimeout != 3*time.Second ||
		tr.MaxIdleConns != 7 || tr.MaxIdleConnsPerHost != 8 || tr.MaxConnsPerHost != 9 || tr.TLSClientConfig.ServerName != "x" || !tr.TLSClientConfig.InsecureSkipVerify {
		t.Errorf("%+v %v", tr, err)
	}
	for text, want := range map[string]string{
		"a: 1":                              "field a not found",
		"max_idle_conns: -1":                "negative",
		"tls_config: {ca_file: /nowhere/a}": "tls_config: open /nowhere/a",
		"tls_config: {cert_file: a}":        "belong together",
		"idle_conn_timeout: soon":           "not a valid duration",
	} {
		if _, err := ParseTransport([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
