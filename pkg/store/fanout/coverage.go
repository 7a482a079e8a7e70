package fanout

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// need is what a question wants of one block: a time range in ms, both ends inclusive.
type need struct {
	blockKey
	mint, maxt int64
	parents    []need // that the block was compacted from, as far as they are wanted; none if that is unknown
}

// blockKey names data: a downsampled block has the parents of the raw one, and one without replica labels may have
// been made of two replicas' blocks.
type blockKey struct {
	id         ulid.ULID
	resolution int64
	labels     uint64
}

// sameNeeds tells whether two Stores are wanted for the same blocks.
func sameNeeds(a, b []need) bool {
	return slices.EqualFunc(a, b, func(x, y need) bool { return x.blockKey == y.blockKey && x.mint == y.mint && x.maxt == y.maxt })
}

// needs are those of all blocks of a Store, and the label sets that they belong to.
type needs struct {
	list []need
	sets []labels.Labels // of the same length; shared by neighbours
}

// needsOf returns what a question wants of the blocks of a Store. Stores that serve the same blocks get the
// same list.
func (s *Store) needsOf(d *store.Description, q *question) (out needs) {
	mint, maxt := max(q.minTime, d.MinTime), min(q.maxTime, d.MaxTime)
	for i := range d.Blocks {
		set := &d.Blocks[i]
		if _, ok := s.relabel(set.Labels); !ok || len(thatMatch([]labels.Labels{set.Labels}, q.matchers)) == 0 {
			continue
		}
		hash := set.Labels.Hash()
		for j := range set.Blocks {
			b := &set.Blocks[j]
			if b.Resolution > q.maxResolution || !store.Overlaps(mint, maxt, b.MinTime, b.MaxTime) {
				continue
			}
			n := need{blockKey: blockKey{b.ID, b.Resolution, hash}, mint: max(mint, b.MinTime), maxt: min(maxt, b.MaxTime)}
			if len(set.Parents) > 0 {
				n.addParents(set.Parents)
			}
			out.list = append(out.list, n)
			out.sets = append(out.sets, set.Labels)
		}
	}
	return out
}

// addParents finds those of the block among all, which are sorted by child.
func (n *need) addParents(all []store.ParentBlock) {
	i, _ := slices.BinarySearchFunc(all, n.id, func(p store.ParentBlock, id ulid.ULID) int { return p.Child.Compare(id) })
	for ; i < len(all) && all[i].Child == n.id; i++ {
		p := &all[i]
		if !store.Overlaps(n.mint, n.maxt, p.MinTime, p.MaxTime) {
			continue
		}
		n.parents = append(n.parents, need{blockKey: blockKey{p.ID, n.resolution, n.labels}, mint: max(n.mint, p.MinTime), maxt: min(n.maxt, p.MaxTime)})
	}
}

// blockUnion joins the blocks of several Stores.
type blockUnion struct {
	all  []store.BlockSet
	only bool // nothing but blocks has come
}

func (u *blockUnion) add(s *Store, d *store.Description) {
	if d.MinTime > d.MaxTime {
		return // it holds nothing
	}
	u.only = u.only && d.OnlyBlocks
	for _, set := range d.Blocks {
		if _, ok := s.relabel(set.Labels); !ok {
			continue
		}
		out := store.BlockSet{Labels: s.extend(set.Labels), Blocks: make([]store.Block, 0, len(set.Blocks))}
		for _, b := range set.Blocks {
			b.MinTime, b.MaxTime = max(b.MinTime, d.MinTime), min(b.MaxTime, d.MaxTime)
			if b.MinTime <= b.MaxTime {
				out.Blocks = append(out.Blocks, b)
			}
		}
		for _, p := range set.Parents {
			p.MinTime, p.MaxTime = max(p.MinTime, d.MinTime), min(p.MaxTime, d.MaxTime)
			if p.MinTime <= p.MaxTime {
				out.Parents = append(out.Parents, p)
			}
		}
		u.all = append(u.all, out)
	}
}

// sets returns the union, sorted by labels.
func (u *blockUnion) sets() (out []store.BlockSet) {
	slices.SortStableFunc(u.all, func(a, b store.BlockSet) int { return labels.Compare(a.Labels, b.Labels) })
	for _, set := range u.all {
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels, set.Labels) {
			out[n-1].Blocks = append(out[n-1].Blocks, set.Blocks...)
			out[n-1].Parents = append(out[n-1].Parents, set.Parents...)
			continue
		}
		out = append(out, set)
	}
	for i := range out {
		bs := out[i].Blocks
		slices.SortFunc(bs, func(a, b store.Block) int {
			return cmp.Or(a.ID.Compare(b.ID), cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
		})
		out[i].Blocks = slices.Compact(bs)
		ps := out[i].Parents
		slices.SortFunc(ps, func(a, b store.ParentBlock) int {
			return cmp.Or(a.Child.Compare(b.Child), a.ID.Compare(b.ID), cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
		})
		out[i].Parents = slices.Compact(ps)
	}
	return out
}

// held is what of each block somebody has, be it as a part of the block that it was compacted into.
type held map[blockKey][]need

func (h held) add(ns []need) {
	for _, n := range ns {
		h[n.blockKey] = append(h[n.blockKey], n)
		h.add(n.parents)
	}
}

// has tells whether all that is needed of a block is there, or of the blocks that it was compacted from.
func (h held) has(n need) bool {
	return h.hasBlock(n) || len(n.parents) > 0 && !slices.ContainsFunc(n.parents, func(p need) bool { return !h.hasBlock(p) })
}

// hasBlock tells whether all that is needed of a block is there, in one piece or in several that meet.
func (h held) hasBlock(n need) bool {
	pieces := h[n.blockKey]
	if len(pieces) > 1 && !slices.IsSortedFunc(pieces, byStart) {
		slices.SortFunc(pieces, byStart)
	}
	for _, p := range pieces {
		if p.mint > n.mint {
			return false
		}
		if p.maxt >= n.maxt {
			return true
		}
		n.mint = max(n.mint, p.maxt+1)
	}
	return false
}

func byStart(a, b need) int { return cmp.Compare(a.mint, b.mint) }

// hasAll tells whether everything needed is there.
func (h held) hasAll(ns []need) bool {
	return !slices.ContainsFunc(ns, func(n need) bool { return !h.has(n) })
}

// lacks returns what is not there.
func (h held) lacks(ns []need) []need {
	return slices.DeleteFunc(slices.Clone(ns), func(n need) bool { return h.has(n) })
}

// with returns what is there together with more.
func (h held) with(ns []need) held {
	both := make(held, len(h)+len(ns))
	for key, pieces := range h {
		both[key] = slices.Clone(pieces)
	}
	both.add(ns)
	return both
}

// within returns those of a that b has too: what two Stores hold that answered one after the other.
func within(a, b []need) []need {
	if sameNeeds(a, b) {
		return a
	}
	h := held{}
	h.add(b)
	return slices.DeleteFunc(slices.Clone(a), func(n need) bool { return !h.has(n) })
}
