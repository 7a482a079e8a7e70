package store

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Merge makes one cursor of several that are each sorted by labels. Series with equal labels become one,
// with their chunks in order and chunks that are equal in times and bytes kept once, in the name of the
// first of their replicas (see CompareReplicas). It closes the
// cursors that it is given. The first error of any of them ends it; whoever wants to go on without a part
// wraps that part in a cursor that turns its error into a warning.
//
// The inputs are compared with a loser tree: log2(n) comparisons a series. Nothing is copied: what At
// hands out are the inputs' own chunks, lent until the inputs move on.
func Merge(cursors []Cursor) Cursor {
	switch len(cursors) {
	case 0:
		return NewSliceCursor(nil)
	case 1:
		return cursors[0]
	}
	return &merger{tree: loserTree{leaves: make([]leaf, len(cursors))}, inputs: cursors}
}

type merger struct {
	inputs  []Cursor
	tree    loserTree
	started bool
	round   int

	out   Series
	buf   []Chunk     // reused for joined chunk lists
	from  []int       // the inputs that the current series comes from
	seen  []seenChunk // chunks handed out under the current labels, if several inputs had them
	again bool        // the labels are those of the series before
	whole bool        // no input cuts a series into several: what is handed out need not be remembered
	err   error
	close bool
}

// seenChunk stands for a chunk that is gone.
type seenChunk struct {
	minTime, maxTime int64
	sum              uint64
	replica          string
}

func (c seenChunk) sameChunk(o seenChunk) bool {
	return c.minTime == o.minTime && c.maxTime == o.maxTime && c.sum == o.sum
}

func (m *merger) Next() bool {
	for m.step() {
		if len(m.out.Chunks) > 0 || !m.again {
			return true
		}
		// All of it was handed out before.
	}
	return false
}

// step collects the next series; false at the end or at an error.
func (m *merger) step() bool {
	if m.err != nil || m.close {
		return false
	}
	if !m.started {
		m.started, m.whole = true, true
		for i, c := range m.inputs {
			m.whole = m.whole && isWhole(c)
			m.move(i)
		}
		m.tree.build()
	} else {
		// The inputs of the current series win one after the other, since at equal labels the one that
		// has waited longest wins.
		m.round++
		for range m.from {
			w := m.tree.winner()
			m.move(w)
			m.tree.replay(w)
		}
	}
	if m.err != nil {
		return false
	}
	w := m.tree.winner()
	if m.tree.leaves[w].ended {
		return false
	}
	m.collect(w)
	return true
}

// move brings an input to its next series.
func (m *merger) move(i int) {
	l := &m.tree.leaves[i]
	l.moved = m.round
	if m.inputs[i].Next() {
		l.series = m.inputs[i].At()
		return
	}
	l.series, l.ended = nil, true
	if err := m.inputs[i].Err(); err != nil && m.err == nil {
		m.err = err
	}
}

// collect joins the series of all inputs that are at the labels of the winner.
func (m *merger) collect(w int) {
	ls := m.tree.leaves[w].series.Labels
	m.again = len(m.from) > 0 && labels.Equal(ls, m.out.Labels)
	if !m.again {
		m.seen = m.seen[:0]
	}
	m.from = m.tree.ties(append(m.from[:0], w), w, 0)
	m.out.Labels = ls
	if len(m.from) == 1 && len(m.seen) == 0 {
		m.out.Chunks = m.tree.leaves[w].series.Chunks
		return
	}
	m.buf = m.buf[:0]
	for _, i := range m.from {
		m.buf = append(m.buf, m.tree.leaves[i].series.Chunks...)
	}
	m.out.Chunks = SortChunks(m.buf)
	if !m.whole {
		m.dropSeen()
	}
}

// dropSeen drops chunks that an earlier part of the same series has handed out: an input may cut a
// series into several with equal labels, and another may cut it elsewhere. Only in the name of an earlier
// replica does a chunk come again; whoever puts the parts together keeps that one, so that where a series
// is cut changes nothing.
func (m *merger) dropSeen() {
	n := len(m.seen)
	m.out.Chunks = slices.DeleteFunc(m.out.Chunks, func(c Chunk) bool {
		key := seenChunk{c.MinTime, c.MaxTime, c.sum64(), c.Replica}
		if i := slices.IndexFunc(m.seen[:n], key.sameChunk); i >= 0 {
			if CompareReplicas(key.replica, m.seen[i].replica) >= 0 {
				return true
			}
			m.seen[i].replica = key.replica
			return false
		}
		m.seen = append(m.seen, key)
		return false
	})
}

// Whole implements Whole.
func (m *merger) Whole() bool {
	return !slices.ContainsFunc(m.inputs, func(c Cursor) bool { return !isWhole(c) })
}

func (m *merger) At() *Series { return &m.out }
func (m *merger) Err() error  { return m.err }

func (m *merger) Warnings() Warnings {
	var ws Warnings
	for _, c := range m.inputs {
		ws = append(ws, c.Warnings()...)
	}
	return ws
}

func (m *merger) Close() error {
	m.close = true
	var errs []error
	for _, c := range m.inputs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// loserTree finds the least of its leaves. Node 0 holds the winner, every other node the loser of the
// match played there; the children of node n are 2n and 2n+1, and leaf i stands at len(leaves)+i.
type loserTree struct {
	leaves []leaf
	nodes  []int
}

type leaf struct {
	series *Series
	ended  bool
	moved  int // the round of its last move
}

// less orders leaves by labels, ended ones last, and at equal labels the longest unmoved one first.
func (t *loserTree) less(a, b int) bool {
	x, y := &t.leaves[a], &t.leaves[b]
	if x.ended || y.ended {
		if x.ended == y.ended {
			return a < b
		}
		return y.ended
	}
	if c := labels.Compare(x.series.Labels, y.series.Labels); c != 0 {
		return c < 0
	}
	if x.moved != y.moved {
		return x.moved < y.moved
	}
	return a < b
}

func (t *loserTree) build() {
	t.nodes = make([]int, max(1, len(t.leaves)))
	if len(t.leaves) > 0 {
		t.nodes[0] = t.play(1)
	}
}

// play fills the subtree of a node and returns its winner.
func (t *loserTree) play(node int) int {
	if node >= len(t.leaves) {
		return node - len(t.leaves)
	}
	a, b := t.play(2*node), t.play(2*node+1)
	if t.less(b, a) {
		a, b = b, a
	}
	t.nodes[node] = b
	return a
}

// replay lets a leaf that has moved play its matches again, up to the top.
func (t *loserTree) replay(i int) {
	for node := (len(t.leaves) + i) / 2; node > 0; node /= 2 {
		if t.less(t.nodes[node], i) {
			t.nodes[node], i = i, t.nodes[node]
		}
	}
	t.nodes[0] = i
}

// winner returns the least leaf.
func (t *loserTree) winner() int { return t.nodes[0] }

// ties appends to found the leaves with the labels of leaf i that lost to it below node top.
func (t *loserTree) ties(found []int, i, top int) []int {
	for node := (len(t.leaves) + i) / 2; node > top; node /= 2 {
		l := t.nodes[node]
		if !t.leaves[l].ended && labels.Equal(t.leaves[l].series.Labels, t.leaves[i].series.Labels) {
			found = t.ties(append(found, l), l, node)
		}
	}
	return found
}
