package frontend

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/promapi"
)

// The kinds of requests, as metrics have them.
const (
	opRange       = "query_range"
	opInstant     = "query"
	opLabelNames  = "label_names"
	opLabelValues = "label_values"
	opSeries      = "series"
)

// metrics are what the frontend counts.
type metrics struct {
	requests  *prometheus.CounterVec
	byUser    *prometheus.CounterVec
	seconds   *prometheus.CounterVec
	series    *prometheus.CounterVec
	chunks    *prometheus.CounterVec
	durations *prometheus.HistogramVec

	splits, metadataSplits                   prometheus.Counter
	cortexSplits                             prometheus.Counter
	retries, instantRetries, metadataRetries prometheus.Histogram
	shardable, instantShardable              *prometheus.CounterVec
	extra                                    prometheus.Counter
	uncacheable                              prometheus.Counter
	unreadable                               prometheus.Counter
	cachedSteps, computedSteps               prometheus.Counter
	queued                                   prometheus.Gauge
	queueSeconds                             prometheus.Histogram
	refused                                  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	all := promauto.With(reg)
	of := func(tripperware string) promauto.Factory {
		return promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"tripperware": tripperware}, reg))
	}
	ranges, instants, metadata := of("query_range"), of("query_instant"), of("labels")
	splits := prometheus.CounterOpts{Name: "thanos_frontend_split_queries_total", Help: "Parts that requests were split into."}
	retries := prometheus.HistogramOpts{Name: "cortex_query_frontend_retries", Help: "How often a request was sent again.", Buckets: []float64{0, 1, 2, 3, 4, 5}}
	shardable := prometheus.CounterOpts{Name: "thanos_frontend_sharding_middleware_queries_total", Help: "Queries by whether they can be sharded; none are looked at without --query-frontend.vertical-shards."}
	steps := ranges.NewCounterVec(prometheus.CounterOpts{Name: "koios_frontend_steps_total", Help: "Steps of range queries, by where they came from."}, []string{"from"})
	m := &metrics{
		requests: all.NewCounterVec(prometheus.CounterOpts{Name: "thanos_query_frontend_queries_total", Help: "Requests by what they ask for."}, []string{"op"}),
		byUser:   all.NewCounterVec(prometheus.CounterOpts{Name: "cortex_query_frontend_queries_total", Help: "Requests by what they ask for and by organisation."}, []string{"op", "user"}),
		seconds:  all.NewCounterVec(prometheus.CounterOpts{Name: "cortex_query_seconds_total", Help: "Time taken to answer requests, in seconds."}, []string{"user"}),
		series:   all.NewCounterVec(prometheus.CounterOpts{Name: "cortex_query_fetched_series_total", Help: "Series that queriers have read from stores, as far as they tell."}, []string{"user"}),
		chunks:   all.NewCounterVec(prometheus.CounterOpts{Name: "cortex_query_fetched_chunks_bytes_total", Help: "Bytes of chunks that queriers have read from stores, as far as they tell."}, []string{"user"}),
		durations: ranges.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cortex_frontend_query_range_duration_seconds", Help: "Time taken to answer range queries, in seconds.", Buckets: prometheus.DefBuckets,
		}, []string{"method", "status_code"}),
		splits:          ranges.NewCounter(splits),
		metadataSplits:  metadata.NewCounter(splits),
		cortexSplits:    ranges.NewCounter(prometheus.CounterOpts{Name: "cortex_frontend_split_queries_total", Help: "Parts that range queries were split into."}),
		retries:         ranges.NewHistogram(retries),
		instantRetries:  instants.NewHistogram(retries),
		metadataRetries: metadata.NewHistogram(retries),
		shardable:       ranges.NewCounterVec(shardable, []string{"shardable"}), instantShardable: instants.NewCounterVec(shardable, []string{"shardable"}),
		extra:         ranges.NewCounter(prometheus.CounterOpts{Name: "thanos_frontend_downsampled_extra_queries_total", Help: "Queries asked for the missing beginnings of answers at a coarser resolution."}),
		uncacheable:   ranges.NewCounter(prometheus.CounterOpts{Name: "koios_frontend_uncacheable_queries_total", Help: "Queries whose answers are not for keeping."}),
		unreadable:    all.NewCounter(prometheus.CounterOpts{Name: "koios_frontend_unreadable_entries_total", Help: "Entries of response caches that could not be read and were dropped."}),
		cachedSteps:   steps.WithLabelValues("cache"),
		computedSteps: steps.WithLabelValues("querier"),
		queued:        all.NewGauge(prometheus.GaugeOpts{Name: "koios_frontend_queue_length", Help: "Requests that wait until queriers have room."}),
		queueSeconds: all.NewHistogram(prometheus.HistogramOpts{
			Name: "koios_frontend_queue_duration_seconds", Help: "Time that requests waited until queriers had room, in seconds.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		refused: all.NewCounterVec(prometheus.CounterOpts{Name: "koios_frontend_queue_refused_total", Help: "Requests refused because too many waited: of their tenant, or of all."}, []string{"waiting"}),
	}
	for _, op := range []string{opRange, opInstant, opLabelNames, opLabelValues, opSeries} {
		m.requests.WithLabelValues(op)
		m.byUser.WithLabelValues(op, "anonymous")
	}
	m.seconds.WithLabelValues("anonymous")
	m.series.WithLabelValues("anonymous")
	m.chunks.WithLabelValues("anonymous")
	m.durations.WithLabelValues("POST", "200")
	for _, s := range []string{"true", "false"} {
		m.shardable.WithLabelValues(s)
		m.instantShardable.WithLabelValues(s)
	}
	m.refused.WithLabelValues("tenant")
	m.refused.WithLabelValues("all")
	return m
}

// request counts a request.
func (m *metrics) request(op, user string) {
	m.requests.WithLabelValues(op).Inc()
	m.byUser.WithLabelValues(op, user).Inc()
}

// fetched counts what a querier says that it has read for somebody.
func (m *metrics) fetched(answer http.Header, user string) {
	for name, to := range map[string]*prometheus.CounterVec{promapi.FetchedSeriesHeader: m.series, promapi.FetchedChunkBytesHeader: m.chunks} {
		if n, err := strconv.ParseUint(answer.Get(name), 10, 63); err == nil {
			to.WithLabelValues(user).Add(float64(n))
		}
	}
}

// observeRange measures a range query until there is an answer or an error.
func (m *metrics) observeRange(s *queryStats, err error) {
	code := "200"
	if err != nil {
		code = "error"
	}
	m.durations.WithLabelValues("POST", code).Observe(time.Since(s.begin).Seconds())
}
