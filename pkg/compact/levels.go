package compact

import (
	"fmt"
	"math"
	"slices"

	"github.com/koios-metrics/koios/pkg/block"
)

// floor is the largest multiple of a step that is not after t.
func floor(t, step int64) int64 {
	m := t % step
	if m < 0 {
		m += step
	}
	return t - m
}

func newestStart(blocks []*Block) int64 {
	newest := int64(math.MinInt64)
	for _, b := range blocks {
		newest = max(newest, b.Meta.MinTime)
	}
	return newest
}

// closed tells whether a window that ends at a time will get no more blocks: a newer one was seen, or it is long over.
func (p *planner) closed(end, newest int64) bool { return newest >= end || end+quietAfter <= p.now }

// merge plans the merges of a group: first what fills a window of a level, the longest windows first, because each
// sample is then rewritten least often; then overlaps; then tombstones. Blocks of planned merges are used.
func (p *planner) merge(g *Group, blocks []*Block) {
	p.leaveOut(g, blocks)
	for {
		runs, big := p.runs(blocks)
		if len(big) == 0 {
			for _, r := range runs {
				p.step(g, KindMerge, r.reason, r.blocks...).Vertical = overlapping(r.blocks)
			}
			return
		}
		// Around these, the rest is planned anew. Each round takes blocks away, so there is a last one.
		for _, b := range big {
			reason := fmt.Sprintf("the merge it was planned for could get an index past %d bytes", p.settings.IndexBytesMax)
			p.step(g, KindNoCompact, reason, b)
			b.out = true
			g.LeftOut[b.Meta.ULID] = reason
		}
	}
}

// leaveOut finds the blocks of a group that no merge may have.
func (p *planner) leaveOut(g *Group, blocks []*Block) {
	leave := func(b *Block, reason string) {
		b.out = true
		if g.LeftOut[b.Meta.ULID] == "" {
			g.LeftOut[b.Meta.ULID] = reason
		}
	}
	for _, b := range blocks {
		switch {
		case b.held:
			b.out = true
		case b.SetAside:
			leave(b, "set aside")
		case b.NoCompact:
			leave(b, "marked against compaction")
		case b.Meta.Compaction.Failed:
			leave(b, "a merge of it failed in Prometheus")
		}
	}
	for _, c := range clusters(mergeable(blocks)) {
		switch {
		case g.Resolution != block.ResolutionRaw:
			for _, b := range c {
				leave(b, "overlaps others, and downsampled blocks are not merged over each other")
			}
		case !p.settings.Vertical && classify(c) == overlapReal:
			for _, b := range c {
				leave(b, "overlaps others with data of its own, and vertical compaction is off")
			}
			if g.Stuck == "" {
				g.Stuck = fmt.Sprintf("%d blocks overlap from %s on: two writers have the same external labels, or vertical compaction should be on", len(c), c[0].Meta.ULID)
			}
		}
	}
}

// mergeable are the blocks that are not left out.
func mergeable(blocks []*Block) []*Block {
	in := make([]*Block, 0, len(blocks))
	for _, b := range blocks {
		if !b.out {
			in = append(in, b)
		}
	}
	return in
}

// run is a set of blocks to be merged.
type run struct {
	blocks []*Block
	reason string
}

// runs finds the merges of a group, disjoint. Of those whose index could get too big, and that the windows of no lower
// level divide, it returns the biggest block instead.
func (p *planner) runs(blocks []*Block) (runs []run, big []*Block) {
	for _, b := range blocks {
		b.used = false
	}
	add := func(reason string, bs []*Block) {
		if biggest := p.tooBig(bs); biggest != nil {
			big = append(big, biggest)
		} else {
			runs = append(runs, run{bs, reason})
		}
		for _, b := range bs {
			b.used = true
		}
	}
	newest := newestStart(blocks)
	for level := min(p.settings.Level, MaxLevel); level >= 1; level-- {
		reason := fmt.Sprintf("level %d", level)
		for _, bs := range p.windows(blocks, ranges[level], newest) {
			// The windows of a lower level divide what is too much; in the lowest one, as many as may be are taken.
			if len(bs) > p.settings.InputsMax {
				if level > 1 {
					continue
				}
				bs = bs[:p.settings.InputsMax]
			}
			if level > 1 && p.tooBig(bs) != nil && divides(ranges[level-1], bs) {
				continue
			}
			add(reason, bs)
		}
	}
	for _, c := range clusters(mergeable(blocks)) {
		if slices.ContainsFunc(c, func(b *Block) bool { return b.used }) {
			continue // what the levels merge may take the overlap away
		}
		add("overlap: "+string(classify(c)), c[:min(len(c), p.settings.InputsMax)])
	}
	// The newest block is left alone: more may come that overlaps it.
	for _, b := range slices.Backward(blocks[:max(len(blocks)-1, 0)]) {
		if b.length() < ranges[len(ranges)/2] {
			break
		}
		part := float64(b.Meta.Stats.NumTombstones) / float64(b.Meta.Stats.NumSeries+1)
		if part > tombstonesPart && !b.out && !b.used {
			add("tombstones", []*Block{b})
		}
	}
	return runs, big
}

// divides tells whether a window of a length has two or more of the blocks to itself, so that they get fewer.
func divides(length int64, blocks []*Block) bool {
	for i := 1; i < len(blocks); i++ {
		end := floor(blocks[i-1].Meta.MinTime, length) + length
		if blocks[i-1].Meta.MaxTime <= end && blocks[i].Meta.MaxTime <= end {
			return true
		}
	}
	return false
}

// windows finds the runs of two or more blocks in the aligned windows of one length that get no more blocks. A run ends
// at a block that is left out or used, so that the result overlaps nothing.
func (p *planner) windows(blocks []*Block, length, newest int64) (runs [][]*Block) {
	for i := 0; i < len(blocks); {
		end := floor(blocks[i].Meta.MinTime, length) + length
		j := i
		for j < len(blocks) && blocks[j].Meta.MinTime < end {
			j++
		}
		if j-i > 1 && p.closed(end, newest) {
			runs = windowRuns(runs, blocks[i:j], end)
		}
		i = j
	}
	return runs
}

// windowRuns appends the runs in the blocks that begin in one window.
func windowRuns(runs [][]*Block, blocks []*Block, end int64) [][]*Block {
	var r []*Block
	for _, b := range blocks {
		switch {
		case b.out || b.used:
			if len(r) > 1 {
				runs = append(runs, r)
			}
			r = nil
		case b.Meta.MaxTime <= end:
			r = append(r, b)
		} // What is longer than the window belongs to a higher level.
	}
	if len(r) > 1 {
		runs = append(runs, r)
	}
	return runs
}

// tooBig returns the biggest of the blocks if their indexes are too big together.
func (p *planner) tooBig(blocks []*Block) (biggest *Block) {
	if p.settings.IndexBytesMax <= 0 || len(blocks) < 2 {
		return nil
	}
	var total int64
	for _, b := range blocks {
		total += b.indexBytes()
		if biggest == nil || b.indexBytes() > biggest.indexBytes() {
			biggest = b
		}
	}
	if float64(total) < indexBytesPart*float64(p.settings.IndexBytesMax) {
		return nil
	}
	return biggest
}
