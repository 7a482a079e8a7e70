package compact

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
)

// sortedSources are the sources of a block in order, each once. They may be the block's own, and are not changed.
func sortedSources(b *Block) []ulid.ULID {
	ids := b.sources()
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			ids = slices.Clone(ids)
			slices.SortFunc(ids, ulid.ULID.Compare)
			return slices.Compact(ids)
		}
	}
	return ids
}

// skipTo returns what is left of sorted ids from an id on. What is asked for is mostly near.
func skipTo(ids []ulid.ULID, id ulid.ULID) []ulid.ULID {
	step := 1
	for step < len(ids) && ids[step].Compare(id) < 0 {
		step *= 2
	}
	at, _ := slices.BinarySearchFunc(ids[:min(step+1, len(ids))], id, ulid.ULID.Compare)
	return ids[at:]
}

// contains tells whether all ids of part are among those of whole. Both are sorted.
func contains(whole, part []ulid.ULID) bool {
	if len(whole) == len(part) {
		return slices.Equal(whole, part)
	}
	for i, id := range part {
		whole = skipTo(whole, id)
		if len(whole) < len(part)-i || whole[0] != id {
			return false
		}
	}
	return true
}

// subtract takes the ids of out away from those of ids, in place. Both are sorted.
func subtract(ids, out []ulid.ULID) []ulid.ULID {
	left := ids[:0]
	for _, id := range ids {
		out = skipTo(out, id)
		if len(out) == 0 || out[0] != id {
			left = append(left, id)
		}
	}
	return left
}

// share tells whether two sorted sets of ids have one in common.
func share(a, b []ulid.ULID) bool {
	for _, id := range a {
		b = skipTo(b, id)
		if len(b) == 0 {
			return false
		}
		if b[0] == id {
			return true
		}
	}
	return false
}

// holdings find the blocks of one resolution that hold the data of a block of another one.
type holdings struct {
	blocks []*Block    // by their first source
	reach  []ulid.ULID // the greatest source of all blocks up to each
}

// newHoldings are the blocks that can be relied on.
func newHoldings(blocks []*Block) *holdings {
	h := &holdings{blocks: make([]*Block, 0, len(blocks)), reach: make([]ulid.ULID, 0, len(blocks))}
	for _, b := range blocks {
		if !b.SetAside {
			h.blocks = append(h.blocks, b)
		}
	}
	slices.SortFunc(h.blocks, func(a, b *Block) int { return cmp.Or(a.ids[0].Compare(b.ids[0]), byTime(a, b)) })
	var reach ulid.ULID
	for _, b := range h.blocks {
		if last := b.ids[len(b.ids)-1]; last.Compare(reach) > 0 {
			reach = last
		}
		h.reach = append(h.reach, reach)
	}
	return h
}

// cover returns blocks that have all sources of a block together; nil is that there are none.
func (h *holdings) cover(b *Block) (found []*Block) {
	if h == nil {
		return nil
	}
	first, last := b.ids[0], b.ids[len(b.ids)-1]
	from, _ := slices.BinarySearchFunc(h.reach, first, ulid.ULID.Compare)
	to := from
	for ; to < len(h.blocks) && h.blocks[to].ids[0].Compare(last) <= 0; to++ {
		if contains(h.blocks[to].ids, b.ids) {
			return h.blocks[to : to+1 : to+1]
		}
	}
	left := slices.Clone(b.ids)
	for _, c := range h.blocks[from:to] {
		n := len(left)
		if left = subtract(left, c.ids); len(left) < n {
			found = append(found, c)
		}
		if len(left) == 0 {
			return found
		}
	}
	return nil
}
