package shipper

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	syncs          prometheus.Counter
	syncFailures   prometheus.Counter
	uploads        prometheus.Counter
	uploadFailures prometheus.Counter
	corrupted      prometheus.Counter
	compactedDone  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		syncs: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_shipper_dir_syncs_total",
			Help: "Rounds over the local blocks.",
		}),
		syncFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_shipper_dir_sync_failures_total",
			Help: "Rounds over the local blocks that ended with an error.",
		}),
		uploads: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_shipper_uploads_total",
			Help: "Blocks uploaded.",
		}),
		uploadFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_shipper_upload_failures_total",
			Help: "Blocks whose upload failed; each is tried again.",
		}),
		corrupted: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_shipper_corrupted_blocks_total",
			Help: "Times that a local block was found unreadable.",
		}),
		compactedDone: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_shipper_upload_compacted_done",
			Help: "Whether all compacted local blocks are uploaded; 0 too when they are not to be.",
		}),
	}
}
