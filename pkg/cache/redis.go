package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/koios-metrics/koios/pkg/gate"
)

// RedisConfig configures a cache in Redis: one server, a cluster, or servers behind sentinels.
type RedisConfig struct {
	// Addr is host:port; several, with commas, are nodes of a cluster, or sentinels if MasterName is set.
	Addr string `yaml:"addr"`
	// Username and Password authenticate.
	Username string `yaml:"username"`
	Password string `yaml:"password"`
	// DB is the number of the database.
	DB int `yaml:"db"`
	// MasterName is how the sentinels call the master.
	MasterName string `yaml:"master_name"`
	// DialTimeout, ReadTimeout and WriteTimeout bound connecting, reads and writes.
	DialTimeout  time.Duration `yaml:"dial_timeout"`
	ReadTimeout  time.Duration `yaml:"read_timeout"`
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// MaxGetMultiConcurrency is the number of reads at a time, GetMultiBatchSize that of keys in one; 0 is no bound.
	MaxGetMultiConcurrency int `yaml:"max_get_multi_concurrency"`
	GetMultiBatchSize      int `yaml:"get_multi_batch_size"`
	// MaxSetMultiConcurrency and SetMultiBatchSize are the same of writes.
	MaxSetMultiConcurrency int `yaml:"max_set_multi_concurrency"`
	SetMultiBatchSize      int `yaml:"set_multi_batch_size"`
	// TLSEnabled and TLS encrypt connections.
	TLSEnabled bool      `yaml:"tls_enabled"`
	TLS        TLSConfig `yaml:"tls_config"`
	// CacheSize bounds what each connection keeps in memory of what it read, in bytes, for as long as the server tells
	// of changes; 0 is nothing.
	CacheSize Bytes `yaml:"cache_size"`
	// MaxAsyncBufferSize is the number of entries that wait for MaxAsyncConcurrency writers.
	MaxAsyncBufferSize  int `yaml:"max_async_buffer_size"`
	MaxAsyncConcurrency int `yaml:"max_async_concurrency"`
	// Breaker is accepted; see BreakerConfig.
	Breaker BreakerConfig `yaml:"set_async_circuit_breaker_config"`
	// Prefix goes before the keys.
	Prefix string `yaml:"prefix"`
	// Expiration is the TTL of entries without one.
	Expiration time.Duration `yaml:"expiration"`
}

// DefaultRedisConfig is what holds where a configuration says nothing.
var DefaultRedisConfig = RedisConfig{
	DialTimeout:            5 * time.Second,
	ReadTimeout:            3 * time.Second,
	WriteTimeout:           3 * time.Second,
	MaxGetMultiConcurrency: 100,
	GetMultiBatchSize:      100,
	MaxSetMultiConcurrency: 100,
	SetMultiBatchSize:      100,
	MaxAsyncBufferSize:     10_000,
	MaxAsyncConcurrency:    20,
	Breaker:                defaultBreakerConfig,
	Expiration:             24 * time.Hour,
}

// Validate tells what is wrong with the configuration.
func (c RedisConfig) Validate() error {
	switch {
	case strings.Trim(c.Addr, ", ") == "":
		return errors.New("addr: it is needed")
	case c.DialTimeout <= 0:
		return fmt.Errorf("dial_timeout: %s must be more than 0", c.DialTimeout)
	case c.ReadTimeout <= 0:
		return fmt.Errorf("read_timeout: %s must be more than 0", c.ReadTimeout)
	case c.WriteTimeout <= 0:
		return fmt.Errorf("write_timeout: %s must be more than 0", c.WriteTimeout)
	case c.DB < 0:
		return fmt.Errorf("db: %d is negative", c.DB)
	case c.MaxAsyncConcurrency <= 0:
		return fmt.Errorf("max_async_concurrency: %d must be more than 0", c.MaxAsyncConcurrency)
	}
	if err := c.Breaker.Validate(); err != nil {
		return err
	}
	_, err := c.tls()
	return err
}

func (c RedisConfig) tls() (*tls.Config, error) {
	if !c.TLSEnabled {
		return nil, nil
	}
	return c.TLS.client()
}

func (c RedisConfig) option() (rueidis.ClientOption, error) {
	t, err := c.tls()
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	o := rueidis.ClientOption{
		Username: c.Username, Password: c.Password, SelectDB: c.DB, ShuffleInit: true,
		Dialer:            net.Dialer{Timeout: c.DialTimeout},
		ConnWriteTimeout:  max(c.ReadTimeout, c.WriteTimeout),
		DisableCache:      c.CacheSize == 0,
		CacheSizeEachConn: int(c.CacheSize),
		DisableRetry:      true, // what fails is missing; the breaker decides about the next
		TLSConfig:         t,
	}
	for a := range strings.SplitSeq(c.Addr, ",") {
		if a = strings.TrimSpace(a); a != "" {
			o.InitAddress = append(o.InitAddress, a)
		}
	}
	if c.MasterName != "" {
		o.Sentinel = rueidis.SentinelOption{MasterSet: c.MasterName, Dialer: o.Dialer, TLSConfig: t, Username: c.Username, Password: c.Password}
	}
	return o, nil
}

