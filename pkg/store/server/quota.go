package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/store"
)

// quota counts what one request is sent, and refuses to go beyond its bounds.
type quota struct {
	config  Config
	dropped *prometheus.CounterVec

	series, chunks uint64
}

// take counts a series that is about to be sent.
func (q *quota) take(s *store.Series) error {
	series, chunks := q.series+1, q.chunks+uint64(len(s.Chunks))
	if limit := q.config.SeriesLimit; limit > 0 && series > limit {
		q.dropped.WithLabelValues(droppedSeries).Inc()
		return store.Errorf(store.KindLimit, "failed to send series: limit %d violated (got %d)", limit, series)
	}
	if limit := q.config.SamplesLimit; limit > 0 && chunks*samplesPerChunk > limit {
		q.dropped.WithLabelValues(droppedChunks).Inc()
		return store.Errorf(store.KindLimit, "failed to send samples: limit %d violated (got %d)", limit, chunks*samplesPerChunk)
	}
	q.series, q.chunks = series, chunks
	return nil
}
