package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// errNotFound is a name, or a record of it, that does not exist. It is an answer, not a failure.
var errNotFound = errors.New("no such host")

// backend asks DNS. Both lookups answer errNotFound, wrapped, for what does not exist.
type backend interface {
	// ips returns addresses of host: of both families, or those of one ("ip4", "ip6").
	ips(ctx context.Context, network, host string) ([]netip.Addr, error)
	srv(ctx context.Context, name string) ([]target, error)
}

// target is where an SRV record points.
type target struct {
	host string
	port uint16
}

// lookup resolves one address with a prefix.
func lookup(ctx context.Context, b backend, a address) ([]string, error) {
	switch a.kind {
	case kindA:
		ips, err := b.ips(ctx, "ip", a.host)
		return a.join(ips), err
	case kindDualStack:
		return lookupDualStack(ctx, b, a)
	case kindSRV, kindSRVNoA:
		return lookupSRV(ctx, b, a)
	}
	panic(fmt.Sprintf("BUG: looking up an address of kind %q", a.kind))
}

// lookupDualStack asks for each family by itself; one of them is enough.
func lookupDualStack(ctx context.Context, b backend, a address) ([]string, error) {
	six, err6 := b.ips(ctx, "ip6", a.host)
	four, err4 := b.ips(ctx, "ip4", a.host)
	if len(six)+len(four) > 0 {
		return a.join(append(six, four...)), nil
	}
	if err6 != nil && !errors.Is(err6, errNotFound) {
		return nil, err6
	}
	return nil, err4
}

// lookupSRV fails when a target's lookup fails, so that a name server with a cold does not shrink a
// fleet; targets without an address are left out.
func lookupSRV(ctx context.Context, b backend, a address) ([]string, error) {
	targets, err := b.srv(ctx, a.host)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, t := range targets {
		port := strconv.Itoa(int(t.port))
		if a.kind == kindSRVNoA {
			found = append(found, a.with(strings.TrimSuffix(t.host, "."), port))
			continue
		}
		ips, err := b.ips(ctx, "ip", t.host)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up the target of an SRV record: %w", err)
		}
		for _, ip := range ips {
			found = append(found, a.with(ip.String(), port))
		}
	}
	return found, nil
}

func (a address) join(ips []netip.Addr) []string {
	found := make([]string, 0, len(ips))
	for _, ip := range ips {
		found = append(found, a.with(ip.String(), a.port))
	}
	return found
}

// golang is Go's resolver, which reads /etc/hosts, follows nsswitch and, where built so, uses libc.
type golang struct{ r *net.Resolver }

func (g golang) ips(ctx context.Context, network, host string) ([]netip.Addr, error) {
	ips, err := g.r.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, asNotFound(err)
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, nil
}

func (g golang) srv(ctx context.Context, name string) ([]target, error) {
	_, records, err := g.r.LookupSRV(ctx, "", "", name)
	// Records with malformed names are left out and reported along with the good ones.
	if err != nil && len(records) == 0 {
		return nil, asNotFound(err)
	}
	targets := make([]target, len(records))
	for i, r := range records {
		targets[i] = target{r.Target, r.Port}
	}
	return targets, nil
}

func asNotFound(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return fmt.Errorf("look up %s: %w", dns.Name, errNotFound)
	}
	return err
}
