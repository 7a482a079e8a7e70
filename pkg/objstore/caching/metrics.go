package caching

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
)

// Where bytes came from, as values of the label "origin".
const (
	originCache  = "cache"
	originBucket = "bucket"
)

type metrics struct {
	requests, hits                               *prometheus.CounterVec
	requestedBytes, fetchedBytes, refetchedBytes *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "thanos_store_bucket_cache_" + name, Help: help}, labels)
	}
	m := &metrics{
		requests:       counters("operation_requests_total", "Operations that the cache was asked about; of ranges, pieces.", "operation", "config"),
		hits:           counters("operation_hits_total", "Operations that the cache answered; of ranges, pieces.", "operation", "config"),
		requestedBytes: counters("getrange_requested_bytes_total", "Bytes of ranges that were asked for.", "config"),
		fetchedBytes:   counters("getrange_fetched_bytes_total", "Bytes of pieces that were read, by where they came from.", "origin", "config"),
		refetchedBytes: counters("getrange_refetched_bytes_total", "Bytes that were read from the bucket though they were known, by where they were known from.", "origin", "config"),
	}
	for _, c := range []*prometheus.CounterVec{m.requests, m.hits} {
		c.WithLabelValues(objstore.OpGet, metaConfig)
		c.WithLabelValues(objstore.OpExists, metaConfig)
		c.WithLabelValues(objstore.OpIter, iterConfig)
		c.WithLabelValues(objstore.OpAttributes, chunksConfig)
		c.WithLabelValues(objstore.OpGetRange, chunksConfig)
	}
	m.requestedBytes.WithLabelValues(chunksConfig)
	m.fetchedBytes.WithLabelValues(originCache, chunksConfig)
	m.fetchedBytes.WithLabelValues(originBucket, chunksConfig)
	m.refetchedBytes.WithLabelValues(originCache, chunksConfig)
	return m
}
