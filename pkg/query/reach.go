package query

import (
	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// bound notes the times that were asked for and, where replicas are merged, widens the request: which of
// them is taken at a time depends on their samples around it, and must not depend on what is asked.
func (r *reading) bound(req *store.SeriesRequest) {
	r.mint, r.maxt = req.MinTime, req.MaxTime
	if r.merge.Mode != dedup.Stay || req.SkipChunks || req.Limit > 0 {
		return
	}
	r.reach = dedup.Reach(req.MaxResolution)
	req.MinTime, req.MaxTime = dedup.Add(r.mint, -r.reach), dedup.Add(r.maxt, r.reach)
}

// around returns the times between which the chunks of a replica are decoded: as far around those asked for as
// samples matter to one another, but from a chunk on that has enough samples before them to say what lies
// between those asked for.
func (r *reading) around(cs []store.Chunk, chunks []int32) (mint, maxt int64) {
	mint, maxt = dedup.Add(r.mint, -r.reach), dedup.Add(r.maxt, r.reach)
	for _, i := range chunks {
		if c := &cs[i]; c.MaxTime < r.mint && chunkSamples(c) >= 4*dedup.Context {
			mint = max(mint, c.MinTime)
		}
	}
	return mint, maxt
}

// holds tells whether some chunk may have samples at the times asked for.
func (r *reading) holds(cs []store.Chunk) bool {
	for i := range cs {
		if cs[i].MinTime <= r.maxt && cs[i].MaxTime >= r.mint {
			return true
		}
	}
	return len(cs) == 0
}
