package fanout

import (
	"cmp"
	"slices"
)

// order is to ask one target, and to have others ready that could do so instead.
type order struct {
	target   *target
	standbys []standby
}

// standby could be asked in a target's place.
type standby struct {
	target *target
	// full is true if it holds all that the target does; otherwise it is better than nothing. It may stand for
	// several (see combine).
	full bool
}

// groupTries is how often a group is asked again: each time another of its members may get the request.
const groupTries = 2

// plan decides who is asked. Of Stores over blocks, one whose blocks another one serves as well is not asked
// but stands by: half the work, and somebody to turn to. All others are asked, each for itself.
func (s *Store) plan(targets []target, q *question) []order {
	orders := make([]order, 0, len(targets))
	var ours []*target // those that could stand in for one another
	for i := range targets {
		t := &targets[i]
		if t.desc.OnlyBlocks {
			t.needs = s.needsOf(&t.desc, q)
			ours = append(ours, t)
			continue
		}
		orders = append(orders, order{target: t})
	}
	orders = append(orders, s.share(ours)...)
	for i := range orders {
		o := &orders[i]
		if !o.target.desc.Group {
			continue
		}
		for range groupTries {
			o.standbys = append([]standby{{o.target, true}}, o.standbys...)
		}
	}
	return orders
}

// share divides Stores over blocks into those to ask and those to stand by. Those with the most blocks come
// first, and of equals those without trouble; otherwise they take turns.
func (s *Store) share(ts []*target) []order {
	if len(ts) < 2 {
		orders := make([]order, 0, 1)
		for _, t := range ts {
			orders = append(orders, order{target: t})
		}
		return orders
	}
	turn := s.pace.takeTurn()
	rank, blocks := map[*target]int{}, map[*target]int{}
	for i, t := range ts {
		for _, n := range t.needs.list {
			blocks[t] += max(1, len(n.parents)) // as many as one has that has not seen the compaction
		}
		rank[t] = (i + turn) % len(ts)
		if s.pace.troubled(t.desc.Name) {
			rank[t] += len(ts)
		}
	}
	slices.SortStableFunc(ts, func(a, b *target) int {
		return cmp.Or(cmp.Compare(blocks[b], blocks[a]), cmp.Compare(rank[a], rank[b]))
	})
	var orders []order
	var has []held // of the target of each order, made when it is looked at
	for _, t := range ts {
		i := slices.IndexFunc(orders, func(o order) bool { return sameNeeds(o.target.needs.list, t.needs.list) })
		full := i >= 0
		if !full {
			for j := range orders {
				if has[j] == nil {
					has[j] = held{}
					has[j].add(orders[j].target.needs.list)
				}
			}
			i = slices.IndexFunc(has, func(h held) bool { return h.hasAll(t.needs.list) })
			full = i >= 0 && held{}.with(t.needs.list).hasAll(orders[i].target.needs.list) // a compaction is all that they differ in
		}
		switch {
		case i < 0:
			orders, has = append(orders, order{target: t}), append(has, nil)
		case len(t.needs.list) == 0 && len(orders[i].target.needs.list) > 0:
			// Nothing is wanted of it.
		default:
			orders[i].standbys = append(orders[i].standbys, standby{t, full})
		}
	}
	for _, o := range orders {
		slices.SortStableFunc(o.standbys, func(a, b standby) int {
			switch {
			case a.full == b.full:
				return 0
			case a.full:
				return -1
			}
			return 1
		})
	}
	return orders
}
