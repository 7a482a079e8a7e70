package dataset

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// StartTarget starts a server whose page /metrics shows the series as they are now, counted from the start
// of the target, and returns its host:port. It ends with the test.
//
// The page leaves out the labels job and instance, which are the scraper's to set; the one of the data is
// shown as "machine".
func StartTarget(t testing.TB) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(&page{all: All(), since: time.Now()})
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// page collects the series anew at each scrape.
type page struct {
	all   []Series
	since time.Time
}

// Describe implements prometheus.Collector: series come and go, so that nothing is promised.
func (p *page) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p *page) Collect(ch chan<- prometheus.Metric) {
	ms := time.Since(p.since).Milliseconds()
	for _, s := range p.all {
		if s.Present != nil && !s.Present(ms) {
			continue
		}
		name, fixed := shown(s.Labels)
		desc := prometheus.NewDesc(name, "Data for tests.", nil, fixed)
		if s.Histogram != nil {
			ch <- native(desc, s.Histogram(ms))
			continue
		}
		ch <- prometheus.MustNewConstMetric(desc, prometheus.UntypedValue, s.Float(ms))
	}
}

func shown(ls labels.Labels) (name string, fixed prometheus.Labels) {
	fixed = prometheus.Labels{}
	ls.Range(func(l labels.Label) {
		switch l.Name {
		case labels.MetricName:
			name = l.Value
		case "instance":
			fixed["machine"] = l.Value
		case "job":
		default:
			fixed[l.Name] = l.Value
		}
	})
	return name, fixed
}

func native(desc *prometheus.Desc, h *histogram.Histogram) prometheus.Metric {
	buckets := map[int]int64{}
	for it := h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		buckets[int(b.Index)] = int64(b.Count)
	}
	m, err := prometheus.NewConstNativeHistogram(desc, h.Count, h.Sum, buckets, nil, h.ZeroCount, h.Schema, h.ZeroThreshold, time.Time{})
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
