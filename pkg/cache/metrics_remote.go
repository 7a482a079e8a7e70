package cache

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/grafana/gomemcache/memcache"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The operations, and the reasons for not doing them, as labels have them.
const (
	opGet = "getmulti"
	opSet = "set"

	reasonTooLarge    = "max-item-size"
	reasonQueueFull   = "async-buffer-full"
	reasonUnavailable = "server-unavailable"
)

// remoteMetrics are those of a cache outside of this process. What one kind does not export is not registered.
type remoteMetrics struct {
	requests, hits                    prometheus.Counter
	foreign, abandoned                prometheus.Counter
	leftAlone                         prometheus.Gauge
	operations, failures, skipped     *prometheus.CounterVec
	operationDuration, operationBytes *prometheus.HistogramVec
}

// newRemoteMetrics makes the metrics of a cache. The kind is memcached, redis or groupcache; the Registerer adds the
// label "name".
func newRemoteMetrics(kind string, reg prometheus.Registerer) *remoteMetrics {
	public := promauto.With(reg)
	memcachedOnly, withDuration, withHits := public, public, public
	none := promauto.With(nil)
	switch kind {
	case "redis":
		memcachedOnly = none
	case "groupcache":
		memcachedOnly, withDuration, withHits = none, none, none
	}
	prefix := "thanos_" + kind + "_"
	m := &remoteMetrics{
		requests:   withHits.NewCounter(prometheus.CounterOpts{Name: "thanos_cache_" + kind + "_requests_total", Help: "Keys looked for in the cache."}),
		hits:       withHits.NewCounter(prometheus.CounterOpts{Name: "thanos_cache_" + kind + "_hits_total", Help: "Keys found in the cache."}),
		foreign:    public.NewCounter(prometheus.CounterOpts{Name: "koios_cache_dropped_entries_total", Help: "Entries of a cache that were damaged or not ours, and were not believed."}),
		abandoned:  public.NewCounter(prometheus.CounterOpts{Name: "koios_cache_abandoned_fetches_total", Help: "Reads from a cache that were not waited for any longer."}),
		leftAlone:  public.NewGauge(prometheus.GaugeOpts{Name: "koios_cache_servers_left_alone", Help: "Servers of a cache that fail or are too slow, and are probed in the background only."}),
		operations: memcachedOnly.NewCounterVec(prometheus.CounterOpts{Name: prefix + "operations_total", Help: "Operations asked of the servers."}, []string{"operation"}),
		failures:   memcachedOnly.NewCounterVec(prometheus.CounterOpts{Name: prefix + "operation_failures_total", Help: "Operations that failed, by reason."}, []string{"operation", "reason"}),
		skipped:    memcachedOnly.NewCounterVec(prometheus.CounterOpts{Name: prefix + "operation_skipped_total", Help: "Keys and entries that no server was asked about, by reason."}, []string{"operation", "reason"}),
		operationDuration: withDuration.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "operation_duration_seconds", Help: "Time taken by operations, in seconds.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1},
		}, []string{"operation"}),
		operationBytes: memcachedOnly.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "operation_data_size_bytes", Help: "Bytes read or written by operations.",
			Buckets: []float64{32, 256, 512, 1024, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20, 256 << 20, 512 << 20},
		}, []string{"operation"}),
	}
	for _, op := range []string{opGet, opSet} {
		m.operations.WithLabelValues(op)
		m.operationDuration.WithLabelValues(op)
		m.operationBytes.WithLabelValues(op)
		m.skipped.WithLabelValues(op, reasonUnavailable)
		for _, reason := range []string{"timeout", "network-error", "server-error", "other"} {
			m.failures.WithLabelValues(op, reason)
		}
	}
	m.skipped.WithLabelValues(opSet, reasonTooLarge)
	m.skipped.WithLabelValues(opSet, reasonQueueFull)
	return m
}

func (m *remoteMetrics) skip(op, reason string) { m.skipped.WithLabelValues(op, reason).Inc() }

func (m *remoteMetrics) observe(op string, took time.Duration, bytes int, err error) {
	m.operations.WithLabelValues(op).Inc()
	m.operationDuration.WithLabelValues(op).Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(op, reasonOf(err)).Inc()
		return
	}
	m.operationBytes.WithLabelValues(op).Observe(float64(bytes))
}

func reasonOf(err error) string {
	var ne net.Error
	var ce *memcache.ConnectTimeoutError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout(), errors.As(err, &ce):
		return "timeout"
	case errors.As(err, &ne):
		return "network-error"
	case errors.Is(err, errRefused), errors.Is(err, memcache.ErrServerError), errors.Is(err, memcache.ErrNotStored):
		return "server-error"
	}
	return "other"
}
