package endpoint

import (
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

// desired turns entries into peers: dynamic names become their addresses. Where an address comes up more
// than once the later entry stands, but an address from DNS never displaces one that was written down; a
// strict one stays strict. Peers found in DNS, or in file_sd files, are reached with the global settings.
func desired(entries []entry, global clientconf.GRPC, found []string) (specs map[string]spec, duplicates int) {
	specs = map[string]spec{}
	add := func(s spec) {
		if old, dup := specs[s.name]; dup {
			duplicates++
			s.strict = s.strict || old.strict
		}
		specs[s.name] = s
	}
	for _, addr := range found {
		add(spec{name: addr, address: addr, client: global, found: true})
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
