package discovery

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// dnsMetrics are the metrics of one DNS. It collects the number of results of each address from the DNS
// itself, so that a scrape never sees half an update.
type dnsMetrics struct {
	lookups  prometheus.Counter
	failures prometheus.Counter
	results  *prometheus.Desc
	dns      *DNS
}

func newDNSMetrics(prefix string, reg prometheus.Registerer, d *DNS) *dnsMetrics {
	m := &dnsMetrics{
		lookups: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: prefix + "_dns_lookups_total",
			Help: "DNS names looked up.",
		}),
		failures: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: prefix + "_dns_failures_total",
			Help: "DNS names whose lookup failed. A name that does not exist is no failure.",
		}),
		results: prometheus.NewDesc(prefix+"_dns_provider_results",
			"Addresses that each configured address resolves to.", []string{"addr"}, nil),
		dns: d,
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *dnsMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.results }

// Collect implements prometheus.Collector.
func (m *dnsMetrics) Collect(ch chan<- prometheus.Metric) {
	m.dns.mu.RLock()
	defer m.dns.mu.RUnlock()
	for _, addr := range m.dns.order {
		ch <- prometheus.MustNewConstMetric(m.results, prometheus.GaugeValue, float64(len(m.dns.result[addr])), addr)
	}
}
