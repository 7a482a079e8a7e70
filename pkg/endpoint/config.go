package endpoint

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/store"
)

// Config says whom the set consists of and how they are reached.
type Config struct {
	// Endpoints are addresses, plain or with a DNS prefix (see package discovery).
	Endpoints []string
	// Strict are plain addresses that are asked for data whether they are healthy or not.
	Strict []string
	// Groups are addresses that stand for one load-balanced peer each, whatever they resolve to.
	Groups, StrictGroups []string

	// SD is the YAML of the endpoint file; SDFile is its path. One of them at most.
	SD     []byte
	SDFile string
	// SDReloadInterval is how often SDFile is read again.
	SDReloadInterval time.Duration

	// Files are Prometheus file_sd files of addresses, read again every FilesInterval.
	Files         []string
	FilesInterval time.Duration

	// Resolver and DNSInterval say how, and how often, DNS names are looked up.
	Resolver    discovery.Resolver
	DNSInterval time.Duration

	// Client is how peers are reached unless the endpoint file says otherwise.
	Client clientconf.GRPC
	// DialOptions are added to those of each connection, such as a stats handler for tracing.
	DialOptions []grpc.DialOption

	// InfoTimeout is how long a peer may take to describe itself, and the pause between two rounds of asking.
	InfoTimeout time.Duration
	// UnhealthyTimeout is how long a peer that has stopped to answer is still listed.
	UnhealthyTimeout time.Duration
	// QueryTimeout is how long calls may run; connections to peers that left are closed no earlier.
	QueryTimeout time.Duration

	// Budget is charged with what has to be held of the answers of all peers; nil is no bound.
	Budget *store.Budget

	// MetricPrefix begins the metrics of DNS and duplicates, for example thanos_query.
	MetricPrefix string
	// ConnectionLabels are the labels of thanos_store_nodes_grpc_connections: external_labels,
	// store_type and ip_port, or some of them.
	ConnectionLabels []string
}

// DefaultConfig holds the defaults of a querier.
func DefaultConfig() Config {
	return Config{
		SDReloadInterval: 5 * time.Minute,
		FilesInterval:    5 * time.Minute,
		Resolver:         discovery.MiekgDNS,
		DNSInterval:      30 * time.Second,
		InfoTimeout:      5 * time.Second,
		UnhealthyTimeout: 5 * time.Minute,
		QueryTimeout:     2 * time.Minute,
		MetricPrefix:     "thanos_query",
		ConnectionLabels: []string{labelExternal, labelType},
	}
}

// Validate explains contradictions.
func (c *Config) Validate() error {
	if len(c.SD) > 0 && c.SDFile != "" {
		return errors.New("endpoints are given as content and as a file: give one of them")
	}
	for name, d := range map[string]time.Duration{"info timeout": c.InfoTimeout, "DNS interval": c.DNSInterval} {
		if d <= 0 {
			return fmt.Errorf("the %s of endpoints must be above zero, is %s", name, d)
		}
	}
	if c.SDFile != "" && c.SDReloadInterval <= 0 {
		return fmt.Errorf("the reload interval of the endpoint file must be above zero, is %s", c.SDReloadInterval)
	}
	for _, l := range c.ConnectionLabels {
		switch l {
		case labelExternal, labelType, labelAddress:
		default:
			return fmt.Errorf("unknown connection metric label %q: want %s, %s or %s", l, labelExternal, labelType, labelAddress)
		}
	}
	return c.Client.Validate()
}
