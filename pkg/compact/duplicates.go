package compact

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// covers is an order over the blocks of a group: a may stand in for b. It has more sources, all of b's among them, or
// the same sources and the older id. It is a strict order, so whoever looks at whichever part of a bucket never finds
// two blocks that cover each other.
func covers(a, b *Block) bool {
	sa, sb := a.sources(), b.sources()
	if len(sa) < len(sb) || len(sa) == len(sb) && a.Meta.ULID.Compare(b.Meta.ULID) >= 0 {
		return false
	}
	return newSourceSet([]*Block{a}).holds(b)
}

// duplicates returns the blocks of one group whose data is in another one, with the id of that one. A block that is set
// aside covers nothing. Blocks are taken from the most sources to the fewest, so that only those that stayed before can
// cover one, and whoever covers it has its first source.
func duplicates(blocks []*Block) map[ulid.ULID]ulid.ULID {
	sorted := slices.Clone(blocks)
	slices.SortFunc(sorted, func(a, b *Block) int {
		return cmp.Or(len(b.sources())-len(a.sources()), a.Meta.ULID.Compare(b.Meta.ULID))
	})
	dups := map[ulid.ULID]ulid.ULID{}
	bySource := map[ulid.ULID][]*Block{}
next:
	for _, b := range sorted {
		for _, a := range bySource[b.sources()[0]] {
			if covers(a, b) {
				dups[b.Meta.ULID] = a.Meta.ULID
				continue next
			}
		}
		if b.SetAside {
			continue
		}
		for _, s := range b.sources() {
			bySource[s] = append(bySource[s], b)
		}
	}
	return dups
}

// sameBytes tells whether two blocks have equal files. It needs checksums in both, and as many sources, so that covers
// and this are one order.
func sameBytes(a, b *Block) bool {
	if a.Meta.MinTime != b.Meta.MinTime || a.Meta.MaxTime != b.Meta.MaxTime || a.Meta.Stats != b.Meta.Stats || len(a.sources()) != len(b.sources()) {
		return false
	}
	fa, fb := hashes(a.Meta), hashes(b.Meta)
	return len(fa) > 1 && slices.Equal(fa, fb)
}

// hashes lists the paths and checksums of a block's files but meta.json; none if one is unknown.
func hashes(m *block.Meta) (hs []string) {
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.MetaFilename {
			continue
		}
		if f.Hash == nil || f.Hash.Func == block.HashNone {
			return nil
		}
		hs = append(hs, f.RelPath+" "+string(f.Hash.Func)+" "+f.Hash.Value)
	}
	return hs
}

// collect plans away the blocks of a group whose data is in another one, and returns the rest.
func (p *planner) collect(g *Group) (live []*Block) {
	dups := duplicates(g.Blocks)
	for _, b := range g.Blocks {
		if cover, ok := dups[b.Meta.ULID]; ok {
			p.step(g, KindCollect, "all its sources are in the cover", b).Cover = cover
			continue
		}
		// Equal files lie beside each other, because blocks are sorted by time, and the older id stays.
		if i := len(live) - 1; i >= 0 && !live[i].SetAside && !b.SetAside && sameBytes(live[i], b) {
			p.step(g, KindCollect, "its files have the checksums of the cover's", b).Cover = live[i].Meta.ULID
			continue
		}
		live = append(live, b)
	}
	return live
}

// sourceSet is a set of sources.
type sourceSet map[ulid.ULID]bool

// newSourceSet are the sources of the blocks that can be relied on.
func newSourceSet(blocks []*Block) sourceSet {
	set := sourceSet{}
	for _, b := range blocks {
		if b.SetAside {
			continue
		}
		for _, s := range b.sources() {
			set[s] = true
		}
	}
	return set
}

// holds tells whether all sources of a block are in the set.
func (set sourceSet) holds(b *Block) bool {
	return !slices.ContainsFunc(b.sources(), func(s ulid.ULID) bool { return !set[s] })
}
