package query

import (
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
)

// pair merges two lanes of floats in arrays as package dedup does, faster where they are regular.
//
// In a stretch of time where both lanes have a sample each interval, and one of them (the leader) always
// comes clearly after the longer pause of the other, the rules of package dedup can only choose the
// leader's own samples: nobody misses any, the order of the replicas is everywhere the same, no timestamp is
// shared, and no sample can show a fall that its own lane has not seen. So these are copied. What is near the
// ends of a stretch is merged by package dedup, with as much around it as samples matter to one another.
//
// The numbers: distances between neighbours are within an eighth of the interval, so that whatever interval
// dedup learns from them, no distance is as long as one and a half of it and no third neighbour is as near;
// the two pauses differ by at least 1/64 of the interval, and dedup compares averages in 1/1024.
type pair struct {
	lanes     [2]xor.Samples
	stretches []stretch
	inputs    []chunkenc.Iterator
	its       [2]xor.Iterator
	merged    chunkenc.Iterator
	copied    int // samples that dedup did not have to look at
}

// stretch is a time from its first to its last sample in which one lane leads.
type stretch struct {
	from, to int64
	lead     int
}

// margin is how many intervals at either end of a stretch are left to dedup: a cell and its neighbours are
// no longer than 14.
const margin = 32

// merge appends the merged samples from mint to maxt to dst. The interval is the shortest that the lanes seem
// to have, reach is how far samples matter to one another. It returns false when it can't be done.
func (p *pair) merge(dst *xor.Samples, opts dedup.Options, interval, reach, mint, maxt int64) bool {
	if interval < 64 {
		return false
	}
	p.find(interval)
	at := mint // everything before has been merged
	for _, s := range p.stretches {
		from, to := max(later(s.from, margin*interval), at), min(earlier(s.to, margin*interval), maxt)
		if to-from < margin*interval {
			continue
		}
		if from > at && !p.slow(dst, opts, reach, at, from-1) {
			return false
		}
		lead := p.lanes[s.lead].Between(from, to)
		dst.Times, dst.Values = append(dst.Times, lead.Times...), append(dst.Values, lead.Values...)
		p.copied += lead.Len()
		at = to + 1
	}
	return at > maxt || p.slow(dst, opts, reach, at, maxt)
}

// slow lets package dedup merge what lies from mint to maxt.
func (p *pair) slow(dst *xor.Samples, opts dedup.Options, reach, mint, maxt int64) bool {
	p.inputs = p.inputs[:0]
	for i := range p.lanes {
		p.its[i].Reset(p.lanes[i].Between(earlier(mint, reach), later(maxt, reach)), nil)
		p.inputs = append(p.inputs, &p.its[i])
	}
	p.merged = dedup.Merge(p.merged, p.inputs, opts)
	for kind := p.merged.Seek(mint); kind != chunkenc.ValNone; kind = p.merged.Next() {
		t, v := p.merged.At()
		if t > maxt {
			return true
		}
		dst.Times, dst.Values = append(dst.Times, t), append(dst.Values, v)
	}
	return p.merged.Err() == nil
}

// find lists the stretches.
func (p *pair) find(interval int64) {
	p.stretches = p.stretches[:0]
	a, b := &p.lanes[0], &p.lanes[1]
	least, most := interval-interval/8, interval+interval/8
	short, long := interval/64*31, interval-interval/2
	cur := stretch{lead: -1}
	end := func() {
		if cur.lead >= 0 && cur.to > cur.from {
			p.stretches = append(p.stretches, cur)
		}
		cur.lead = -1
	}
	for i, j := 0, 0; i < len(a.Times) || j < len(b.Times); {
		if i > 0 && j > 0 && cur.lead >= 0 {
			// The fast path: pairs of samples that go on as before.
			lead, follow, k, l := a.Times, b.Times, i, j
			leadV, followV := a.Values, b.Values
			if cur.lead == 1 {
				lead, follow, k, l = follow, lead, j, i
				leadV, followV = followV, leadV
			}
			k0 := k
			for k < len(lead) && l < len(follow) {
				pause, answer := lead[k]-follow[l-1], follow[l]-lead[k]
				if d := lead[k] - lead[k-1]; d < least || d > most || pause < long || answer > short || answer <= 0 {
					break
				}
				if d := follow[l] - follow[l-1]; d < least || d > most || value.IsStaleNaN(leadV[k]) || value.IsStaleNaN(followV[l]) {
					break
				}
				k++
				l++
			}
			if k > k0 {
				cur.to = follow[l-1]
				if cur.lead == 1 {
					i, j = l, k
				} else {
					i, j = k, l
				}
				continue
			}
		}
		// One sample by itself.
		mine, other, at, of, lane := a, b, i, j, 0
		if i == len(a.Times) || j < len(b.Times) && b.Times[j] < a.Times[i] {
			mine, other, at, of, lane = b, a, j, i, 1
		}
		if lane == 0 {
			i++
		} else {
			j++
		}
		t := mine.Times[at]
		class := -1
		if at > 0 && of > 0 && (of >= len(other.Times) || other.Times[of] != t) && !value.IsStaleNaN(mine.Values[at]) {
			d, pause := t-mine.Times[at-1], t-other.Times[of-1]
			switch {
			case d < least || d > most || pause <= 0:
			case pause >= long:
				class = lane
			case pause <= short:
				class = 1 - lane
			}
		}
		if class != cur.lead || class < 0 {
			end()
			cur = stretch{from: t, lead: class}
		}
		cur.to = t
	}
	end()
}
