package bucket

import (
	"fmt"
	"slices"
	"time"

	"github.com/koios-metrics/koios/pkg/store"
)

// takesCoarser tells whether a request can be answered from blocks coarser than it asks for, where there are no others:
// it must say which aggregates it wants of them.
func takesCoarser(req *store.SeriesRequest) bool {
	return req.SkipChunks || slices.ContainsFunc(req.Aggregates, func(a store.Aggr) bool { return a != store.AggrRaw })
}

// coarserThan remarks on the blocks that are coarser than a request asks for. Nothing is missing for whoever reads
// aggregates, so it is no warning of missing data.
func coarserThan(ts []target, resolution int64) store.Warnings {
	var first *loaded
	n, mint, maxt := 0, int64(0), int64(0)
	for _, t := range ts {
		m := t.block.meta
		if m.Resolution() <= resolution {
			continue
		}
		if first == nil {
			first, mint, maxt = t.block, m.MinTime, m.MaxTime
		}
		n++
		mint, maxt = min(mint, m.MinTime), max(maxt, m.MaxTime)
	}
	if first == nil {
		return nil
	}
	return store.Warnings{&store.Info{Text: fmt.Sprintf(
		"no block of %s between %s and %s is as fine as asked for; %d coarser ones answer, the first is %s with a sample each %s",
		first.labels, store.FormatTime(mint), store.FormatTime(maxt), n, first.meta.ULID, time.Duration(first.meta.Resolution())*time.Millisecond)}}
}
