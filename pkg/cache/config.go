package cache

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/discovery"
)

// Type is a kind of cache.
type Type string

// The kinds of caches.
const (
	InMemory   Type = "IN-MEMORY"
	Memcached  Type = "MEMCACHED"
	Redis      Type = "REDIS"
	Groupcache Type = "GROUPCACHE"
)

// Backend is a cache as configured: the field of its Type counts.
type Backend struct {
	Type       Type
	Memory     MemoryConfig
	Memcached  MemcachedConfig
	Redis      RedisConfig
	Groupcache GroupcacheConfig
}

// ParseBackend reads the keys "type" and "config" of a cache configuration, in which the type's case does not matter.
// Where the configuration says nothing, the defaults hold. Keys that are unknown are returned, each with its line and
// name; callers decide whether they are errors (in Thanos they are not, except in the query frontend's caches).
func ParseBackend(typ string, config any, types ...Type) (b Backend, unknown []string, err error) {
	b = Backend{Type: Type(strings.ToUpper(typ)), Memory: DefaultMemoryConfig, Memcached: DefaultMemcachedConfig, Redis: DefaultRedisConfig, Groupcache: DefaultGroupcacheConfig}
	known := false
	var names []string
	for _, t := range types {
		known = known || t == b.Type
		names = append(names, string(t))
	}
	if !known {
		return Backend{}, nil, fmt.Errorf("type: %q is no cache, want one of %s", typ, strings.Join(names, ", "))
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return Backend{}, nil, fmt.Errorf("config: %w", err)
	}
	if config == nil {
		text = nil
	}
	var dst interface{ Validate() error }
	switch b.Type {
	case InMemory:
		dst = &b.Memory
	case Memcached:
		dst = &b.Memcached
	case Redis:
		dst = &b.Redis
	case Groupcache:
		dst = &b.Groupcache
	}
	if unknown, err = decode(text, dst); err != nil {
		return Backend{}, nil, fmt.Errorf("config: %w", err)
	}
	if err := dst.Validate(); err != nil {
		return Backend{}, nil, fmt.Errorf("config: %w", err)
	}
	return b, unknown, nil
}

// decode reads YAML and tells which keys it did not know.
func decode(text []byte, dst any) (unknown []string, err error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	var all *yaml.TypeError
	if err := yaml.UnmarshalStrict(text, dst); err == nil {
		return nil, nil
	} else if !errors.As(err, &all) {
		return nil, err
	}
	for _, e := range all.Errors {
		// The line is that of the part, not of the file, and the type's name says nothing to users.
		_, what, _ := strings.Cut(e, ": ")
		name, isUnknown := strings.CutPrefix(what, "field ")
		if !isUnknown {
			return nil, all
		}
		name, _, _ = strings.Cut(name, " not found")
		unknown = append(unknown, name)
	}
	return unknown, nil
}

// Options are what caches need beside their configuration. The zero value works.
type Options struct {
	Logger log.Logger
	Reg    prometheus.Registerer
	// Resolver looks up names of servers; "" is Go's own.
	Resolver discovery.Resolver
	// Origin returns what the storage behind the cache usually takes, so that no wait for the cache is long beside it;
	// 0 is unknown. It must be quick and may be called in parallel.
	Origin func() time.Duration
	// MemoryEvents are told of what happens in a cache in memory, in place of the metrics thanos_cache_inmemory_*.
	MemoryEvents MemoryEvents
	// Prefix goes between our own prefix and the keys in shared servers; it tells apart who means different things by
	// the same key.
	Prefix string
}

func (o Options) logger() log.Logger {
	if o.Logger == nil {
		return log.NewNopLogger()
	}
	return o.Logger
}

func (o Options) resolver() discovery.Resolver {
	if o.Resolver == "" {
		return discovery.Golang
	}
	return o.Resolver
}

func (o Options) prefix() string { return keyPrefix + o.Prefix }

// named adds the label "name", which tells the metrics of two caches in one process apart.
func (o Options) named(name string) prometheus.Registerer {
	if o.Reg == nil {
		return nil
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"name": name}, o.Reg)
}

// New makes a configured cache; its name is a label of its metrics. Servers that can't be reached are no error.
func New(ctx context.Context, name string, b Backend, o Options) (Cache, error) {
	switch b.Type {
	case InMemory:
		if o.MemoryEvents != nil {
			return NewMemoryWith(b.Memory, o.MemoryEvents)
		}
		return NewMemory(name, b.Memory, o.Reg)
	case Memcached:
		return NewMemcached(ctx, name, b.Memcached, o)
	case Redis:
		return NewRedis(ctx, name, b.Redis, o)
	case Groupcache:
		return NewGroupcache(ctx, name, b.Groupcache, o)
	}
	return nil, fmt.Errorf("BUG: cache of type %q", b.Type)
}

// WarnUnknown logs keys that have no effect.
func WarnUnknown(logger log.Logger, what string, keys []string) {
	for _, k := range keys {
		_ = level.Warn(logger).Log("msg", "this key of a configuration is unknown and has no effect", "config", what, "key", k)
	}
}

// BreakerConfig is Thanos's breaker of writes. The numbers are accepted: one breaker for reads and writes is always on
// here, with bounds of its own; OpenDuration bounds the time between two probes.
type BreakerConfig struct {
	Enabled             bool          `yaml:"enabled"`
	HalfOpenMaxRequests uint32        `yaml:"half_open_max_requests"`
	OpenDuration        time.Duration `yaml:"open_duration"`
	MinRequests         uint32        `yaml:"min_requests"`
	ConsecutiveFailures uint32        `yaml:"consecutive_failures"`
	FailurePercent      float64       `yaml:"failure_percent"`
}

var defaultBreakerConfig = BreakerConfig{HalfOpenMaxRequests: 10, OpenDuration: 5 * time.Second, MinRequests: 50, ConsecutiveFailures: 5, FailurePercent: 0.05}

// Validate tells what is wrong with the configuration.
func (c BreakerConfig) Validate() error {
	if c.FailurePercent <= 0 || c.FailurePercent > 1 {
		return fmt.Errorf("set_async_circuit_breaker_config.failure_percent: %v is not between 0 and 1", c.FailurePercent)
	}
	return nil
}

func probeIntervalMax(c BreakerConfig) time.Duration {
	return max(c.OpenDuration, probeInterval)
}

// TLSConfig is a client's side of TLS.
type TLSConfig struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
	// MinVersion is TLS10 to TLS13, or 1.0 to 1.3; "" is Go's default.
	MinVersion string `yaml:"min_version"`
}

var tlsVersions = map[string]uint16{
	"": 0, "TLS10": tls.VersionTLS10, "TLS11": tls.VersionTLS11, "TLS12": tls.VersionTLS12, "TLS13": tls.VersionTLS13,
	"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

// client makes a client's configuration. A certificate is read again at each connection, so that it may be renewed.
func (c TLSConfig) client() (*tls.Config, error) {
	version, known := tlsVersions[c.MinVersion]
	if !known {
		return nil, fmt.Errorf("tls_config.min_version: %q is none of TLS10, TLS11, TLS12, TLS13", c.MinVersion)
	}
	t := &tls.Config{ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify, MinVersion: version} //nolint:gosec // as configured
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_config.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_config.ca_file: %s has no certificate", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("tls_config: cert_file and key_file belong together")
	}
	if c.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &cert, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("tls_config.cert_file: %w", err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}
