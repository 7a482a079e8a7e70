package compact

import (
	"github.com/koios-metrics/koios/pkg/block"
)

// retains tells whether the retention of a resolution covers a time in ms.
func (p *planner) retains(resolution, maxt int64) bool {
	r := p.settings.Retention[resolution]
	return r == 0 || maxt+r.Milliseconds() >= p.now
}

// successor is the resolution at which a block's data must be there before the block may go; 0 is that none must. It is
// the next resolution whose retention covers the block.
func (p *planner) successor(b *Block) int64 {
	if !p.settings.Downsample {
		return 0
	}
	for res := coarser(b.Meta.Resolution()); res != 0; res = coarser(res) {
		if p.retains(res, b.Meta.MaxTime) {
			return res
		}
	}
	return 0
}

// expire plans away the blocks past their retention, and returns the rest. Those that are past it and still needed are
// held; they are not merged any more. A block that is set aside is kept for as long and no longer: no successor will be
// made of it.
func (p *planner) expire(g *Group, blocks []*Block, stays map[int64]*holdings) (live []*Block) {
	for _, b := range blocks {
		if p.retains(g.Resolution, b.Meta.MaxTime) {
			live = append(live, b)
			continue
		}
		var successors []*Block
		if res := p.successor(b); res != 0 && !b.SetAside {
			if successors = stays[res].cover(b); successors == nil {
				b.held = true
				live = append(live, b)
				g.LeftOut[b.Meta.ULID] = "past its retention, kept until its data is there at " + resolutionName(res)
				continue
			}
		}
		st := p.step(g, KindExpire, "block exceeding retention of "+p.settings.Retention[g.Resolution].String(), b)
		for _, s := range successors {
			st.Successors = append(st.Successors, s.Meta.ULID)
		}
	}
	return live
}

// downsample plans the blocks of a group that are due for the next resolution, and in no merge.
func (p *planner) downsample(g *Group, live []*Block, stays map[int64]*holdings) {
	target := coarser(g.Resolution)
	if !p.settings.Downsample || target == 0 {
		return
	}
	newest := newestStart(live)
	for _, b := range live {
		id := b.Meta.ULID
		switch {
		case b.SetAside || b.used || !b.held && !p.due(b, newest) || !p.wanted(b, target, stays):
		case b.NoDownsample:
			if g.LeftOut[id] == "" {
				g.LeftOut[id] = "marked against downsampling"
			}
		default:
			reason := "its data is old enough"
			if b.held {
				reason = "past its retention"
			}
			p.step(g, KindDownsample, reason, b)
		}
	}
}

// wanted tells whether anyone wants the data of a block at a resolution: the retention of it, or that of a coarser one
// that is made from it.
func (p *planner) wanted(b *Block, target int64, stays map[int64]*holdings) bool {
	for res := target; res != 0; res = coarser(res) {
		if stays[res].cover(b) != nil {
			return false
		}
		if p.retains(res, b.Meta.MaxTime) {
			return true
		}
	}
	return false
}

// due tells whether a block is to be downsampled now: it is long enough, or its data old enough and no block will come
// that it could be merged with.
func (p *planner) due(b *Block, newest int64) bool {
	after, window := downsampleAfter5m, ranges[3]
	if b.Meta.Resolution() == block.Resolution5m {
		after, window = downsampleAfter1h, ranges[4]
	}
	if b.length() >= after {
		return true
	}
	return b.Meta.MaxTime+after <= p.now && p.closed(floor(b.Meta.MinTime, window)+window, newest)
}
