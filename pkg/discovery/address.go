package discovery

import (
	"fmt"
	"net"
	"strings"
)

// kind says how the name in an address is looked up.
type kind string

const (
	kindStatic    kind = ""
	kindA         kind = "dns"
	kindSRV       kind = "dnssrv"
	kindSRVNoA    kind = "dnssrvnoa"
	kindDualStack kind = "dnsdualstack"
)

// address is an address taken apart.
type address struct {
	kind   kind
	scheme string // with its slashes, as in "http://"; mostly empty
	host   string
	port   string // may be empty after an SRV kind
}

// IsDynamic tells whether addr has to be looked up, that is, has one of the prefixes.
func IsDynamic(addr string) bool {
	k, _ := cutKind(addr)
	return k != kindStatic
}

// Name returns the host:port, or host, that is looked up for addr: without prefix and scheme.
func Name(addr string) string {
	_, rest := cutKind(addr)
	if i := strings.Index(rest, "//"); i >= 0 {
		rest = rest[i+2:]
	}
	return rest
}

// Authority returns what the servers of addr are called together, in TLS and in requests: the host:port, or
// host, that is looked up, without the _service._proto. of SRV names and a trailing dot.
func Authority(addr string) string {
	name := Name(addr)
	for strings.HasPrefix(name, "_") {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	if host, port, err := net.SplitHostPort(name); err == nil {
		return net.JoinHostPort(strings.TrimSuffix(host, "."), port)
	}
	return strings.TrimSuffix(name, ".")
}

// Validate reports an address with a prefix that can never be resolved as it is written.
func Validate(addr string) error {
	_, err := parse(addr)
	return err
}

func cutKind(addr string) (kind, string) {
	prefix, rest, found := strings.Cut(addr, "+")
	if found {
		switch k := kind(prefix); k {
		case kindA, kindSRV, kindSRVNoA, kindDualStack:
			return k, rest
		}
	}
	return kindStatic, addr
}

// parse takes an address apart. Of a static one only the kind is filled in.
func parse(addr string) (address, error) {
	k, rest := cutKind(addr)
	if k == kindStatic {
		return address{}, nil
	}
	a := address{kind: k}
	if i := strings.Index(rest, "//"); i >= 0 {
		a.scheme, rest = rest[:i+2], rest[i+2:]
	}
	a.host, a.port = rest, ""
	if host, port, err := net.SplitHostPort(rest); err == nil {
		a.host, a.port = host, port
	} else if strings.Contains(rest, ":") && net.ParseIP(strings.Trim(rest, "[]")) == nil {
		return address{}, fmt.Errorf("address %q: want host:port: %w", addr, err)
	}
	if a.host == "" {
		return address{}, fmt.Errorf("address %q has no name to look up", addr)
	}
	if a.port == "" && (k == kindA || k == kindDualStack) {
		return address{}, fmt.Errorf("address %q needs a port: only SRV records bring their own", addr)
	}
	return a, nil
}

// with writes one result.
func (a address) with(host, port string) string {
	if a.port != "" {
		port = a.port
	}
	return a.scheme + net.JoinHostPort(host, port)
}
