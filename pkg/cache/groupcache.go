package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/pb"
	"github.com/groupcache/groupcache-go/v3/transport/peer"

	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/gate"
)

// GroupcacheConfig configures a cache in the memory of several processes like this one.
type GroupcacheConfig struct {
	// SelfURL is where the peers reach this process, as the list of peers has it.
	SelfURL string `yaml:"self_url"`
	// Peers are the URLs of all, maybe names to look up; none is this process alone.
	Peers []string `yaml:"peers"`
	// MaxSize bounds the memory in this process, in bytes.
	MaxSize Bytes `yaml:"max_size"`
	// Group tells caches of the same processes apart.
	Group string `yaml:"groupcache_group"`
	// DNSSDResolver looks the names up, every DNSInterval.
	DNSSDResolver discovery.Resolver `yaml:"dns_sd_resolver"`
	DNSInterval   time.Duration      `yaml:"dns_interval"`
	// Timeout bounds each operation.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultGroupcacheConfig is what holds where a configuration says nothing.
var DefaultGroupcacheConfig = GroupcacheConfig{MaxSize: 250 << 20, DNSSDResolver: discovery.Golang, DNSInterval: time.Minute, Timeout: 2 * time.Second}

// Validate tells what is wrong with the configuration.
func (c *GroupcacheConfig) Validate() error {
	if len(c.Peers) == 0 {
		c.Peers = []string{c.SelfURL}
	}
	for i, p := range append([]string{c.SelfURL}, c.Peers...) {
		key := "peers"
		if i == 0 {
			key = "self_url"
		}
		if strings.HasSuffix(p, "/") {
			return fmt.Errorf("%s: %q must not end with a slash", key, p)
		}
		if discovery.IsDynamic(p) {
			if err := discovery.Validate(p); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			continue
		}
		if u, err := url.Parse(p); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("%s: %q is no URL like http://host:port", key, p)
		}
	}
	switch {
	case c.Group == "":
		return errors.New("groupcache_group: it is needed")
	case c.MaxSize <= 0:
		return fmt.Errorf("max_size: %d must be more than 0", c.MaxSize)
	case c.Timeout <= 0:
		return fmt.Errorf("timeout: %s must be more than 0", c.Timeout)
	case c.DNSInterval <= 0:
		return fmt.Errorf("dns_interval: %s must be more than 0", c.DNSInterval)
	}
	return nil
}

const (
	// The number of keys asked for, and of entries written, at a time.
	groupcacheConcurrency = 64
	// The number of entries that wait to be written, and of writers.
	groupcacheQueueMax, groupcacheWriters = 10_000, 8
)

// Peers is a cache in the memory of several processes. The process serves its part to the others by Handler.
type Peers struct {
	*remote
	transport *transport.HttpTransport
}

// Handler returns where peers ask, and what answers them.
func (p *Peers) Handler() (path string, h http.Handler) {
	return transport.DefaultBasePath, p.transport
}

// NewGroupcache makes a cache in the memory of several processes.
func NewGroupcache(ctx context.Context, name string, cfg GroupcacheConfig, o Options) (*Peers, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("groupcache: %w", err)
	}
	dns, err := discovery.NewDNS(cfg.DNSSDResolver, "thanos_store_groupcache", o.logger(), o.Reg)
	if err != nil {
		return nil, fmt.Errorf("groupcache: dns_sd_resolver: %w", err)
	}
	self, _ := url.Parse(cfg.SelfURL) // Validate did
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	idle := &http.Transport{MaxIdleConnsPerHost: groupcacheConcurrency, IdleConnTimeout: time.Minute}
	t := transport.NewHttpTransport(transport.HttpTransportOptions{
		Scheme: self.Scheme, Logger: quiet, Client: &http.Client{Transport: idle, Timeout: cfg.Timeout},
	})
	inst := groupcache.New(groupcache.Options{Transport: t, Logger: quiet})
	t.Register(inst)
	s := &groupServer{cfg: cfg, self: self.Host, inst: inst, dns: dns, logger: o.logger(), idle: idle}
	group, err := inst.NewGroup(cfg.Group, int64(cfg.MaxSize), groupcache.GetterFunc(s.absent))
	if err != nil {
		return nil, fmt.Errorf("groupcache: %w", err)
	}
	var ok bool
	if s.group, ok = group.(ownGroup); !ok {
		return nil, errors.New("BUG: groupcache: the group can't be written to")
	}
	s.metrics = newGroupMetrics(s, o.Reg)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.update(ctx)
	s.running.Go(func() { follow(s.ctx, cfg.DNSInterval, s.update) })
	m := newRemoteMetrics("groupcache", o.named(name))
	gc := guardConfig{Timeout: cfg.Timeout, ProbeIntervalMax: 5 * time.Second, Origin: o.Origin}
	r := newRemote(remoteConfig{
		guardConfig: gc, Prefix: o.prefix(), ItemBytesMax: int64(cfg.MaxSize) / 2, QueueMax: groupcacheQueueMax, Writers: groupcacheWriters,
	}, oneServer{[]*guard{newGuard(cfg.SelfURL, s, true, gc, m)}}, gate.New("", 0, nil), nil, m)
	return &Peers{r, t}, nil
}

