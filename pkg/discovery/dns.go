package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Resolver names a way to ask DNS.
type Resolver string

// The resolvers.
const (
	// Golang is Go's own resolver.
	Golang Resolver = "golang"
	// MiekgDNS asks the servers of /etc/resolv.conf directly.
	MiekgDNS Resolver = "miekgdns"
)

// lookupsMax bounds the names looked up at once.
const lookupsMax = 16

// DNS keeps the last good result of a list of addresses. Its methods may be called in parallel.
type DNS struct {
	backend backend
	logger  log.Logger
	metrics *dnsMetrics

	mu     sync.RWMutex
	order  []string
	result map[string][]string
}

// NewDNS makes a DNS whose metrics are called <prefix>_dns_….
func NewDNS(r Resolver, prefix string, logger log.Logger, reg prometheus.Registerer) (*DNS, error) {
	var b backend
	switch r {
	case Golang:
		b = golang{net.DefaultResolver}
	case MiekgDNS:
		b = miekg{resolvConf: "/etc/resolv.conf"}
	default:
		return nil, fmt.Errorf("unknown DNS resolver %q: want %s or %s", r, Golang, MiekgDNS)
	}
	return newDNS(b, prefix, logger, reg), nil
}

func newDNS(b backend, prefix string, logger log.Logger, reg prometheus.Registerer) *DNS {
	d := &DNS{backend: b, logger: logger, result: map[string][]string{}}
	d.metrics = newDNSMetrics(prefix, reg, d)
	return d
}

// Resolve makes addrs the list and looks up those with a prefix, several at a time. An address whose
// lookup fails keeps what it resolved to before; the errors are joined. A name that does not exist
// resolves to nothing, which is logged and is no error. What stays in the list is not disturbed until
// the end.
func (d *DNS) Resolve(ctx context.Context, addrs []string) error {
	addrs = slices.Compact(slices.Sorted(slices.Values(addrs)))
	found := make([][]string, len(addrs))
	errs := make([]error, len(addrs))
	var g errgroup.Group
	g.SetLimit(lookupsMax)
	for i, addr := range addrs {
		if !IsDynamic(addr) {
			found[i] = []string{addr}
			continue
		}
		g.Go(func() error {
			found[i], errs[i] = d.lookup(ctx, addr)
			return nil
		})
	}
	_ = g.Wait()

	d.mu.Lock()
	defer d.mu.Unlock()
	result := make(map[string][]string, len(addrs))
	for i, addr := range addrs {
		if errs[i] != nil {
			result[addr] = d.result[addr]
			continue
		}
		result[addr] = found[i]
	}
	d.order, d.result = addrs, result
	return errors.Join(errs...)
}

// lookup resolves one address with a prefix.
func (d *DNS) lookup(ctx context.Context, addr string) ([]string, error) {
	d.metrics.lookups.Inc()
	a, err := parse(addr)
	if err != nil {
		d.metrics.failures.Inc()
		return nil, err
	}
	found, err := lookup(ctx, d.backend, a)
	if errors.Is(err, errNotFound) {
		err = nil
	}
	if err != nil {
		d.metrics.failures.Inc()
		return nil, fmt.Errorf("resolve %s: %w", addr, err)
	}
	if len(found) == 0 {
		level.Warn(d.logger).Log("msg", "a DNS name resolves to nothing", "address", addr)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Addresses returns what the list resolves to: sorted, unique, the caller's own.
func (d *DNS) Addresses() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []string
	for _, addr := range d.order {
		all = append(all, d.result[addr]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// AddressesOf returns what one address of the list resolves to: sorted, unique, the caller's own.
func (d *DNS) AddressesOf(addr string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.result[addr])
}

// Refresh looks up one address and returns what it resolves to now: sorted, unique, the caller's own.
// The address joins the list. On an error the previous result, which may be empty, comes with it.
func (d *DNS) Refresh(ctx context.Context, addr string) ([]string, error) {
	found, err := []string{addr}, error(nil)
	if IsDynamic(addr) {
		found, err = d.lookup(ctx, addr)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.result[addr] = found
	}
	if i, in := slices.BinarySearch(d.order, addr); !in {
		d.order = slices.Insert(d.order, i, addr)
	}
	return slices.Clone(d.result[addr]), err
}

// Forget takes an address out of the list.
func (d *DNS) Forget(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.result, addr)
	if i, in := slices.BinarySearch(d.order, addr); in {
		d.order = slices.Delete(slices.Clone(d.order), i, i+1)
	}
}
