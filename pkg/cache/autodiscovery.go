package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The bounds of an answer to "config get cluster".
const (
	discoveryLineBytesMax    = 256
	discoveryPayloadBytesMax = 1 << 20
)

// autoDiscovery asks configuration endpoints for the servers of their clusters, as ElastiCache has it.
type autoDiscovery struct {
	timeout time.Duration
	dial    func(network, addr string, timeout time.Duration) (net.Conn, error)

	total, failures    prometheus.Counter
	version, addresses *prometheus.GaugeVec
}

func newAutoDiscovery(timeout time.Duration, dial func(string, string, time.Duration) (net.Conn, error), reg prometheus.Registerer) *autoDiscovery {
	const prefix = "thanos_memcached_auto_discovery_"
	f := promauto.With(reg)
	return &autoDiscovery{
		timeout: timeout, dial: dial,
		total:     f.NewCounter(prometheus.CounterOpts{Name: prefix + "total", Help: "Times that servers were asked for."}),
		failures:  f.NewCounter(prometheus.CounterOpts{Name: prefix + "failures_total", Help: "Times that no answer came, or none that could be read."}),
		version:   f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "config_version", Help: "The version of the list of servers."}, []string{"addr"}),
		addresses: f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "resolved_addresses", Help: "The number of servers in the list."}, []string{"addr"}),
	}
}

// discover returns the servers of all endpoints. One that does not answer fails it, since half of the servers would
// move most keys.
func (d *autoDiscovery) discover(ctx context.Context, endpoints []string) ([]string, error) {
	var all []string
	for _, e := range endpoints {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.total.Inc()
		version, servers, err := d.ask(e)
		if err != nil {
			d.failures.Inc()
			return nil, fmt.Errorf("ask %s for its servers: %w", e, err)
		}
		d.version.WithLabelValues(e).Set(float64(version))
		d.addresses.WithLabelValues(e).Set(float64(len(servers)))
		all = append(all, servers...)
	}
	return all, nil
}

func (d *autoDiscovery) ask(endpoint string) (version int, servers []string, err error) {
	conn, err := d.dial("tcp", endpoint, d.timeout)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		return 0, nil, err
	}
	if _, err := io.WriteString(conn, "config get cluster\r\n"); err != nil {
		return 0, nil, err
	}
	return readClusterConfig(conn)
}

// readClusterConfig reads an answer:
//
//	CONFIG cluster <flags> <bytes>\r\n
//	<version>\n
//	<host>|<ip>|<port> <host>|<ip>|<port>…\n
//	\r\n
//	END\r\n
func readClusterConfig(r io.Reader) (version int, servers []string, err error) {
	br := bufio.NewReaderSize(r, discoveryLineBytesMax)
	head, err := br.ReadSlice('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("read the first line: %w", err)
	}
	f := strings.Fields(string(head))
	if len(f) != 4 || f[0] != "CONFIG" || f[1] != "cluster" {
		return 0, nil, fmt.Errorf("the answer begins with %q, not with CONFIG cluster: this is no configuration endpoint", string(head))
	}
	n, err := strconv.Atoi(f[3])
	if err != nil || n < 0 || n > discoveryPayloadBytesMax {
		return 0, nil, fmt.Errorf("the answer says it has %q bytes", f[3])
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(br, payload); err != nil {
		return 0, nil, fmt.Errorf("read the list: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(payload)), "\n")
	if len(lines) != 2 {
		return 0, nil, fmt.Errorf("the list has %d lines, not 2", len(lines))
	}
	if version, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil {
		return 0, nil, fmt.Errorf("the version %q is no number", lines[0])
	}
	for s := range strings.FieldsSeq(lines[1]) {
		p := strings.Split(s, "|")
		if len(p) != 3 {
			return 0, nil, fmt.Errorf("the server %q is not host|ip|port", s)
		}
		if _, err := strconv.ParseUint(p[2], 10, 16); err != nil {
			return 0, nil, fmt.Errorf("the server %q has no port", s)
		}
		host := p[0]
		if host == "" {
			host = p[1]
		}
		if host == "" {
			return 0, nil, fmt.Errorf("the server %q has no host", s)
		}
		servers = append(servers, net.JoinHostPort(host, p[2]))
	}
	if len(servers) == 0 {
		return 0, nil, errors.New("the list is empty")
	}
	return version, servers, nil
}