// NewRedis makes a cache in Redis. A server that can't be reached is no error: it is tried again in the background.
func NewRedis(ctx context.Context, name string, cfg RedisConfig, o Options) (Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	option, err := cfg.option()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	reg := o.named(name)
	m := newRemoteMetrics("redis", reg)
	s := &redisServer{cfg: cfg, option: option}
	gc := guardConfig{Timeout: max(cfg.ReadTimeout, cfg.WriteTimeout), ProbeIntervalMax: probeIntervalMax(cfg.Breaker), Origin: o.Origin}
	connected := s.probe(ctx) == nil
	return newRemote(remoteConfig{
		guardConfig: gc, Prefix: o.prefix() + cfg.Prefix, TTL: cfg.Expiration, BatchMax: cfg.GetMultiBatchSize,
		QueueMax: cfg.MaxAsyncBufferSize, Writers: cfg.MaxAsyncConcurrency, SetBatchMax: cfg.SetMultiBatchSize,
	}, oneServer{[]*guard{newGuard(cfg.Addr, s, connected, gc, m)}},
		gate.New("thanos_redis_getmulti_gate_gets", cfg.MaxGetMultiConcurrency, reg),
		gate.New("thanos_redis_setmulti_gate_sets", cfg.MaxSetMultiConcurrency, reg), m), nil
}

// oneServer is a set of servers that takes care of itself.
type oneServer struct{ guards []*guard }

func (s oneServer) all() []*guard             { return s.guards }
func (s oneServer) pick([]*guard, string) int { return 0 }
func (s oneServer) close()                    { s.guards[0].close() }

// redisServer is a Redis, whatever it consists of. Its client needs a server to begin with, so that it is made by the
// first probe that finds one.
type redisServer struct {
	cfg    RedisConfig
	option rueidis.ClientOption

	connecting sync.Mutex
	mu         sync.RWMutex
	client     rueidis.Client
	closed     bool
}

var errNotConnected = errors.New("redis: not connected yet")

func (s *redisServer) get(ctx context.Context, keys []string, found func(i int, value []byte)) error {
	c := s.current()
	if c == nil {
		return errNotConnected
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	var results []rueidis.RedisResult
	if s.cfg.CacheSize > 0 {
		cmds := make([]rueidis.CacheableTTL, len(keys))
		for i, k := range keys {
			cmds[i] = rueidis.CT(c.B().Get().Key(k).Cache(), s.cfg.Expiration)
		}
		results = c.DoMultiCache(ctx, cmds...)
	} else {
		cmds := make([]rueidis.Completed, len(keys))
		for i, k := range keys {
			cmds[i] = c.B().Get().Key(k).Build()
		}
		results = c.DoMulti(ctx, cmds...)
	}
	var errs error
	for i, r := range results {
		b, err := r.AsBytes()
		switch {
		case err == nil:
			found(i, b)
		case rueidis.IsRedisNil(err):
		case errs == nil:
			errs = err
		}
	}
	return errs
}

func (s *redisServer) set(ctx context.Context, entries []wireEntry) error {
	c := s.current()
	if c == nil {
		return errNotConnected
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	cmds := make([]rueidis.Completed, len(entries))
	for i, e := range entries {
		set := c.B().Set().Key(e.key).Value(rueidis.BinaryString(e.value))
		if e.ttl > 0 {
			cmds[i] = set.Px(max(e.ttl, time.Millisecond)).Build()
		} else {
			cmds[i] = set.Build()
		}
	}
	for _, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			if _, said := rueidis.IsRedisErr(err); said { // it is full, or read-only
				return fmt.Errorf("%w: %w", errRefused, err)
			}
			return err
		}
	}
	return nil
}

func (s *redisServer) current() rueidis.Client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.client
}

func (s *redisServer) probe(ctx context.Context) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	return c.Do(ctx, c.B().Get().Key(keyPrefix+"probe").Build()).NonRedisError()
}

func (s *redisServer) connect() (rueidis.Client, error) {
	s.connecting.Lock()
	defer s.connecting.Unlock()
	if c := s.current(); c != nil {
		return c, nil
	}
	c, err := rueidis.NewClient(s.option)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return nil, errNotConnected
	}
	s.client = c
	return c, nil
}

func (s *redisServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}
