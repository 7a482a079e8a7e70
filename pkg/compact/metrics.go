package compact

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/koios-metrics/koios/pkg/block"
)

type metrics struct {
	iterations, retries                                                             prometheus.Counter
	halted                                                                          prometheus.Gauge
	marked                                                                          *prometheus.CounterVec
	collected, collections, collectionFailures                                      prometheus.Counter
	collectionDuration                                                              prometheus.Histogram
	cleanLoops, cleaned, cleanFailures, aborted                                     prometheus.Counter
	runsStarted, runsCompleted, compactions, compactionFailures, verticalCompaction *prometheus.CounterVec
	downsamples, downsampleFailures                                                 *prometheus.CounterVec
	downsampleDuration                                                              *prometheus.HistogramVec
	todoMerges, todoMergedBlocks, todoDeletions, todoDownsamples                    prometheus.Gauge
	deleteDelay, consistencyDelay, lastProgress, behind, waiting                    prometheus.Gauge
	tsdb                                                                            tsdbMetrics
}

// tsdbMetrics are those that Prometheus's own database has of merging, which dashboards look for. Those of chunks are of
// blocks that are cut from memory: here they stay empty, as in Thanos.
type tsdbMetrics struct {
	compactions, verticalCompactions       prometheus.Counter
	duration                               prometheus.Histogram
	populating                             prometheus.Gauge
	chunkBytes, chunkSamples, chunkSeconds prometheus.Histogram
}

func newTSDBMetrics(f promauto.Factory) tsdbMetrics {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "prometheus_tsdb_compaction_" + name, Help: help, Buckets: buckets})
	}
	return tsdbMetrics{
		compactions:         f.NewCounter(prometheus.CounterOpts{Name: "prometheus_tsdb_compactions_total", Help: "Merges that made a block."}),
		verticalCompactions: f.NewCounter(prometheus.CounterOpts{Name: "prometheus_tsdb_vertical_compactions_total", Help: "Merges of blocks that overlap in time."}),
		duration:            histogram("duration_seconds", "Time taken by a merge, without downloads and uploads, in seconds.", prometheus.ExponentialBuckets(1, 2, 14)),
		populating:          f.NewGauge(prometheus.GaugeOpts{Name: "prometheus_tsdb_compaction_populating_block", Help: "Blocks that are being written by a merge."}),
		chunkBytes:          histogram("chunk_size_bytes", "Bytes of chunks at their first compaction.", prometheus.ExponentialBuckets(32, 1.5, 12)),
		chunkSamples:        histogram("chunk_samples", "Samples of chunks at their first compaction.", prometheus.ExponentialBuckets(4, 1.5, 12)),
		chunkSeconds:        histogram("chunk_range_seconds", "Time that chunks span at their first compaction.", prometheus.ExponentialBuckets(100, 4, 10)),
	}
}

const (
	markerDeletion  = block.DeletionMarkFilename
	markerNoCompact = block.NoCompactMarkFilename
)

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "thanos_compact_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	vec := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_compact_" + name, Help: help}, []string{"resolution"})
	}
	m := &metrics{
		iterations: counter("iterations_total", "Passes over the bucket that ended."),
		retries:    counter("retries_total", "Steps that failed because of the bucket or the network and will be tried again."),
		halted:     gauge("thanos_compact_halted", "Whether a group is parked until somebody looks at it (1) or none is (0). Everything else goes on."),
		marked: f.NewCounterVec(prometheus.CounterOpts{
			Name: "thanos_compact_blocks_marked_total", Help: "Marks written, by marker and reason.",
		}, []string{"marker", "reason"}),
		collected:          counter("garbage_collected_blocks_total", "Blocks marked for deletion because their data is in another block."),
		collections:        counter("garbage_collection_total", "Plans that had such blocks."),
		collectionFailures: counter("garbage_collection_failures_total", "Such blocks that could not be marked."),
		collectionDuration: f.NewHistogram(prometheus.HistogramOpts{
			Name: "thanos_compact_garbage_collection_duration_seconds", Help: "Time taken to check and mark such a block, in seconds.",
			Buckets: []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720},
		}),
		cleanLoops:         counter("block_cleanup_loops_total", "Rounds of deleting."),
		cleaned:            counter("blocks_cleaned_total", "Blocks deleted."),
		cleanFailures:      counter("block_cleanup_failures_total", "Blocks that could not be deleted."),
		aborted:            counter("aborted_partial_uploads_deletion_attempts_total", "Unfinished uploads whose deletion was begun."),
		runsStarted:        vec("group_compaction_runs_started_total", "Merges begun, by resolution in ms."),
		runsCompleted:      vec("group_compaction_runs_completed_total", "Merges ended well, or with nothing to do, by resolution in ms."),
		compactions:        vec("group_compactions_total", "Merges that made a block, by resolution in ms."),
		compactionFailures: vec("group_compactions_failures_total", "Merges that failed, by resolution in ms."),
		verticalCompaction: vec("group_vertical_compactions_total", "Merges of blocks that overlap in time, by resolution in ms."),
		downsamples:        vec("downsample_total", "Blocks downsampled, by resolution of the input in ms."),
		downsampleFailures: vec("downsample_failures_total", "Blocks that could not be downsampled, by resolution of the input in ms."),
		downsampleDuration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "thanos_compact_downsample_duration_seconds", Help: "Time taken to downsample a block, in seconds, by resolution of the input in ms.",
			Buckets: []float64{60, 300, 900, 1800, 3600, 7200, 14400},
		}, []string{"resolution"}),
		todoMerges:       gauge("thanos_compact_todo_compactions", "Merges there are to do."),
		todoMergedBlocks: gauge("thanos_compact_todo_compaction_blocks", "Blocks that these merges will take."),
		todoDeletions:    gauge("thanos_compact_todo_deletion_blocks", "Blocks to be marked because their retention is over."),
		todoDownsamples:  gauge("thanos_compact_todo_downsample_blocks", "Blocks to be downsampled."),
		deleteDelay:      gauge("thanos_delete_delay_seconds", "How long a block stays after it was marked for deletion, in seconds."),
		consistencyDelay: gauge("thanos_consistency_delay_seconds", "Age at which a block is worked on, in seconds."),
		lastProgress:     gauge("koios_compact_last_progress_timestamp_seconds", "When a step last ended well, or there was nothing to do, in seconds since the epoch."),
		behind:           gauge("koios_compact_behind_seconds", "How long the group has had something to merge or downsample that has had so the longest, in seconds."),
		waiting:          gauge("koios_compact_waiting_steps", "Steps that failed and wait for their next try."),
		tsdb:             newTSDBMetrics(f),
	}
	for _, mr := range [][2]string{{markerNoCompact, string(block.NoCompactOutOfOrderChunk)}, {markerNoCompact, string(block.NoCompactIndexSize)}, {markerDeletion, ""}} {
		m.marked.WithLabelValues(mr[0], mr[1])
	}
	for _, res := range []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h} {
		for _, v := range []*prometheus.CounterVec{m.runsStarted, m.runsCompleted, m.compactions, m.compactionFailures, m.verticalCompaction} {
			v.WithLabelValues(resolutionLabel(res))
		}
		if coarser(res) != 0 {
			m.downsamples.WithLabelValues(resolutionLabel(res))
			m.downsampleFailures.WithLabelValues(resolutionLabel(res))
			m.downsampleDuration.WithLabelValues(resolutionLabel(res))
		}
	}
	return m
}

func resolutionLabel(res int64) string { return strconv.FormatInt(res, 10) }