// ownGroup is what a group has beside its interface.
type ownGroup interface {
	groupcache.Group
	RemoteSet(key string, value []byte, expire time.Time)
	CacheStats(groupcache.CacheType) groupcache.CacheStats
}

// groupServer is the peers, this process among them.
type groupServer struct {
	cfg     GroupcacheConfig
	self    string
	inst    *groupcache.Instance
	group   ownGroup
	dns     *discovery.DNS
	logger  log.Logger
	idle    *http.Transport
	metrics *groupMetrics

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// absent is asked for keys that this process owns and has not. Whoever wanted one reads it from the storage and writes
// it here; the storage is not read for others.
func (s *groupServer) absent(context.Context, string, transport.Sink) error {
	s.metrics.backendLoads.Inc()
	return &transport.ErrNotFound{Msg: "not cached"}
}

func (s *groupServer) update(ctx context.Context) {
	if err := s.dns.Resolve(ctx, s.cfg.Peers); err != nil && ctx.Err() == nil {
		_ = level.Warn(s.logger).Log("msg", "look up peers of the cache: what was known before stays", "err", err)
	}
	hosts := []string{s.self}
	for _, a := range s.dns.Addresses() {
		if u, err := url.Parse(a); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	var peers []peer.Info
	for _, h := range slices.Compact(hosts) {
		peers = append(peers, peer.Info{Address: h, IsSelf: h == s.self})
	}
	if err := s.inst.SetPeers(ctx, peers); err != nil && ctx.Err() == nil {
		_ = level.Warn(s.logger).Log("msg", "set the peers of the cache: those before stay", "err", err)
	}
}

func (s *groupServer) get(ctx context.Context, keys []string, found func(i int, value []byte)) error {
	values, errs := make([][]byte, len(keys)), make([]error, len(keys))
	var wg sync.WaitGroup
	places := make(chan int)
	for range min(groupcacheConcurrency, len(keys)) {
		wg.Go(func() {
			for i := range places {
				values[i], errs[i] = s.getOne(ctx, keys[i])
			}
		})
	}
	for i := range keys {
		places <- i
	}
	close(places)
	wg.Wait()
	for i, v := range values {
		if v != nil {
			found(i, v)
		}
	}
	return errors.Join(errs...)
}

// getOne returns nil for what nobody has. What the owner in another process has is counted by this process.
func (s *groupServer) getOne(ctx context.Context, key string) (value []byte, err error) {
	s.metrics.gets.Inc()
	err = s.group.Get(ctx, key, transport.AllocatingByteSliceSink(&value))
	_, elsewhere := s.inst.PickPeer(key)
	absent := errors.Is(err, &transport.ErrNotFound{})
	if elsewhere || absent {
		s.metrics.loads.Inc()
	}
	switch {
	case absent:
		return nil, nil
	case err != nil:
		if elsewhere {
			s.metrics.peerLoadErrors.Inc()
		}
		return nil, err
	case elsewhere:
		s.metrics.peerLoads.Inc()
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

func (s *groupServer) set(ctx context.Context, entries []wireEntry) error {
	for _, e := range entries {
		var expires time.Time
		if e.ttl > 0 {
			expires = time.Now().Add(e.ttl)
		}
		owner, elsewhere := s.inst.PickPeer(e.key)
		if !elsewhere {
			s.group.RemoteSet(e.key, e.value, expires)
			continue
		}
		req := &pb.SetRequest{}
		req.Group, req.Key, req.Value = &s.cfg.Group, &e.key, e.value
		if !expires.IsZero() {
			ns := expires.UnixNano()
			req.Expire = &ns
		}
		if err := owner.Set(ctx, req); err != nil {
			return fmt.Errorf("write to peer %s: %w", owner.PeerInfo().Address, err)
		}
	}
	return nil
}

// probe asks for a key that nobody has, whoever owns it.
func (s *groupServer) probe(ctx context.Context) error {
	var b []byte
	err := s.group.Get(ctx, keyPrefix+"probe", transport.AllocatingByteSliceSink(&b))
	if errors.Is(err, &transport.ErrNotFound{}) {
		return nil
	}
	return err
}

func (s *groupServer) close() {
	s.cancel()
	s.running.Wait()
	s.inst.RemoveGroup(s.cfg.Group)
	s.idle.CloseIdleConnections()
}
