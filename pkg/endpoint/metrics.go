package endpoint

import (
	"slices"
	"strings"
	"unicode/utf8"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// The labels of thanos_store_nodes_grpc_connections.
const (
	labelExternal = "external_labels"
	labelType     = "store_type"
	labelAddress  = "ip_port"
)

// noExternalLabels stands for peers without external labels; externalBytesMax cuts the text of those of
// peers with very many.
const (
	noExternalLabels = "no_external_labels"
	externalBytesMax = 1000
)

// clientBuckets are the bounds in seconds of grpc_client_handling_seconds.
var clientBuckets = []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}

type metrics struct {
	duplicates prometheus.Counter
	client     *grpcprom.ClientMetrics

	connections *prometheus.Desc
	labels      []string
	set         *Set
}

func newMetrics(cfg *Config, reg prometheus.Registerer, set *Set) *metrics {
	m := &metrics{
		duplicates: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: cfg.MetricPrefix + "_duplicated_endpoint_addresses_total",
			Help: "Addresses that came up more than once among the endpoints, counted at each update.",
		}),
		client: grpcprom.NewClientMetrics(grpcprom.WithClientHandlingTimeHistogram(
			grpcprom.WithHistogramOpts(&prometheus.HistogramOpts{
				Buckets:                        clientBuckets,
				NativeHistogramBucketFactor:    1.1,
				NativeHistogramMaxBucketNumber: 256,
			}),
		)),
		connections: prometheus.NewDesc("thanos_store_nodes_grpc_connections",
			"Endpoints that are asked for data.", cfg.ConnectionLabels, nil),
		labels: cfg.ConnectionLabels,
		set:    set,
	}
	if reg != nil {
		reg.MustRegister(m.client, m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.connections }

// Collect implements prometheus.Collector: it counts the peers by the labels asked for.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counts := map[[3]string]int{}
	for _, p := range m.set.all() {
		p.mu.Lock()
		queryable, info := p.queryableLocked(), p.info
		p.mu.Unlock()
		if !queryable || info == nil {
			continue
		}
		var key [3]string
		for i, l := range m.labels {
			switch l {
			case labelExternal:
				key[i] = externalLabels(p.store.Describe().LabelSets)
			case labelType:
				key[i] = string(componentOf(info.GetComponentType()))
			case labelAddress:
				key[i] = p.spec.name
			}
		}
		counts[key]++
	}
	for key, n := range counts {
		ch <- prometheus.MustNewConstMetric(m.connections, prometheus.GaugeValue, float64(n), key[:len(m.labels)]...)
	}
}

func externalLabels(sets []labels.Labels) string {
	if len(sets) == 0 {
		return noExternalLabels
	}
	texts := make([]string, len(sets))
	for i, ls := range sets {
		texts[i] = ls.String()
	}
	slices.Sort(texts)
	text := strings.Join(texts, ",")
	if len(text) <= externalBytesMax {
		return text
	}
	cut := externalBytesMax
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}
