package query

import (
	"math"

	"github.com/koios-metrics/koios/pkg/store"
)

// lane is a list of chunks that follow one another without overlap: one replica's, as far as the
// chunks tell. It indexes the chunks of its series.
type lane struct {
	chunks   []int32
	end      int64 // time of the last sample
	interval int64 // between samples of the last chunk, 0 if unknown
}

// overlap tells whether chunks, which are in order, need more than one lane.
func overlap(cs []store.Chunk) bool {
	for i := 1; i < len(cs); i++ {
		if cs[i].MinTime <= cs[i-1].MaxTime {
			return true
		}
	}
	return false
}

// split distributes the chunks of a series, which are in order, to lanes. A chunk continues the lane whose
// last sample lies closest to one scrape interval before it: replicas scrape the same target at
// different moments of the interval, so this follows one replica from chunk to chunk even where both
// could go on. A chunk that overlaps the end of every lane opens a new one. The result depends on nothing
// but the chunks. Lanes of before are reused.
func split(cs []store.Chunk, lanes []lane) []lane {
	for i := range lanes {
		lanes[i].chunks = lanes[i].chunks[:0]
	}
	lanes, free := lanes[:0], lanes
	for i := range cs {
		c := &cs[i]
		between := interval(c)
		best, bestOff := -1, int64(math.MaxInt64)
		for j := range lanes {
			l := &lanes[j]
			if l.end >= c.MinTime {
				continue
			}
			expected := between
			if expected == 0 {
				expected = l.interval
			}
			off := c.MinTime - l.end - expected
			if off < 0 {
				off = -off
			}
			if off < bestOff {
				best, bestOff = j, off
			}
		}
		if best < 0 {
			best = len(lanes)
			if best < len(free) {
				lanes = free[:best+1]
			} else {
				lanes = append(lanes, lane{})
				free = lanes
			}
			lanes[best].interval = 0
		}
		l := &lanes[best]
		l.chunks = append(l.chunks, int32(i))
		l.end = c.MaxTime
		if between > 0 {
			l.interval = between
		}
	}
	return lanes
}

// interval is the average distance in ms between the samples of a chunk, 0 if it can't be told.
func interval(c *store.Chunk) int64 {
	n := samples(&c.Raw)
	if c.Aggrs != nil && !c.Raw.Present() {
		c.Payloads(func(_ store.Aggr, p *store.Payload) {
			if n == 0 {
				n = samples(p)
			}
		})
	}
	if n < 2 || c.MaxTime <= c.MinTime {
		return 0
	}
	return (c.MaxTime - c.MinTime) / int64(n-1)
}
