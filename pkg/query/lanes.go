package query

import (
	"math"

	"github.com/koios-metrics/koios/pkg/store"
)

// lane is a list of chunks that follow one another without overlap: one replica's, as far as chunks tell that
// don't name it. It indexes the chunks of its series.
type lane struct {
	chunks []int32
	end    int64 // time of the last sample
}

// split distributes the chunks of a series that don't tell whose they are, in order, to lanes. A chunk continues the lane whose
// rhythm it keeps: replicas scrape the same target at different moments of the interval, so the distance
// from the lane's last sample to the chunk's first is a multiple of the interval in one replica, and not
// between two. Only where the chunks begin and end does not matter: a Prometheus cuts them at the times
// asked for, a bucket does not, and the lanes must be the same. A chunk that keeps no lane's rhythm, or
// overlaps them all, opens a new one. The result depends on nothing but the chunks. Lanes of before are
// reused.
func split(cs []store.Chunk, unknown []int32, lanes []lane) []lane {
	for i := range lanes {
		lanes[i].chunks = lanes[i].chunks[:0]
	}
	lanes, free := lanes[:0], lanes
	usual := usualInterval(cs, unknown)
	for _, i := range unknown {
		c := &cs[i]
		best, bestOff := -1, int64(math.MaxInt64)
		for j := range lanes {
			l := &lanes[j]
			if l.end >= c.MinTime {
				continue
			}
			if off := offRhythm(c.MinTime-l.end, usual); off < bestOff && (usual == 0 || off <= usual/rhythmTolerance) {
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
		}
		l := &lanes[best]
		l.chunks = append(l.chunks, i)
		l.end = c.MaxTime
	}
	return lanes
}

// rhythmTolerance is the part of an interval that a scrape may come early or late and still be the same
// replica's.
const rhythmTolerance = 8

// offRhythm tells how far in ms a distance is from the nearest multiple of the interval.
func offRhythm(distance, interval int64) int64 {
	if interval == 0 {
		return distance
	}
	off := distance % interval
	return min(off, interval-off)
}

// usualInterval is the smallest average distance of samples in a chunk, 0 if none tells.
func usualInterval(cs []store.Chunk, unknown []int32) (least int64) {
	for _, i := range unknown {
		if d := interval(&cs[i]); d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
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

// sublanes distributes the chunks of one replica, in order, to lists in which none overlap, as few as there can be.
func sublanes(cs []store.Chunk, chunks []int32) (lanes []lane) {
next:
	for _, i := range chunks {
		for j := range lanes {
			if l := &lanes[j]; l.end < cs[i].MinTime {
				l.chunks, l.end = append(l.chunks, i), cs[i].MaxTime
				continue next
			}
		}
		lanes = append(lanes, lane{chunks: []int32{i}, end: cs[i].MaxTime})
	}
	return lanes
}
