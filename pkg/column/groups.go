package column

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/labels"
)

// Op is an aggregation.
type Op int

// The aggregations.
const (
	Sum Op = iota
	Avg
	Count
	Min
	Max
	Group
	Stddev
	Stdvar
)

var opNames = map[string]Op{
	"sum": Sum, "avg": Avg, "count": Count, "min": Min, "max": Max, "group": Group, "stddev": Stddev, "stdvar": Stdvar,
}

// ParseOp finds an aggregation by its PromQL name.
func ParseOp(name string) (Op, bool) {
	op, ok := opNames[name]
	return op, ok
}

// Groups adds columns up by group: Add for each series, then Finish, then At.
type Groups struct {
	op      Op
	steps   int
	reserve func(l labels.Labels) error
	index   map[string]int
	all     []*group
}

// group is one line of the result in the making. Which arrays there are depends on the aggregation.
type group struct {
	labels  labels.Labels
	present []uint64
	values  []float64 // sum, count, extreme, or sum of squares; nil for Group
	more1   []float64 // the compensation of a sum; the means of stddev and stdvar
	more2   []float64 // the counts of avg, stddev and stdvar
	// incremental marks the steps whose average is kept as a mean, since the sum would overflow; nil: none.
	incremental []uint64
}

// NewGroups makes an empty result of so many steps. Before a group is made, reserve is asked; an error of
// it ends Add.
func NewGroups(op Op, steps int, reserve func(l labels.Labels) error) *Groups {
	return &Groups{op: op, steps: steps, reserve: reserve, index: map[string]int{}}
}

// groupOverhead is what a group takes besides its arrays and labels: the struct, its pointer, and its
// share of the index.
const groupOverhead = 192 + 8 + 64

// arrays is how many floats a step of a group takes.
func (op Op) arrays() int {
	switch op {
	case Sum:
		return 2
	case Avg, Stddev, Stdvar:
		return 3
	case Group:
		return 0
	}
	return 1
}

// GroupBytes is the memory in bytes that one group takes at most, without its labels, when its results are
// copied to somewhere else where a point takes pointBytes.
func (op Op) GroupBytes(steps int, pointBytes int64) int64 {
	adding := int64(op.arrays()) * 8
	copying := min(adding, 8) + pointBytes
	return groupOverhead + int64(words(steps))*8 + int64(steps)*max(adding, copying)
}

// Add adds a column to the group of a key. A new group asks ls for its labels.
func (g *Groups) Add(key []byte, c *Column, ls func() labels.Labels) error {
	at, ok := g.index[string(key)]
	if !ok {
		l := ls()
		if err := g.reserve(l); err != nil {
			return err
		}
		at = len(g.all)
		g.index[string(key)] = at
		g.all = append(g.all, g.newGroup(l))
	}
	g.all[at].add(g.op, c)
	return nil
}

func (g *Groups) newGroup(l labels.Labels) *group {
	n := &group{labels: l, present: make([]uint64, words(g.steps))}
	// Each array by itself: Finish lets all but the first go.
	for _, a := range []*[]float64{&n.values, &n.more1, &n.more2}[:g.op.arrays()] {
		*a = make([]float64, g.steps)
	}
	return n
}

// add adds a column, which is as long as the group's arrays.
func (n *group) add(op Op, c *Column) {
	for w, has := range c.present {
		if has == 0 {
			continue
		}
		first, more := has&^n.present[w], has&n.present[w]
		n.present[w] |= has
		for ; first != 0; first &= first - 1 {
			i := w*64 + bits.TrailingZeros64(first)
			n.first(op, i, c.values[i])
		}
		if op == Sum {
			n.sum(w*64, more, c.values)
			continue
		}
		for ; more != 0; more &= more - 1 {
			i := w*64 + bits.TrailingZeros64(more)
			n.more(op, i, c.values[i])
		}
	}
}

// sum adds the values at the set bits, of which the lowest stands for the step from.
func (n *group) sum(from int, set uint64, values []float64) {
	if set == math.MaxUint64 {
		values, sums, lost := values[from:from+64], n.values[from:from+64], n.more1[from:from+64]
		for i, v := range values {
			sums[i], lost[i] = compensated(sums[i], lost[i], v)
		}
		return
	}
	for ; set != 0; set &= set - 1 {
		i := from + bits.TrailingZeros64(set)
		n.values[i], n.more1[i] = compensated(n.values[i], n.more1[i], values[i])
	}
}

// first takes the first value of a step.
func (n *group) first(op Op, i int, v float64) {
	switch op {
	case Group:
	case Count:
		n.values[i] = 1
	case Avg:
		n.values[i], n.more2[i] = v, 1
	case Stddev, Stdvar:
		n.more1[i], n.more2[i] = v, 1
		if math.IsNaN(v) || math.IsInf(v, 0) {
			n.values[i] = math.NaN()
		}
	default:
		n.values[i] = v
	}
}

// more takes a further value of a step.
func (n *group) more(op Op, i int, v float64) {
	switch op {
	case Group:
	case Count:
		n.values[i]++
	case Min:
		if kept := n.values[i]; kept > v || math.IsNaN(kept) {
			n.values[i] = v
		}
	case Max:
		if kept := n.values[i]; kept < v || math.IsNaN(kept) {
			n.values[i] = v
		}
	case Avg:
		m := n.mean(i)
		m.add(v)
		n.values[i], n.more1[i], n.more2[i] = m.sum, m.c, m.n
		if m.incremental {
			if n.incremental == nil {
				n.incremental = make([]uint64, len(n.present))
			}
			n.incremental[i/64] |= 1 << (i % 64)
		}
	case Stddev, Stdvar:
		n.more2[i]++
		off := v - n.more1[i]
		n.more1[i] += off / n.more2[i]
		n.values[i] += off * (v - n.more1[i])
	default:
		panic(fmt.Sprintf("BUG: column: aggregation %d", op))
	}
}

// Len is the number of groups.
func (g *Groups) Len() int { return len(g.all) }

// Labels are those of a group; groups are numbered in the order in which they came.
func (g *Groups) Labels(group int) labels.Labels { return g.all[group].labels }

// Finish makes results of what was added up, and lets go of what only adding needs. Nothing is added after.
func (g *Groups) Finish() {
	for _, n := range g.all {
		for i := range n.values {
			switch g.op {
			case Sum:
				n.values[i] += n.more1[i]
			case Avg:
				n.values[i] = n.mean(i).result()
			case Stdvar:
				n.values[i] /= n.more2[i]
			case Stddev:
				n.values[i] = math.Sqrt(n.values[i] / n.more2[i])
			}
		}
		n.more1, n.more2, n.incremental = nil, nil, nil
	}
	g.index = nil
}

// mean is the average of a step as it stands.
func (n *group) mean(i int) mean {
	return mean{sum: n.values[i], c: n.more1[i], n: n.more2[i], incremental: n.incremental != nil && n.incremental[i/64]&(1<<(i%64)) != 0}
}

// At returns the result of a group at a step, if it has one.
func (g *Groups) At(group, step int) (v float64, ok bool) {
	n := g.all[group]
	switch {
	case n.present[step/64]&(1<<(step%64)) == 0:
		return 0, false
	case g.op == Group:
		return 1, true
	}
	return n.values[step], true
}
