package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/grafana/gomemcache/memcache"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/gate"
)

// MemcachedConfig configures a cache in memcached servers.
type MemcachedConfig struct {
	// Addresses are host:port, paths of sockets, or names to look up as package discovery knows them.
	Addresses []string `yaml:"addresses"`
	// Timeout bounds connecting, and each operation.
	Timeout time.Duration `yaml:"timeout"`
	// MaxIdleConnections is the number of idle connections kept for each server; MinIdleHeadroom the part of those
	// used lately that are kept beside, in percent, negative is all.
	MaxIdleConnections int     `yaml:"max_idle_connections"`
	MinIdleHeadroom    float64 `yaml:"min_idle_connections_headroom_percentage"`
	// MaxAsyncConcurrency is the number of writers, MaxAsyncBufferSize that of entries that wait for them.
	MaxAsyncConcurrency int `yaml:"max_async_concurrency"`
	MaxAsyncBufferSize  int `yaml:"max_async_buffer_size"`
	// MaxGetMultiConcurrency is the number of reads at a time, MaxGetMultiBatchSize that of keys in a read; 0 is no
	// bound.
	MaxGetMultiConcurrency int `yaml:"max_get_multi_concurrency"`
	MaxGetMultiBatchSize   int `yaml:"max_get_multi_batch_size"`
	// MaxItemSize is the size past which a value is not kept, in bytes; 0 is no bound.
	MaxItemSize Bytes `yaml:"max_item_size"`
	// DNSProviderUpdateInterval is the time between two lookups of the addresses.
	DNSProviderUpdateInterval time.Duration `yaml:"dns_provider_update_interval"`
	// AutoDiscovery asks each address for the list of servers, as ElastiCache has it.
	AutoDiscovery bool `yaml:"auto_discovery"`
	// Breaker is accepted; reads and writes share a breaker of their own that is always on.
	Breaker BreakerConfig `yaml:"set_async_circuit_breaker_config"`
	// Expiration is the TTL of entries without one.
	Expiration time.Duration `yaml:"expiration"`
	// TLSEnabled and TLS encrypt connections.
	TLSEnabled bool      `yaml:"tls_enabled"`
	TLS        TLSConfig `yaml:"tls_config"`
}

// DefaultMemcachedConfig is what holds where a configuration says nothing.
var DefaultMemcachedConfig = MemcachedConfig{
	Timeout:                   500 * time.Millisecond,
	MaxIdleConnections:        100,
	MinIdleHeadroom:           -1,
	MaxAsyncConcurrency:       20,
	MaxAsyncBufferSize:        10_000,
	MaxGetMultiConcurrency:    100,
	MaxItemSize:               1 << 20,
	DNSProviderUpdateInterval: 10 * time.Second,
	Breaker:                   defaultBreakerConfig,
	Expiration:                24 * time.Hour,
}

// Validate tells what is wrong with the configuration.
func (c MemcachedConfig) Validate() error {
	if len(c.Addresses) == 0 {
		return errors.New("addresses: at least one is needed")
	}
	for _, a := range c.Addresses {
		if err := discovery.Validate(a); err != nil {
			return fmt.Errorf("addresses: %w", err)
		}
	}
	switch {
	case c.Timeout <= 0:
		return fmt.Errorf("timeout: %s must be more than 0", c.Timeout)
	case c.MaxAsyncConcurrency <= 0:
		return fmt.Errorf("max_async_concurrency: %d must be more than 0", c.MaxAsyncConcurrency)
	case c.DNSProviderUpdateInterval <= 0:
		return fmt.Errorf("dns_provider_update_interval: %s must be more than 0", c.DNSProviderUpdateInterval)
	}
	if err := c.Breaker.Validate(); err != nil {
		return err
	}
	_, err := c.tls()
	return err
}

func (c MemcachedConfig) tls() (*tls.Config, error) {
	if !c.TLSEnabled {
		return nil, nil
	}
	return c.TLS.client()
}

