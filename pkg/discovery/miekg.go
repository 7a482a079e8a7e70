package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// cnameDepthMax bounds how many aliases are followed over separate questions. Recursive servers send the
// whole chain at once, so more than one is rare.
const cnameDepthMax = 8

// miekg asks the servers of resolv.conf itself. Unlike libc it keeps every record of a large answer.
type miekg struct {
	resolvConf string // path; read before each lookup, since pods get theirs rewritten
	port       string // instead of 53, which resolv.conf can't say
}

func (m miekg) ips(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	switch network {
	case "ip4":
		return m.addresses(ctx, host, dns.TypeA, 0)
	case "ip6":
		return m.addresses(ctx, host, dns.TypeAAAA, 0)
	}
	// A name with both families is one peer: listing it twice would count it twice.
	ips, err := m.addresses(ctx, host, dns.TypeA, 0)
	if !errors.Is(err, errNotFound) {
		return ips, err
	}
	return m.addresses(ctx, host, dns.TypeAAAA, 0)
}

func (m miekg) addresses(ctx context.Context, host string, qtype uint16, depth int) ([]netip.Addr, error) {
	answer, err := m.ask(ctx, host, qtype)
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	alias := ""
	for _, rr := range answer {
		var ip net.IP
		switch r := rr.(type) {
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		case *dns.CNAME:
			alias = r.Target
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			ips = append(ips, a.Unmap())
		}
	}
	switch {
	case len(ips) > 0:
		return ips, nil
	case alias == "":
		return nil, fmt.Errorf("look up %s: %w", host, errNotFound)
	case depth >= cnameDepthMax:
		return nil, fmt.Errorf("look up %s: more than %d aliases in a row", host, cnameDepthMax)
	}
	return m.addresses(ctx, alias, qtype, depth+1)
}

func (m miekg) srv(ctx context.Context, name string) ([]target, error) {
	answer, err := m.ask(ctx, name, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, rr := range answer {
		// A lone target "." says that the service is decidedly not offered (RFC 2782).
		if r, ok := rr.(*dns.SRV); ok && r.Target != "." {
			targets = append(targets, target{r.Target, r.Port})
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("look up SRV %s: %w", name, errNotFound)
	}
	return targets, nil
}

// ask walks the search list and returns the first answer with a record in it. A failure on one name of
// the list does not stop the walk, but it outweighs "not found" on the others.
func (m miekg) ask(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	conf, err := m.config()
	if err != nil {
		return nil, err
	}
	var failure error
	for _, full := range conf.NameList(name) {
		answer, err := askServers(ctx, conf, full, qtype)
		if err == nil && len(answer) > 0 {
			return answer, nil
		}
		if err != nil && failure == nil {
			failure = err
		}
	}
	if failure != nil {
		return nil, fmt.Errorf("look up %s %s: %w", dns.TypeToString[qtype], name, failure)
	}
	return nil, fmt.Errorf("look up %s %s: %w", dns.TypeToString[qtype], name, errNotFound)
}

// config reads resolv.conf; without one there is the server on this host, as everywhere.
func (m miekg) config() (*dns.ClientConfig, error) {
	conf, err := dns.ClientConfigFromFile(m.resolvConf)
	if errors.Is(err, os.ErrNotExist) {
		conf, err = &dns.ClientConfig{Port: "53", Ndots: 1, Timeout: 5, Attempts: 2}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.resolvConf, err)
	}
	if m.port != "" {
		conf.Port = m.port
	}
	if len(conf.Servers) == 0 {
		conf.Servers = []string{"127.0.0.1"}
	}
	return conf, nil
}

// askServers asks one server after the other for one full name, as often as resolv.conf says. No records
// and no error is an answer: there are none.
func askServers(ctx context.Context, conf *dns.ClientConfig, name string, qtype uint16) ([]dns.RR, error) {
	var last error
	for range max(1, conf.Attempts) {
		for _, server := range conf.Servers {
			msg, err := exchange(ctx, conf, net.JoinHostPort(server, conf.Port), name, qtype)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				last = err
				continue
			}
			switch msg.Rcode {
			case dns.RcodeSuccess:
				return msg.Answer, nil
			case dns.RcodeNameError:
				return nil, nil
			}
			last = fmt.Errorf("server %s says %s", server, dns.RcodeToString[msg.Rcode])
		}
	}
	return nil, last
}

// exchange asks over UDP and, when the answer is cut off, again over TCP.
func exchange(ctx context.Context, conf *dns.ClientConfig, server, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name, qtype).SetEdns0(dns.DefaultMsgSize, false)
	client := dns.Client{Timeout: time.Duration(max(1, conf.Timeout)) * time.Second}
	msg, err := roundTrip(ctx, &client, server, q)
	if err == nil && msg.Rcode == dns.RcodeFormatError {
		// A server from before EDNS.
		q.Extra = slices.DeleteFunc(q.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
		msg, err = roundTrip(ctx, &client, server, q)
	}
	if err != nil || !msg.Truncated {
		return msg, err
	}
	client.Net = "tcp"
	return roundTrip(ctx, &client, server, q)
}

// roundTrip asks once. The library heeds a context's deadline only; the connection is broken off here
// when the context ends before.
func roundTrip(ctx context.Context, client *dns.Client, server string, q *dns.Msg) (*dns.Msg, error) {
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	msg, _, err := client.ExchangeWithConnContext(ctx, q, conn)
	return msg, err
}
