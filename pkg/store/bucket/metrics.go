package bucket

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/tenancy"
)

type metrics struct {
	blocksLoaded, lastLoaded                       prometheus.Gauge
	blockLoads, blockLoadFailures                  prometheus.Counter
	lazyPostings                                   prometheus.Counter
	blockDrops, blockDropFailures                  prometheus.Counter
	blockLoadDuration                              prometheus.Histogram
	blocksQueried, resultSeries, getAll, merge     *prometheus.HistogramVec
	sentChunkSize                                  *prometheus.HistogramVec
	touched, touchedBytes, fetched, fetchedBytes   *prometheus.HistogramVec
	postingsSize                                   *prometheus.HistogramVec
	lazyPostingBytes, lazyOverfetched              prometheus.Counter
	lazyGroups                                     *prometheus.CounterVec
	queriesDropped, damaged                        *prometheus.CounterVec
	seriesRefetches, chunkRefetches, emptyPostings *prometheus.CounterVec

	// Of reads from the bucket, and of all reads of a request together; there is no sum of postings.
	fetchDuration, fetchDurationSum [dataTypes]*prometheus.HistogramVec
}

var (
	durationBuckets = []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}
	countBuckets    = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}
	bytesBuckets    = []float64{32, 256, 512, 1024, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20, 256 << 20, 512 << 20}
)

