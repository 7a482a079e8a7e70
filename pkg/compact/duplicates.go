package compact

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// covers is an order over the blocks of a group: a may stand in for b. It has more sources, all of b's among them, or
// the same sources and the older id. It is a strict order, so whoever looks at whichever part of a bucket never finds
// two blocks that cover each other. A block that is set aside comes after every other one, because nothing can be read of
// it: whoever has its sources covers it.
func covers(a, b *Block) bool {
	if b.SetAside {
		return !a.SetAside && contains(a.ids, b.ids)
	}
	if len(a.ids) < len(b.ids) || len(a.ids) == len(b.ids) && a.Meta.ULID.Compare(b.Meta.ULID) >= 0 {
		return false
	}
	return contains(a.ids, b.ids)
}

// duplicates returns the blocks of one group whose data is in another one, with the id of that one. A block that is set
// aside covers nothing. Whoever covers a block has a first source that is not after the block's, and a last one that is
// not before it; blocks are taken by the first, so that only those that stayed before can cover one.
func duplicates(blocks []*Block) map[ulid.ULID]ulid.ULID {
	sorted := slices.Clone(blocks)
	slices.SortFunc(sorted, func(a, b *Block) int {
		return cmp.Or(a.ids[0].Compare(b.ids[0]), len(b.ids)-len(a.ids), setAsideLast(a, b), a.Meta.ULID.Compare(b.Meta.ULID))
	})
	dups := map[ulid.ULID]ulid.ULID{}
	var open []*Block // may cover one that comes
	for _, b := range sorted {
		open = slices.DeleteFunc(open, func(a *Block) bool { return a.ids[len(a.ids)-1].Compare(b.ids[0]) < 0 })
		if i := slices.IndexFunc(open, func(a *Block) bool { return covers(a, b) }); i >= 0 {
			dups[b.Meta.ULID] = open[i].Meta.ULID
		} else if !b.SetAside {
			open = append(open, b)
		}
	}
	return dups
}

func setAsideLast(a, b *Block) int {
	switch {
	case a.SetAside == b.SetAside:
		return 0
	case a.SetAside:
		return 1
	}
	return -1
}

// sameBytes tells whether two blocks have equal files. It needs checksums in both, and as many sources, so that covers
// and this are one order.
func sameBytes(a, b *Block) bool {
	if a.Meta.MinTime != b.Meta.MinTime || a.Meta.MaxTime != b.Meta.MaxTime || a.Meta.Stats != b.Meta.Stats || len(a.ids) != len(b.ids) {
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
