package block

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// State says what a Fetch made of a block. The texts are values of the label "state".
type State string

// The states.
const (
	StateCorruptedMeta         State = "corrupted-meta-json"
	StateNoMeta                State = "no-meta-json"
	StateLoaded                State = "loaded"
	StateTooFresh              State = "too-fresh"
	StateFailed                State = "failed"
	StateLabelExcluded         State = "label-excluded"
	StateTimeExcluded          State = "time-excluded"
	StateDuplicate             State = "duplicate"
	StateMarkedForDeletion     State = "marked-for-deletion"
	StateMarkedForNoCompact    State = "marked-for-no-compact"
	StateMarkedForNoDownsample State = "marked-for-no-downsample"
	StateParquetConverted      State = "parquet-converted"
)

// The states that are exported before any block is in them. The last one is a name of old, kept for dashboards.
var initialStates = []State{
	StateCorruptedMeta, StateNoMeta, StateLoaded, StateTooFresh, StateFailed, StateLabelExcluded, StateTimeExcluded,
	StateDuplicate, StateMarkedForDeletion, StateMarkedForNoCompact, "parquet-migrated",
}

type fetcherMetrics struct {
	syncs, syncFailures       prometheus.Counter
	baseSyncs, baseCacheBusts prometheus.Counter
	syncDuration              prometheus.Histogram
	synced, modified          *prometheus.GaugeVec
	seen                      map[State]bool
}

func newFetcherMetrics(prefix string, reg prometheus.Registerer) *fetcherMetrics {
	f := promauto.With(reg)
	m := &fetcherMetrics{
		syncs:          f.NewCounter(prometheus.CounterOpts{Name: prefix + "_syncs_total", Help: "Looks at the bucket for block metadata."}),
		syncFailures:   f.NewCounter(prometheus.CounterOpts{Name: prefix + "_sync_failures_total", Help: "Looks at the bucket that failed or left the metadata of some block unknown."}),
		baseSyncs:      f.NewCounter(prometheus.CounterOpts{Name: prefix + "_base_syncs_total", Help: "Listings of the bucket, shared or not, before any filter."}),
		baseCacheBusts: f.NewCounter(prometheus.CounterOpts{Name: prefix + "_base_cache_busts_total", Help: "Cached metadata that was thrown away because it was unreadable or older than its object."}),
		syncDuration: f.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "_sync_duration_seconds", Help: "Time taken by a look at the bucket, in seconds.",
			Buckets: []float64{0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 600, 1000},
		}),
		synced:   f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "_synced", Help: "Blocks by what the last look at the bucket made of them."}, []string{"state"}),
		modified: f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "_modified", Help: "Blocks whose metadata was changed after reading, by the change."}, []string{"modified"}),
		seen:     map[State]bool{},
	}
	for _, s := range initialStates {
		m.seen[s] = true
		m.synced.WithLabelValues(string(s))
	}
	m.modified.WithLabelValues("replica-label-removed")
	return m
}

// publish shows the counts of one look at the bucket; states without a count go to 0.
func (m *fetcherMetrics) publish(counts map[State]int) {
	for s := range maps.Keys(counts) {
		m.seen[s] = true
	}
	for s := range m.seen {
		m.synced.WithLabelValues(string(s)).Set(float64(counts[s]))
	}
}