// NewMemcached makes a cache in memcached servers and looks up their addresses once. Servers that can't be found or
// reached are no error: they are looked for in the background.
func NewMemcached(ctx context.Context, name string, cfg MemcachedConfig, o Options) (Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("memcached: %w", err)
	}
	reg := o.named(name)
	m := newRemoteMetrics("memcached", reg)
	showMemcached(cfg, reg)
	dns, err := discovery.NewDNS(o.resolver(), "thanos_memcached", o.logger(), reg)
	if err != nil {
		return nil, fmt.Errorf("memcached: %w", err)
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("memcached: %w", err)
	}
	set := &memcachedSet{cfg: cfg, tls: tlsConfig, dns: dns, logger: o.logger(), metrics: m, byAddr: map[string]*guard{}, guardCfg: guardConfig{
		Timeout: cfg.Timeout, ProbeIntervalMax: probeIntervalMax(cfg.Breaker), Origin: o.Origin,
	}}
	if cfg.AutoDiscovery {
		set.auto = newAutoDiscovery(cfg.Timeout, set.dial, reg)
	}
	set.ctx, set.cancel = context.WithCancel(context.Background())
	set.update(ctx)
	set.running.Go(set.follow)
	return newRemote(remoteConfig{
		guardConfig: set.guardCfg, Prefix: o.prefix(), ItemBytesMax: int64(cfg.MaxItemSize), TTL: cfg.Expiration,
		BatchMax: cfg.MaxGetMultiBatchSize, QueueMax: cfg.MaxAsyncBufferSize, Writers: cfg.MaxAsyncConcurrency,
	}, set, gate.New("thanos_memcached_getmulti_gate_gets", cfg.MaxGetMultiConcurrency, reg), nil, m), nil
}

// memcachedSet is the list of servers, which follows DNS.
type memcachedSet struct {
	cfg      MemcachedConfig
	tls      *tls.Config
	dns      *discovery.DNS
	auto     *autoDiscovery // nil: addresses are servers
	logger   log.Logger
	metrics  *remoteMetrics
	guardCfg guardConfig

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	byAddr  map[string]*guard // of update only
	current atomic.Pointer[[]*guard]
}

func (s *memcachedSet) follow() {
	tick := time.NewTicker(s.cfg.DNSProviderUpdateInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.update(s.ctx)
		}
	}
}

// update looks up the servers. Those that stay keep their connections and what was learned of them.
func (s *memcachedSet) update(ctx context.Context) {
	if err := s.dns.Resolve(ctx, s.cfg.Addresses); err != nil && ctx.Err() == nil {
		_ = level.Warn(s.logger).Log("msg", "look up memcached servers: what was known before stays", "err", err)
	}
	addrs := s.dns.Addresses()
	if s.auto != nil {
		found, err := s.auto.discover(ctx, addrs)
		if err != nil {
			_ = level.Warn(s.logger).Log("msg", "ask for memcached servers: what was known before stays", "err", err)
			return
		}
		addrs = found
	}
	if ctx.Err() != nil {
		return
	}
	slices.SortFunc(addrs, naturally)
	addrs = slices.Compact(addrs)
	servers := make([]*guard, len(addrs))
	for i, a := range addrs {
		if s.byAddr[a] == nil {
			s.byAddr[a] = newGuard(a, newMemcachedServer(a, s), true, s.guardCfg, s.metrics)
		}
		servers[i] = s.byAddr[a]
	}
	s.current.Store(&servers)
	for a, g := range s.byAddr {
		if !slices.Contains(addrs, a) {
			delete(s.byAddr, a)
			g.close()
		}
	}
}

func (s *memcachedSet) all() []*guard {
	if p := s.current.Load(); p != nil {
		return *p
	}
	return nil
}

// pick spreads keys by jump hash: when a server joins at the end of the list, only the keys that it takes over move.
func (s *memcachedSet) pick(servers []*guard, key string) int {
	if len(servers) == 1 {
		return 0
	}
	return jump(xxhash.Sum64String(key), len(servers))
}

func (s *memcachedSet) close() {
	s.cancel()
	s.running.Wait()
	for _, g := range s.byAddr {
		g.close()
	}
}

