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

// Groups adds columns up by group.
type Groups struct {
	op      Op
	steps   int
	reserve func(bytes int64) error
	index   map[string]int
	all     []*group
}

// group is one line of the result in the making. Which arrays there are depends on the aggregation.
type group struct {
	labels  labels.Labels
	present []uint64
	values  []float64 // sum, count, extreme, or sum of squares
	lost    []float64 // the compensation of a sum
	means   []float64 // stddev and stdvar
	counts  []float64 // avg, stddev and stdvar
	// incremental marks the steps whose average is kept as a mean, since the sum would overflow; nil: none.
	incremental []uint64
}

// NewGroups makes an empty result of so many steps. Before a group is made, reserve is asked for its
// memory; an error of it ends Add.
func NewGroups(op Op, steps int, reserve func(bytes int64) error) *Groups {
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

// GroupBytes is the memory in bytes that one group takes, without its labels.
func (op Op) GroupBytes(steps int) int64 {
	return groupOverhead + int64(op.arrays())*int64(steps)*8 + int64(words(steps))*8
}

// Add adds a column to the group of a key. A new group asks ls for its labels.
func (g *Groups) Add(key []byte, c *Column, ls func() labels.Labels) error {
	at, ok := g.index[string(key)]
	if !ok {
		l := ls()
		if err := g.reserve(g.op.GroupBytes(g.steps) + int64(l.ByteSize()) + int64(len(key))); err != nil {
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
	floats := make([]float64, g.op.arrays()*g.steps)
	take := func() []float64 {
		a := floats[:g.steps:g.steps]
		floats = floats[g.steps:]
		return a
	}
	if g.op != Group {
		n.values = take()
	}
	switch g.op {
	case Sum:
		n.lost = take()
	case Avg:
		n.lost, n.counts = take(), take()
	case Stddev, Stdvar:
		n.means, n.counts = take(), take()
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
		values, sums, lost := values[from:from+64], n.values[from:from+64], n.lost[from:from+64]
		for i, v := range values {
			sums[i], lost[i] = compensated(sums[i], lost[i], v)
		}
		return
	}
	for ; set != 0; set &= set - 1 {
		i := from + bits.TrailingZeros64(set)
		n.values[i], n.lost[i] = compensated(n.values[i], n.lost[i], values[i])
	}
}

// first takes the first value of a step.
func (n *group) first(op Op, i int, v float64) {
	switch op {
	case Group:
	case Count:
		n.values[i] = 1
	case Avg:
		n.values[i], n.counts[i] = v, 1
	case Stddev, Stdvar:
		n.means[i], n.counts[i] = v, 1
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
		w, bit := i/64, uint64(1)<<(i%64)
		m := mean{sum: n.values[i], c: n.lost[i], n: n.counts[i], incremental: n.incremental != nil && n.incremental[w]&bit != 0}
		m.add(v)
		n.values[i], n.lost[i], n.counts[i] = m.sum, m.c, m.n
		if m.incremental {
			if n.incremental == nil {
				n.incremental = make([]uint64, len(n.present))
			}
			n.incremental[w] |= bit
		}
	case Stddev, Stdvar:
		n.counts[i]++
		off := v - n.means[i]
		n.means[i] += off / n.counts[i]
		n.values[i] += off * (v - n.means[i])
	default:
		panic(fmt.Sprintf("BUG: column: aggregation %d", op))
	}
}

// Len is the number of groups.
func (g *Groups) Len() int { return len(g.all) }

// Labels are those of a group; groups are numbered in the order in which they came.
func (g *Groups) Labels(group int) labels.Labels { return g.all[group].labels }

// At returns the result of a group at a step, if it has one.
func (g *Groups) At(group, step int) (v float64, ok bool) {
	n := g.all[group]
	if n.present[step/64]&(1<<(step%64)) == 0 {
		return 0, false
	}
	switch g.op {
	case Group:
		return 1, true
	case Sum:
		return n.values[step] + n.lost[step], true
	case Avg:
		m := mean{sum: n.values[step], c: n.lost[step], n: n.counts[step], incremental: n.incremental != nil && n.incremental[step/64]&(1<<(step%64)) != 0}
		return m.result(), true
	case Stdvar:
		return n.values[step] / n.counts[step], true
	case Stddev:
		return math.Sqrt(n.values[step] / n.counts[step]), true
	}
	return n.values[step], true
}
