package endpoint

import (
	"net"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/discovery"
)

// spec is a peer as it should be. It is comparable: a changed spec is a new peer.
type spec struct {
	// name is how the peer is listed and matched: its address, or the target of its group.
	name    string
	address string
	strict  bool
	group   bool
	found   bool // by discovery, not written down
	service string
	client  clientconf.GRPC
}

// groupScheme begins the names of groups, and is the scheme of their gRPC targets.
const groupScheme = "thanos"

// discovered is an address that discovery has found.
type discovered struct {
	address string
	// name is what it was found under, if certificates are to be for that; else "".
	name string
	// client is the client_config of the entry that it comes of, if there is one.
	client *clientconf.GRPCOverride
}

// find is what entries and file_sd targets resolve to. Of an address that is found more than once the last
// entry in the order of the configuration stands.
func find(entries []entry, targets []string, dns interface{ AddressesOf(string) []string }) []discovered {
	at := map[string]int{}
	var all []discovered
	add := func(asked string, client *clientconf.GRPCOverride) {
		for _, addr := range dns.AddressesOf(asked) {
			d := discovered{address: addr, client: client}
			// The target of an SRV record that is taken as a name is a name of its own.
			if host, _, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host) != nil && discovery.IsDynamic(asked) {
				d.name = discovery.Authority(asked)
			}
			i, known := at[addr]
			if !known {
				i, at[addr] = len(all), len(all)
				all = append(all, d)
			}
			all[i] = d
		}
	}
	for _, t := range targets {
		add(t, nil)
	}
	for _, e := range entries {
		if !e.Group && discovery.IsDynamic(e.Address) {
			add(e.Address, e.Client)
		}
	}
	return all
}

// desired turns entries into peers: dynamic names become their addresses. Where an address comes up more
// than once the later entry stands, but an address from DNS never displaces one that was written down; a
// strict one stays strict. Peers found in DNS are reached as their entry says, and are called by the name that
// was looked up; those of file_sd files are reached with the global settings.
func desired(entries []entry, global clientconf.GRPC, found []discovered) (specs map[string]spec, duplicates int) {
	specs = map[string]spec{}
	add := func(s spec) {
		if old, dup := specs[s.name]; dup {
			duplicates++
			s.strict = s.strict || old.strict
		}
		specs[s.name] = s
	}
	for _, d := range found {
		s := spec{name: d.address, address: d.address, client: d.client.Apply(global), found: true}
		if s.client.TLS {
			s.client.Name = d.name
		}
		add(s)
	}
	for _, e := range entries {
		s := spec{name: e.Address, address: e.Address, strict: e.Strict, group: e.Group, service: e.Service, client: e.Client.Apply(global)}
		switch {
		case e.Group:
			s.name = groupScheme + ":///" + e.Address
		case discovery.IsDynamic(e.Address):
			continue // among the found
		}
		add(s)
	}
	return specs, duplicates
}

// dynamic returns the names to be looked up for single peers.
func dynamic(entries []entry) (addrs []string) {
	for _, e := range entries {
		if !e.Group && discovery.IsDynamic(e.Address) {
			addrs = append(addrs, e.Address)
		}
	}
	return addrs
}
