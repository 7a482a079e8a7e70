package bucket

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// blockSet is what is served at one moment. It never changes: a look at the bucket that finds something new makes a new
// one.
type blockSet struct {
	byID   map[ulid.ULID]*loaded
	groups []*blockGroup // sorted by labels
	desc   store.Description
	aside  []SetAside
	holes  []hole // those of aside that may be missing from an answer
	known  bool   // the bucket has been looked at; false before that, and after Close
}

// blockGroup is the blocks of equal external labels.
type blockGroup struct {
	labels labels.Labels
	// tiers holds the blocks of each resolution, from the coarsest to raw, sorted by time.
	tiers []tier
}

type tier struct {
	resolution int64
	blocks     []*loaded
}

func newBlockSet(blocks map[ulid.ULID]*loaded, name string) *blockSet {
	s := &blockSet{byID: blocks, desc: store.Description{MinTime: math.MaxInt64, MaxTime: math.MinInt64, Name: name, OnlyBlocks: true, Replicas: true}}
	groups := map[string]*blockGroup{}
	for _, b := range blocks {
		key := b.labels.String()
		g := groups[key]
		if g == nil {
			g = &blockGroup{labels: b.labels}
			groups[key] = g
			s.groups = append(s.groups, g)
		}
		g.add(b)
		s.desc.MinTime = min(s.desc.MinTime, b.meta.MinTime)
		s.desc.MaxTime = max(s.desc.MaxTime, b.meta.MaxTime)
	}
	slices.SortFunc(s.groups, func(x, y *blockGroup) int { return labels.Compare(x.labels, y.labels) })
	for _, g := range s.groups {
		slices.SortFunc(g.tiers, func(x, y tier) int { return cmp.Compare(y.resolution, x.resolution) })
		for _, l := range g.tiers {
			slices.SortFunc(l.blocks, compareTimes)
		}
		s.desc.LabelSets = append(s.desc.LabelSets, g.labels)
		s.desc.TSDBs = append(s.desc.TSDBs, g.ranges()...)
		s.desc.Blocks = append(s.desc.Blocks, g.served())
	}
	return s
}

// parentsListed is for how long after a compaction its inputs are listed, going by the newest block of the group. By
// then every gateway has looked at the bucket again.
const parentsListed = 48 * time.Hour

// served lists the blocks of the group for others.
func (g *blockGroup) served() store.BlockSet {
	set := store.BlockSet{Labels: g.labels}
	var newest uint64
	for _, l := range g.tiers {
		for _, b := range l.blocks {
			newest = max(newest, b.meta.ULID.Time())
		}
	}
	for _, l := range g.tiers {
		for _, b := range l.blocks {
			set.Blocks = append(set.Blocks, store.Block{
				ID: b.meta.ULID, MinTime: b.meta.MinTime, MaxTime: b.meta.MaxTime - 1, Resolution: b.meta.Resolution(),
			})
			if newest-b.meta.ULID.Time() > uint64(parentsListed.Milliseconds()) {
				continue
			}
			for _, p := range b.meta.Compaction.Parents {
				set.Parents = append(set.Parents, store.ParentBlock{Child: b.meta.ULID, ID: p.ULID, MinTime: p.MinTime, MaxTime: p.MaxTime - 1})
			}
		}
	}
	slices.SortFunc(set.Blocks, func(x, y store.Block) int { return x.ID.Compare(y.ID) })
	slices.SortStableFunc(set.Parents, func(x, y store.ParentBlock) int { return x.Child.Compare(y.Child) })
	return set
}

func compareTimes(x, y *loaded) int {
	return cmp.Or(cmp.Compare(x.meta.MinTime, y.meta.MinTime), cmp.Compare(x.meta.MaxTime, y.meta.MaxTime), x.meta.ULID.Compare(y.meta.ULID))
}

func (g *blockGroup) add(b *loaded) {
	for i := range g.tiers {
		if g.tiers[i].resolution == b.meta.Resolution() {
			g.tiers[i].blocks = append(g.tiers[i].blocks, b)
			return
		}
	}
	g.tiers = append(g.tiers, tier{b.meta.Resolution(), []*loaded{b}})
}

// ranges lists the times of the group's blocks, with those that touch joined.
func (g *blockGroup) ranges() (out []store.TSDB) {
	if g.labels.IsEmpty() {
		return nil
	}
	var all []*loaded
	for _, l := range g.tiers {
		all = append(all, l.blocks...)
	}
	slices.SortFunc(all, compareTimes)
	for _, b := range all {
		if n := len(out); n > 0 && b.meta.MinTime <= out[n-1].MaxTime {
			out[n-1].MaxTime = max(out[n-1].MaxTime, b.meta.MaxTime)
			continue
		}
		out = append(out, store.TSDB{Labels: g.labels, MinTime: b.meta.MinTime, MaxTime: b.meta.MaxTime})
	}
	return out
}

// choose picks blocks that cover a closed time range once: the coarsest admitted resolution first, and finer ones in
// its holes. What is a hole in all of these is filled with coarser resolutions, the finest of them first, if coarser
// is true.
func (g *blockGroup) choose(mint, maxt, maxResolution int64, coarser bool) []*loaded {
	first := 0 // the coarsest that is admitted
	for first < len(g.tiers) && g.tiers[first].resolution > maxResolution {
		first++
	}
	tiers := g.tiers[first:]
	if coarser {
		tiers = slices.Clone(tiers)
		for i := first - 1; i >= 0; i-- {
			tiers = append(tiers, g.tiers[i])
		}
	}
	var out []*loaded
	chosen := map[*loaded]bool{}
	chooseFrom(tiers, mint, maxt, func(b *loaded) {
		// A block of a later tier may reach into several holes.
		if !chosen[b] {
			chosen[b] = true
			out = append(out, b)
		}
	})
	slices.SortFunc(out, compareTimes)
	return out
}

func chooseFrom(tiers []tier, mint, maxt int64, take func(*loaded)) {
	if len(tiers) == 0 || mint > maxt {
		return
	}
	start := mint
	for _, b := range tiers[0].blocks {
		if b.meta.MaxTime <= mint {
			continue
		}
		if b.meta.MinTime > maxt {
			break
		}
		if b.meta.MinTime > start {
			chooseFrom(tiers[1:], start, b.meta.MinTime-1, take)
		}
		take(b)
		start = max(start, b.meta.MaxTime)
	}
	chooseFrom(tiers[1:], start, maxt, take)
}

// overlapping returns all blocks of the group that reach into a closed time range.
func (g *blockGroup) overlapping(mint, maxt int64) (out []*loaded) {
	for _, l := range g.tiers {
		for _, b := range l.blocks {
			if b.overlaps(mint, maxt) {
				out = append(out, b)
			}
		}
	}
	return out
}

// matchesBlock tells whether the matchers on __block_id select a block. Other matchers among them are passed over.
func matchesBlock(ms []*labels.Matcher, id ulid.ULID) bool {
	for _, m := range ms {
		if m.Name == block.IDLabel && !m.Matches(id.String()) {
			return false
		}
	}
	return true
}
