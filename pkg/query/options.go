package query

import (
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// Options are the wishes of one request about where its data comes from.
type Options struct {
	// Dedup merges series that differ only in ReplicaLabels.
	Dedup         bool
	ReplicaLabels []string
	// StoreMatchers select stores, see store.SeriesRequest.
	StoreMatchers [][]*labels.Matcher
	// MaxResolution is the coarsest acceptable resolution of downsampled data in ms; 0 is raw only.
	MaxResolution int64
	// PartialResponse says what becomes of the request when part of the data can't be had.
	PartialResponse store.PartialResponse
	// Shard asks for one part of the series; nil is all.
	Shard *store.Shard
	// SkipChunks asks for labels only; no series has samples then.
	SkipChunks bool
}

// withoutLabels names the labels that are taken off every series.
func (o *Options) withoutLabels() []string {
	if !o.Dedup {
		return nil
	}
	return o.ReplicaLabels
}

// batchSize is how many series may travel in one frame on a wire.
const batchSize = 64

// request translates a select. Hints may be nil.
func (o *Options) request(mint, maxt int64, hints *storage.SelectHints, ms []*labels.Matcher) *store.SeriesRequest {
	if hints == nil {
		hints = &storage.SelectHints{Start: mint, End: maxt}
	}
	req := &store.SeriesRequest{
		MinTime:              hints.Start,
		MaxTime:              hints.End,
		Matchers:             ms,
		MaxResolution:        maxResolution(o.MaxResolution, hints),
		Aggregates:           aggregates(hints.Func),
		SkipChunks:           o.SkipChunks || hints.Func == "series",
		WithoutReplicaLabels: o.withoutLabels(),
		Shard:                o.Shard,
		Limit:                hints.Limit,
		PartialResponse:      o.PartialResponse,
		BatchSize:            batchSize,
		StoreMatchers:        o.StoreMatchers,
	}
	if len(hints.ProjectionLabels) > 0 || hints.ProjectionInclude {
		req.Hints = &store.Hints{ProjectionLabels: hints.ProjectionLabels, ProjectionInclude: hints.ProjectionInclude, SeriesHashLabelName: "__series_hash__"}
	}
	return req
}

// maxResolution makes sure that functions over a range which need two samples find at least two.
func maxResolution(resolution int64, hints *storage.SelectHints) int64 {
	switch hints.Func {
	case "rate", "irate", "increase", "delta", "idelta", "deriv", "predict_linear", "holt_winters", "double_exponential_smoothing":
		if hints.Range > 0 {
			return min(resolution, hints.Range/2)
		}
	}
	return resolution
}

// aggregates are those that a PromQL function reads from downsampled data.
func aggregates(function string) []store.Aggr {
	is := func(name string) bool { return function == name || strings.HasPrefix(function, name+"_") }
	switch {
	case is("min"):
		return []store.Aggr{store.AggrMin}
	case is("max"):
		return []store.Aggr{store.AggrMax}
	case is("count"):
		return []store.Aggr{store.AggrCount}
	case strings.HasPrefix(function, "sum_"):
		return []store.Aggr{store.AggrSum}
	case dedup.IsCounterFunc(function):
		return []store.Aggr{store.AggrCounter}
	}
	return []store.Aggr{store.AggrCount, store.AggrSum}
}

// Lookback returns how far back instant selectors look when data of a resolution (in ms) may be used:
// the configured distance, raised so that at least one sample of such data lies within; 0 is the
// engine's default.
func (c Config) Lookback(resolution int64) time.Duration {
	const fiveMinutes, hour = 5 * time.Minute, time.Hour
	l, r := c.LookbackDelta, time.Duration(resolution)*time.Millisecond
	switch {
	case !c.DynamicLookback:
		return l
	case r > max(fiveMinutes, l):
		return max(hour, l)
	case r > max(0, l):
		return max(fiveMinutes, l)
	}
	return l
}
