package compact

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/oklog/ulid/v2"

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
// sample is then rewritten least often; then overlaps; then tombstones. Blocks of planned merges are put into busy.
func (p *planner) merge(g *Group, blocks []*Block, held, busy map[ulid.ULID]bool) {
	out := p.leaveOut(g, blocks, held)
	for {
		runs := p.runs(g, blocks, out)
		big := p.tooBig(runs)
		if big == nil {
			for _, r := range runs {
				p.step(g, KindMerge, r.reason, r.blocks...).Vertical = overlapping(r.blocks)
				for _, b := range r.blocks {
					busy[b.Meta.ULID] = true
				}
			}
			return
		}
		reason := fmt.Sprintf("the merge it was planned for could get an index past %d bytes", p.settings.IndexBytesMax)
		p.step(g, KindNoCompact, reason, big)
		out[big.Meta.ULID] = true
		g.LeftOut[big.Meta.ULID] = reason
	}
}

// leaveOut finds the blocks of a group that no merge may have.
func (p *planner) leaveOut(g *Group, blocks []*Block, held map[ulid.ULID]bool) map[ulid.ULID]bool {
	out := maps.Clone(held)
	leave := func(b *Block, reason string) {
		out[b.Meta.ULID] = true
		if g.LeftOut[b.Meta.ULID] == "" {
			g.LeftOut[b.Meta.ULID] = reason
		}
	}
	var rest []*Block
	for _, b := range blocks {
		switch {
		case out[b.Meta.ULID]:
		case b.SetAside:
			leave(b, "set aside")
		case b.NoCompact:
			leave(b, "marked against compaction")
		case b.Meta.Compaction.Failed:
			leave(b, "a merge of it failed in Prometheus")
		default:
			rest = append(rest, b)
		}
	}
	for _, c := range clusters(rest) {
		o := classify(c)
		switch {
		case g.Resolution != block.ResolutionRaw:
			for _, b := range c {
				leave(b, "overlaps others, and downsampled blocks are not merged over each other")
			}
		case !p.settings.Vertical && o == overlapReal:
			for _, b := range c {
				leave(b, "overlaps others with data of its own, and vertical compaction is off")
			}
			if g.Stuck == "" {
				g.Stuck = fmt.Sprintf("%d blocks overlap from %s on: two writers have the same external labels, or vertical compaction should be on", len(c), c[0].Meta.ULID)
			}
		}
	}
	return out
}

// run is a set of blocks to be merged.
type run struct {
	blocks []*Block
	reason string
}

// runs finds the merges of a group, disjoint.
func (p *planner) runs(g *Group, blocks []*Block, out map[ulid.ULID]bool) (runs []run) {
	used := map[ulid.ULID]bool{}
	add := func(reason string, bs []*Block) {
		runs = append(runs, run{bs, reason})
		for _, b := range bs {
			used[b.Meta.ULID] = true
		}
	}
	newest := newestStart(blocks)
	for level := min(p.settings.Level, MaxLevel); level >= 1; level-- {
		for _, bs := range p.windows(blocks, ranges[level], newest, out, used) {
			if len(bs) > p.settings.InputsMax {
				// The windows of a lower level divide it; in the lowest one, as many as may be are taken.
				if level > 1 {
					continue
				}
				bs = bs[:p.settings.InputsMax]
			}
			add(fmt.Sprintf("level %d", level), bs)
		}
	}
	for _, c := range clusters(without(blocks, out)) {
		if slices.ContainsFunc(c, func(b *Block) bool { return used[b.Meta.ULID] }) {
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
		if part > tombstonesPart && !out[b.Meta.ULID] && !used[b.Meta.ULID] {
			add("tombstones", []*Block{b})
		}
	}
	return runs
}

// windows finds the runs of two or more blocks in the aligned windows of one length that get no more blocks. A run ends
// at a block that is left out, so that the result overlaps nothing.
func (p *planner) windows(blocks []*Block, length, newest int64, out, used map[ulid.ULID]bool) (runs [][]*Block) {
	for i := 0; i < len(blocks); {
		start := floor(blocks[i].Meta.MinTime, length)
		end := start + length
		j := i
		for j < len(blocks) && blocks[j].Meta.MinTime < end {
			j++
		}
		if p.closed(end, newest) {
			var r []*Block
			for _, b := range append(slices.Clone(blocks[i:j]), nil) {
				if b != nil && !out[b.Meta.ULID] && !used[b.Meta.ULID] && b.Meta.MaxTime <= end {
					r = append(r, b)
					continue
				}
				if b != nil && b.Meta.MaxTime > end && !out[b.Meta.ULID] && !used[b.Meta.ULID] {
					continue // longer than the window: it belongs to a higher level
				}
				if len(r) > 1 {
					runs = append(runs, r)
				}
				r = nil
			}
		}
		i = j
	}
	return runs
}

// tooBig returns the biggest block of the first run whose indexes are too big together.
func (p *planner) tooBig(runs []run) *Block {
	if p.settings.IndexBytesMax <= 0 {
		return nil
	}
	for _, r := range runs {
		if len(r.blocks) < 2 {
			continue
		}
		var total int64
		var biggest *Block
		for _, b := range r.blocks {
			total += b.indexBytes()
			if biggest == nil || b.indexBytes() > biggest.indexBytes() {
				biggest = b
			}
			if float64(total) >= indexBytesPart*float64(p.settings.IndexBytesMax) {
				return biggest
			}
		}
	}
	return nil
}
