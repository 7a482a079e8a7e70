package bucketops

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type downsampleMetrics struct {
	done, failures *prometheus.CounterVec
	duration       *prometheus.HistogramVec
}

func newDownsampleMetrics(reg prometheus.Registerer) downsampleMetrics {
	f := promauto.With(reg)
	m := downsampleMetrics{
		done:     f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_compact_downsample_total", Help: "Blocks downsampled, by the resolution of their source in ms."}, []string{"resolution"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_compact_downsample_failures_total", Help: "Blocks whose downsampling failed, by their resolution in ms."}, []string{"resolution"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "thanos_compact_downsample_duration_seconds", Help: "Time to downsample a block, in seconds.",
			Buckets: []float64{60, 300, 900, 1800, 3600, 7200, 14400},
		}, []string{"resolution"}),
	}
	for _, res := range []string{"0", "300000"} {
		m.done.WithLabelValues(res)
		m.failures.WithLabelValues(res)
		m.duration.WithLabelValues(res)
	}
	return m
}

type replicateMetrics struct {
	already, blocks, objects prometheus.Counter
	runs                     *prometheus.CounterVec
	duration                 *prometheus.HistogramVec
}

func newReplicateMetrics(reg prometheus.Registerer) replicateMetrics {
	f := promauto.With(reg)
	m := replicateMetrics{
		already: f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_blocks_already_replicated_total", Help: "Blocks that the target had already."}),
		blocks:  f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_blocks_replicated_total", Help: "Blocks copied."}),
		objects: f.NewCounter(prometheus.CounterOpts{Name: "thanos_replicate_objects_replicated_total", Help: "Objects copied."}),
		runs:    f.NewCounterVec(prometheus.CounterOpts{Name: "thanos_replicate_replication_runs_total", Help: "Runs of replication, by their result."}, []string{"result"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "thanos_replicate_replication_run_duration_seconds", Help: "Time of a run of replication in seconds, by its result.",
		}, []string{"result"}),
	}
	for _, r := range []string{resultSuccess, resultError} {
		m.runs.WithLabelValues(r)
		m.duration.WithLabelValues(r)
	}
	return m
}

// The results of a run of replication.
const (
	resultSuccess = "success"
	resultError   = "error"
)