// dial connects to a server.
func (s *memcachedSet) dial(network, addr string, timeout time.Duration) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	if s.tls != nil {
		return tls.DialWithDialer(d, network, addr, s.tls)
	}
	return d.Dial(network, addr)
}

// jump is the jump consistent hash of Lamping and Veach: a number below n.
func jump(key uint64, n int) int {
	b, j := int64(-1), int64(0)
	for j < int64(n) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64((key>>33)+1)))
	}
	return int(b)
}

// memcachedServer is one server.
type memcachedServer struct{ client *memcache.Client }

func newMemcachedServer(addr string, s *memcachedSet) *memcachedServer {
	c := memcache.NewFromSelector(serverAddress(addr))
	c.Timeout = s.cfg.Timeout
	c.ConnectTimeout = s.cfg.Timeout
	c.MaxIdleConns = s.cfg.MaxIdleConnections
	c.MinIdleConnsHeadroomPercentage = s.cfg.MinIdleHeadroom
	c.DialTimeout = s.dial
	return &memcachedServer{c}
}

func (m *memcachedServer) get(ctx context.Context, keys []string, found func(i int, value []byte)) error {
	items, err := m.client.GetMulti(ctx, keys)
	for i, k := range keys {
		if item := items[k]; item != nil && item.Value != nil {
			found(i, item.Value)
		}
	}
	return err
}

func (m *memcachedServer) set(ctx context.Context, entries []wireEntry) error {
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.client.Set(&memcache.Item{Key: e.key, Value: e.value, Expiration: expiration(e.ttl)}); err != nil {
			return refusal(err)
		}
	}
	return nil
}

// refusal marks what a server says of an entry that is larger than its own limit, or for which it finds no room. The
// client has no kinds for these answers, only their text.
func refusal(err error) error {
	if strings.Contains(err.Error(), `"SERVER_ERROR `) {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

// monthSeconds is where memcached begins to take an expiration for a time since the epoch.
const monthSeconds = 60 * 60 * 24 * 30

// expiration is a TTL as memcached takes it, rounded up to a second; 0 is for ever.
func expiration(ttl time.Duration) int32 {
	if ttl <= 0 {
		return 0
	}
	s := int64((ttl + time.Second - 1) / time.Second)
	if s >= monthSeconds {
		s = min(time.Now().Unix()+s, math.MaxInt32)
	}
	return int32(s)
}

func (m *memcachedServer) probe(ctx context.Context) error {
	_, err := m.client.GetMulti(ctx, []string{keyPrefix + "probe"})
	return err
}

func (m *memcachedServer) close() { m.client.Close() }

// serverAddress is the only address of a client. It is looked up at each connection, so that a name may move.
type serverAddress string

// Network implements net.Addr.
func (a serverAddress) Network() string {
	if strings.Contains(string(a), "/") {
		return "unix"
	}
	return "tcp"
}

// String implements net.Addr.
func (a serverAddress) String() string { return string(a) }

// PickServer implements memcache.ServerSelector.
func (a serverAddress) PickServer(string) (net.Addr, error) { return a, nil }

// Each implements memcache.ServerSelector.
func (a serverAddress) Each(f func(net.Addr) error) error { return f(a) }

func showMemcached(cfg MemcachedConfig, reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_memcached_client_info", Help: "The configuration of the client, in labels.",
		ConstLabels: prometheus.Labels{
			"timeout": cfg.Timeout.String(), "max_idle_connections": fmt.Sprint(cfg.MaxIdleConnections),
			"max_async_concurrency": fmt.Sprint(cfg.MaxAsyncConcurrency), "max_async_buffer_size": fmt.Sprint(cfg.MaxAsyncBufferSize),
			"max_item_size": fmt.Sprint(int64(cfg.MaxItemSize)), "max_get_multi_concurrency": fmt.Sprint(cfg.MaxGetMultiConcurrency),
			"max_get_multi_batch_size": fmt.Sprint(cfg.MaxGetMultiBatchSize), "dns_provider_update_interval": cfg.DNSProviderUpdateInterval.String(),
			"auto_discovery": fmt.Sprint(cfg.AutoDiscovery),
		},
	})
	info.Set(1)
	reg.MustRegister(info)
}
