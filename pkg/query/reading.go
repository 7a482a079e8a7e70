package query

import (
	"fmt"

	"github.com/prometheus/prometheus/storage"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// reading says how the samples of the series of one select are read from their chunks.
type reading struct {
	// mint and maxt bound the samples handed out, in ms, both inclusive.
	mint, maxt int64
	// reach is how far in ms around them the request was widened.
	reach int64
	// aggr is read from downsampled chunks; AggrRaw stands for the average, from count and sum.
	aggr store.Aggr
	// merge says how replicas become one stream.
	merge dedup.Options
	// reserve charges the bytes of decoded samples to the budget; nil does not.
	reserve func(int64) error
}

func readingOf(opts *Options, mode dedup.Mode, hints *storage.SelectHints) reading {
	function := ""
	if hints != nil {
		function = hints.Func
	}
	r := reading{aggr: store.AggrRaw, merge: dedup.Options{Mode: dedup.Chain}}
	if as := aggregates(function); len(as) == 1 {
		r.aggr = as[0]
	}
	if len(opts.withoutLabels()) > 0 {
		r.merge.Mode = mode
	}
	return r
}

// pick returns what is to be decoded of a chunk: one payload, or sum and count for the average.
func (r *reading) pick(c *store.Chunk) (value, count *store.Payload, err error) {
	if c.Raw.Present() {
		return &c.Raw, nil, nil
	}
	if a := c.Aggrs; a != nil {
		switch r.aggr {
		case store.AggrRaw:
			if a.Sum.Present() && a.Count.Present() {
				return &a.Sum, &a.Count, nil
			}
		case store.AggrCount:
			value = &a.Count
		case store.AggrSum:
			value = &a.Sum
		case store.AggrMin:
			value = &a.Min
		case store.AggrMax:
			value = &a.Max
		case store.AggrCounter:
			value = &a.Counter
		}
		if value != nil && value.Present() {
			return value, nil, nil
		}
	}
	return nil, nil, fmt.Errorf("no valid chunk found: neither raw samples nor the aggregates that the query needs")
}

// totals tells whether the chunks are read as totals of a counter: when the query wants counters and any
// chunk is downsampled. Counters of raw chunks alone are left as they were scraped.
func (r *reading) totals(cs []store.Chunk) bool {
	if r.aggr != store.AggrCounter {
		return false
	}
	for i := range cs {
		if !cs[i].Raw.Present() {
			return true
		}
	}
	return false
}