func newMetrics(cfg Config, reg prometheus.Registerer) *metrics {
	const prefix = "thanos_bucket_store_"
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets})
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		blocksLoaded:      gauge("blocks_loaded", "Blocks that are being served."),
		lastLoaded:        gauge("blocks_last_loaded_timestamp_seconds", "When the last look at the bucket ended well, in seconds since the epoch."),
		blockLoads:        counter("block_loads_total", "Attempts to load a block."),
		blockLoadFailures: counter("block_load_failures_total", "Blocks that could not be loaded, and were set aside until the next look at the bucket."),
		blockDrops:        counter("block_drops_total", "Blocks that are not served any more."),
		blockDropFailures: counter("block_drop_failures_total", "Blocks whose local files could not be removed."),
		blockLoadDuration: histogram("block_load_duration_seconds", "Time taken to load a block, in seconds.", durationBuckets),
		blocksQueried:     histograms("series_blocks_queried", "Blocks that a Series request read.", countBuckets, "tenant"),
		resultSeries:      histograms("series_result_series", "Series that a request returned.", countBuckets, "tenant"),
		getAll:            histograms("series_get_all_duration_seconds", "Time until all blocks of a Series request were opened, in seconds.", durationBuckets, "tenant"),
		merge:             histograms("series_merge_duration_seconds", "Time from there until the series were read, in seconds.", durationBuckets, "tenant"),
		sentChunkSize:     histograms("sent_chunk_size_bytes", "Sizes of chunks read, in bytes.", bytesBuckets, "tenant"),
		touched:           histograms("series_data_touched", "Items that a request looked at, by kind.", countBuckets, "data_type", "tenant"),
		touchedBytes:      histograms("series_data_size_touched_bytes", "Bytes of the items that a request looked at, by kind.", bytesBuckets, "data_type", "tenant"),
		fetched:           histograms("series_data_fetched", "Items that a request fetched from the bucket, by kind.", countBuckets, "data_type", "tenant"),
		fetchedBytes:      histograms("series_data_size_fetched_bytes", "Bytes that a request fetched from the bucket, gaps included, by kind.", bytesBuckets, "data_type", "tenant"),
		queriesDropped:    counters("queries_dropped_total", "Requests refused because of a limit, by limit.", "reason", "tenant"),
		seriesRefetches:   counters("series_refetches_total", "Series that were longer than estimated and were read again.", "tenant"),
		chunkRefetches:    counters("chunk_refetches_total", "Chunks that were longer than estimated and were read again.", "tenant"),
		lazyPostings:      counter("lazy_expanded_postings_total", "Requests to a block in which posting lists were left unread because reading the series was cheaper."),
		emptyPostings:     counters("empty_postings_total", "Blocks in which no series matched.", "tenant"),
	}
	m.lazyPostingBytes = counter("lazy_expanded_posting_size_bytes_total", "Bytes of the posting lists that were left unread.")
	m.lazyOverfetched = counter("lazy_expanded_posting_series_overfetched_size_bytes_total", "Bytes of series that were read because posting lists were left unread, and did not match.")
	m.lazyGroups = counters("lazy_expanded_posting_groups_total", "Matchers whose posting lists were left unread, by reason.", "reason")
	for _, reason := range []string{lazyBySize, lazyByKeys} {
		m.lazyGroups.WithLabelValues(reason)
	}
	m.postingsSize = histograms("postings_size_bytes", "Size of the posting lists that a request looked at, in bytes.", bytesBuckets, "tenant")
	for d, name := range map[dataType]string{postingsData: "postings", seriesData: "series", chunksData: "chunks"} {
		m.fetchDuration[d] = histograms(name+"_fetch_duration_seconds", "Time taken by each read of "+name+" from the bucket, in seconds.", durationBuckets, "tenant")
	}
	for d, name := range map[dataType]string{seriesData: "series", chunksData: "chunks"} {
		m.fetchDurationSum[d] = histograms(name+"_fetch_duration_sum_seconds", "Time taken by all reads of "+name+" of a request, which may run side by side, in seconds.", durationBuckets, "tenant")
	}
	f.NewGauge(prometheus.GaugeOpts{Name: "thanos_consistency_delay_seconds", Help: "Smallest age of a block that is served, in seconds."}).Set(cfg.ConsistencyDelay.Seconds())
	// Whoever sums these wants them at 0 before the first request.
	const t = tenancy.DefaultTenant
	for _, h := range []*prometheus.HistogramVec{m.blocksQueried, m.resultSeries, m.getAll, m.merge, m.sentChunkSize, m.postingsSize} {
		h.WithLabelValues(t)
	}
	for d := range dataTypes {
		m.fetchDuration[d].WithLabelValues(t)
		if sum := m.fetchDurationSum[d]; sum != nil {
			sum.WithLabelValues(t)
		}
		for _, h := range []*prometheus.HistogramVec{m.touched, m.touchedBytes, m.fetched, m.fetchedBytes} {
			h.WithLabelValues(d.String(), t)
		}
	}
	for _, reason := range []string{"series", "chunks", "bytes", "queue"} {
		m.queriesDropped.WithLabelValues(reason, t)
	}
	m.damaged = f.NewCounterVec(prometheus.CounterOpts{Name: "koios_store_damaged_blocks_total", Help: "Blocks that were found to be damaged while they were read, by what of them is; counted again after an hour."}, []string{"part"})
	for _, part := range damagedParts {
		m.damaged.WithLabelValues(string(part))
	}
	for _, c := range []*prometheus.CounterVec{m.seriesRefetches, m.chunkRefetches, m.emptyPostings} {
		c.WithLabelValues(t)
	}
	return m
}

// observe records what a request took.
func (m *metrics) observe(a *account, tenant string) {
	m.postingsSize.WithLabelValues(tenant).Observe(float64(a.touchedBytes[postingsData].Load()))
	for d := range dataTypes {
		if sum := m.fetchDurationSum[d]; sum != nil {
			sum.WithLabelValues(tenant).Observe(time.Duration(a.fetchTime[d].Load()).Seconds())
		}
		m.touched.WithLabelValues(d.String(), tenant).Observe(float64(a.touched[d].Load()))
		m.touchedBytes.WithLabelValues(d.String(), tenant).Observe(float64(a.touchedBytes[d].Load()))
		m.fetched.WithLabelValues(d.String(), tenant).Observe(float64(a.fetched[d].Load()))
		m.fetchedBytes.WithLabelValues(d.String(), tenant).Observe(float64(a.fetchedBytes[d].Load()))
	}
}
